"""A run and two evaluations in which everything that somebody else wrote is script."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from ekipl_rollout.answer import Candidate, Selection
from ekipl_rollout.group_files import GroupWriter
from recipe.ekipl.evaluate.judge import RowScores, write_scores
from recipe.ekipl.evaluate.result import summarize_split, write_result

EVIL = (
    "</script><script>window.taken=1</script><img src=x onerror='window.taken=1'><svg onload=window.taken=1>"
    "<a href='javascript:window.taken=1'>${window.taken=1}</a>\ud800\u202e"
)


def hostile_run(folder: Path) -> Path:
    """Everything that somebody else wrote is hostile: texts, rewards' words, row, truth, names, the question."""
    id_ = "<img src=x onerror='window.taken=1'>"
    pq.write_table(
        pa.Table.from_pylist(
            [{"prompt": [{"role": "user", "content": EVIL[:-2]}], "images": [], "extra_info": {"id": id_}}],
            schema=pa.schema(
                [
                    ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
                    ("images", pa.list_(pa.struct([("bytes", pa.binary())]))),
                    ("extra_info", pa.struct([("id", pa.string())])),
                ]
            ),
        ),
        folder.parent / "hostile.parquet",
    )
    (folder / "attempts").mkdir(parents=True)
    config = {
        "ekipl": {"experts": [{"name": "<b>gpt</b>"}]},
        "data": {"train_files": [str(folder.parent / "hostile.parquet")]},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "attempts" / "0001-from-000000.jsonl").write_text(
        json.dumps(
            {
                "step": 1,
                "data": {
                    "ekipl/groups/count": 1.0,
                    "ekipl/expert_share": 1.0,
                    "ekipl/groups/zero_variance": 1.0,
                    "val-core/<img src=x>/acc/mean@1": 0.5,
                },
            }
        )
        + "\n"
    )
    parts = {"accuracy": 1.0, "reason": EVIL, "parsed": EVIL, "<i>part</i>": EVIL}
    answer = Candidate("<b>gpt</b>", 0, 1.0, parts, 3, f"<think>{EVIL}</think><answer>{EVIL}</answer>")
    row = {"uid": "u<'\"&/?#", "row": id_, "data_source": "<s>x</s>", "truth": EVIL}
    GroupWriter(folder).write(1, row, Selection([answer], [(answer, "<u>why</u>")]))
    for name in ("one", "two"):
        hostile_evaluation(folder / "evaluations" / name, EVIL + name)
    return folder


def hostile_evaluation(folder: Path, text: str) -> None:
    (folder / "trance").mkdir(parents=True)
    answers = [{"row": EVIL[:40], "sample": 0, "asked": "", "status": "<b>", "tokens": 1, "text": text}]
    (folder / "trance" / "answers.jsonl").write_text("".join(json.dumps(answer) + "\n" for answer in answers))
    scores = [RowScores(EVIL[:40], "trance", EVIL, [0.5], [1.0])]
    write_scores(folder / "trance" / "scores.paper.jsonl", scores)
    head = {"name": "<b>", "rules": "paper", "model": EVIL, "step": 1}
    write_result(folder / "result.paper.json", head, {"trance": summarize_split(scores, answers)})
