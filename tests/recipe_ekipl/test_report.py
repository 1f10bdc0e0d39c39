"""The page of a run."""

import json
from pathlib import Path

import yaml

from recipe.ekipl.measure.beside import method_of, runs_beside
from recipe.ekipl.measure.report import write_report
from recipe.ekipl.measure.summary import summarize_run
from recipe.ekipl.plan import Plan
from recipe.ekipl.run_files import RunFiles

NUMBERS = dict.fromkeys(Plan.__dataclass_fields__, 0) | {"model": "m", "advantage": "", "run_dir": ""}


def write_run(folder: Path, after: float, experts=("gpt-4o",), baseline="all", model="base") -> Path:
    (folder / "attempts").mkdir(parents=True)
    rows = [
        {"step": 0, "data": {"val-core/clevr/acc/mean@1": 0.25, "val-aux/clevr/format/mean@1": 1.0}},
        {"step": 1, "data": {"ekipl/groups/count": 4.0, "ekipl/groups/zero_variance": 0.5, "ekipl/expert_share": 0.5}},
        {"step": 2, "data": {"val-core/clevr/acc/mean@1": after, "val-aux/clevr/format/mean@1": 1.0}},
    ]
    (folder / "attempts/0001-from-000000.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "ekipl": {"experts": [{"name": n} for n in experts], "advantage": {"baseline": baseline, "std": baseline}},
        "data": {"train_files": ["a.parquet"], "val_files": ["b.parquet"], "train_batch_size": 16},
        "actor_rollout_ref": {"model": {"path": model}},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def page_of(folder: Path) -> str:
    files = RunFiles(folder)
    steps = files.steps()
    return write_report(files, Plan(**NUMBERS), steps, summarize_run(files, steps)).read_text()


def test_runs_on_the_same_rows_from_the_same_model_stand_beside_each_other(tmp_path):
    ours = write_run(tmp_path / "ours", 0.9)
    write_run(tmp_path / "grpo", 0.4, experts=())
    write_run(tmp_path / "paper", 0.3, baseline="selected")
    write_run(tmp_path / "other-model", 0.8, model="another")
    (tmp_path / "half-made").mkdir()

    page = page_of(ours)

    assert [run.name for run in runs_beside(ours)] == ["ours", "grpo", "paper"]
    for word in ("Beside other runs", "GRPO, no experts", "the paper&#39;s advantage", "0.900", "0.400", "0.300"):
        assert word in page
    assert "other-model" not in page


def test_a_run_alone_has_nothing_beside_it(tmp_path):
    assert "Beside other runs" not in page_of(write_run(tmp_path / "ours", 0.9))


def test_a_run_that_has_not_been_evaluated_after_training_is_left_out(tmp_path):
    ours = write_run(tmp_path / "ours", 0.9)
    young = write_run(tmp_path / "young", 0.9)
    (young / "attempts/0001-from-000000.jsonl").write_text(
        json.dumps({"step": 0, "data": {"val-core/clevr/acc/mean@1": 0.25}}) + "\n"
    )
    assert [run.name for run in runs_beside(ours)] == ["ours"]


def test_the_papers_advantage_is_called_so():
    config = {"ekipl": {"experts": [{"name": "e"}], "advantage": {"baseline": "selected", "std": "all"}}}
    assert method_of(config) == "EKIPL, baseline over selected, std over all"
