"""A run folder and evaluations as training and evaluation leave them, without either: for tests and for looking.

    python -m tests.recipe_ekipl.demo_run /some/folder --steps 200

Rows, pictures, answers, rewards and selections are real (the synthetic world, ekipl_reward, select, GroupWriter); how
often each source is right is made up.
"""

import argparse
import json
import random
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import yaml

from ekipl_reward import compute_score
from ekipl_rollout.answer import POLICY, Answer, AnswerStatus, Candidate
from ekipl_rollout.ask import Asked
from ekipl_rollout.errors import Failure
from ekipl_rollout.group_files import GroupWriter
from ekipl_rollout.group_filter import select
from ekipl_rollout.group_report import step_metrics, summarize
from ekipl_rollout.settings.advantage import AdvantageSettings
from recipe.ekipl.data.reason_rft import convert
from recipe.ekipl.data.splits import TASKS, splits_of
from recipe.ekipl.data.synthetic.problem import response
from recipe.ekipl.data.synthetic.write import problem_of, write_world
from recipe.ekipl.evaluate.judge import judge_row, write_scores
from recipe.ekipl.evaluate.result import summarize_split, write_result
from recipe.ekipl.reproduce.kept import keep

SEED = 3  # of the world
N, G = 8, 8
EXPERTS = {"gpt-4o": 0.42, "gemini": 0.26}
HESITATION = "Wait, I look at the picture again to be sure, row by row and from left to right. "


@cache
def problem(row_id: str):
    return problem_of(row_id, SEED)


def text_of(row_id: str, rng: np.random.Generator, right: float, voice: int, longer: int = 0) -> str:
    """An answer that is right with probability `right`, in the world's words, with `longer` sentences more."""
    reasoning, answer = problem(row_id).solve(rng, voice, bool(rng.random() < right))
    return response(HESITATION * longer + reasoning, answer)


def rows_of(world: Path, out: Path, count: int) -> list[dict]:
    """Writes the parquet files; returns `count` training rows of each task: id, data_source, truth."""
    convert(world, out, list(TASKS), "plain")
    rows = []
    for task in TASKS:
        source = splits_of(task)[0].data_source
        ids = [f"{task}-train-{i}" for i in range(count)]
        rows += [{"id": i, "data_source": source, "truth": problem(i).answer} for i in ids]
    return rows


def write_run(
    folder: Path, data: Path, rows: list[dict], steps: int, groups: int, longer: int = 0, first: int = 1
) -> Path:
    """Steps `first` ... `steps` of a run in which the policy learns. Called again it goes on."""
    folder.mkdir(parents=True, exist_ok=True)
    train = [str(data / task / "train.rl.parquet") for task in TASKS]
    held_out = [str(data / task / f"{s.name}.rl.parquet") for task in TASKS for s in splits_of(task) if s.is_test]
    config = {
        "ekipl": {
            "experts": [{"name": name} for name in EXPERTS],
            "advantage": {"baseline": "all", "std": "all"},
            "num_answers": N,
        },
        "algorithm": {"adv_estimator": "ekipl"},
        "actor_rollout_ref": {"rollout": {"n": G}},
        "data": {"train_files": train, "val_files": held_out},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    plan = {"num_answers": N, "num_experts": 2, "num_kept": G, "batch": groups, "steps": 200, "model": "tiny"}
    (folder / "plan.json").write_text(json.dumps({**plan, "candidates_per_row": N * 3}))
    writer = GroupWriter(folder)
    attempts = folder / "attempts"
    attempts.mkdir(exist_ok=True)
    with open(attempts / "0001-from-000000.jsonl", "a") as log:
        for step in range(first, steps + 1):
            rng = np.random.default_rng([SEED, step])
            chosen = [rows[(step * groups + i) % len(rows)] for i in range(groups)]
            tags = [write_group(writer, step, f"{step:05d}-{i}", row, rng, longer) for i, row in enumerate(chosen)]
            metrics = step_metrics(tags, list(EXPERTS)) | {"timing_s/step": 3.0, "timing_s/gen": 1.2}
            if step % 25 == 0 or step == 1:
                metrics |= {f"val-core/{row['data_source']}/acc/mean@1": skill(step) for row in rows}
            log.write(json.dumps({"step": step, "data": metrics}) + "\n")
    return folder


def skill(step: int) -> float:
    return 0.15 + 0.8 * step / (step + 60)


def write_group(writer: GroupWriter, step: int, uid: str, row: dict, rng: np.random.Generator, longer: int) -> dict:
    texts = [(POLICY, text_of(row["id"], rng, skill(step), 0, longer)) for _ in range(N)]
    for voice, (name, right) in enumerate(EXPERTS.items(), start=1):
        texts += [(name, text_of(row["id"], rng, right, voice, longer)) for _ in range(N)]
    candidates = [judged(i, source, text, row) for i, (source, text) in enumerate(texts)]
    selection = select(candidates, G)
    head = {"uid": uid, "row": row["id"], "index": 0, "data_source": row["data_source"], "truth": row["truth"]}
    writer.write(step, head, selection)
    experts = [c for c in candidates if not c.is_policy]
    answers = [Answer(c.source, i, c.text, AnswerStatus.FINISHED, c.length, 2e-4, 1.0) for i, c in enumerate(experts)]
    asked = Asked(answers, [("gemini", Failure.TIMED_OUT)], Counter(dict.fromkeys(EXPERTS, N)))
    return summarize(candidates, selection, asked, G, advantage=AdvantageSettings("all", "all"))


def judged(session: int, source: str, text: str, row: dict) -> Candidate:
    parts = compute_score(row["data_source"], text, row["truth"])
    return Candidate(source, session, parts["score"], parts, len(text) // 4, text)


def write_evaluation(folder: Path, right: float, step: int, splits: dict[str, list[dict]], samples: int = 1) -> Path:
    """`splits`: name -> rows (id, data_source, truth)."""
    summaries = {}
    for name, rows in splits.items():
        rng = np.random.default_rng([SEED, step])
        answers = [
            {"row": row["id"], "sample": i, "asked": "", "status": "finished", "tokens": 40}
            | {"text": text_of(row["id"], rng, right, 0)}
            for row in rows
            for i in range(samples)
        ]
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "answers.jsonl").write_text("".join(json.dumps(answer) + "\n" for answer in answers))
        by_row = [[a for a in answers if a["row"] == row["id"]] for row in rows]
        judged_rows = [judge_row(row, said, "paper", False) for row, said in zip(rows, by_row, strict=True)]
        write_scores(folder / name / "scores.paper.jsonl", judged_rows)
        summaries[name] = summarize_split(judged_rows, answers)
    head = {"name": folder.name, "method": None, "rules": "paper", "model": "runs/demo", "step": step}
    write_result(folder / "result.paper.json", head, summaries)
    return folder


def kept_evaluations(folder: Path) -> Path:
    """Two evaluations as the study keeps them: scores, compressed, and no answers."""
    for step, right in ((25, 0.3), (100, 1.0)):
        write_evaluation(folder / f"made-{step}" / "evaluations" / "final", right, step, held_out_rows(6), samples=2)
        keep(folder / f"made-{step}", folder / "kept" / f"ekipl-{step}", {})
    return folder / "kept"


def held_out_rows(count: int) -> dict[str, list[dict]]:
    """The counting task's test splits."""
    found = {}
    for split in (s for s in splits_of("visual_counting") if s.is_test):
        ids = [f"visual_counting-{split.name}-{i}" for i in range(count)]
        found[split.name] = [{"id": i, "data_source": split.data_source, "truth": problem(i).answer} for i in ids]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--groups", type=int, default=16)
    args = parser.parse_args()
    random.seed(0)
    write_world(args.folder / "world", list(TASKS), train=40, base=4, test=40, seed=SEED)
    rows = rows_of(args.folder / "world", args.folder / "data", 40)
    random.shuffle(rows)
    run = write_run(args.folder / "runs" / "demo", args.folder / "data", rows, args.steps, args.groups, longer=4)
    write_evaluation(run / "evaluations" / "step-25-greedy", 0.4, 25, held_out_rows(40))
    write_evaluation(run / "evaluations" / "step-200-greedy", 0.85, 200, held_out_rows(40))


if __name__ == "__main__":
    main()
