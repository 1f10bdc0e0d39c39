"""The page of a run."""

import json
from pathlib import Path

import pytest
import yaml

from recipe.ekipl.measure.beside import method_of, runs_beside
from recipe.ekipl.measure.report import score_table, write_report
from recipe.ekipl.measure.summary import summarize_run
from recipe.ekipl.plan import Plan
from recipe.ekipl.run_files import RunFiles

NUMBERS = dict.fromkeys(Plan.__dataclass_fields__, 0) | {
    "model": "m",
    "advantage": "",
    "run_dir": "",
    "validation_by_source": {"clevr": 100},
}
TRAINED = {"ekipl/groups/count": 4.0, "ekipl/groups/zero_variance": 0.5, "ekipl/expert_share": 0.5}


def write_run(folder: Path, after: float, experts=("gpt-4o",), baseline="all", model="base") -> Path:
    (folder / "attempts").mkdir(parents=True)
    rows = [
        {"step": 0, "data": {"val-core/clevr/acc/mean@1": 0.25, "val-aux/clevr/format/mean@1": 1.0}},
        {"step": 1, "data": TRAINED},
        {"step": 2, "data": {"val-core/clevr/acc/mean@1": after, "val-aux/clevr/format/mean@1": 1.0, **TRAINED}},
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


def test_a_folder_beside_it_that_is_no_run_of_ours_costs_no_page(tmp_path):
    ours = write_run(tmp_path / "ours", 0.9)
    for name, text in (("theirs", "model: m"), ("torn", "ekipl: {"), ("list", "[1, 2]")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(text)
    assert [run.name for run in runs_beside(ours)] == ["ours"]


def test_the_standard_error_is_that_of_each_sources_own_rows(tmp_path):
    plan = Plan(**NUMBERS | {"validation_rows": 500, "validation_by_source": {"clevr": 100, "other": 400}})
    steps = RunFiles(write_run(tmp_path / "ours", 0.5)).steps()
    (row,) = score_table(steps, plan)
    assert row["after_se"] == pytest.approx(0.05)


def test_before_and_after_are_the_first_and_the_last_step_or_nothing(tmp_path):
    steps = [
        {"step": 1, **TRAINED, "val-core/hiyouga/geometry3k/acc/mean@1": 0.5},
        {"step": 2, **TRAINED},
    ]
    summary = summarize_run(RunFiles(tmp_path), steps)
    assert (summary["accuracy_before"], summary["accuracy_after"]) == (None, None)
    steps[1]["val-core/hiyouga/geometry3k/acc/mean@1"] = 0.75
    assert summarize_run(RunFiles(tmp_path), steps)["accuracy_after"] == {"hiyouga/geometry3k": 0.75}


def test_the_result_of_a_run_names_all_that_is_promised(tmp_path):
    files = RunFiles(write_run(tmp_path / "ours", 0.9))
    promised = (
        "run_dir steps accuracy_before accuracy_after format_before format_after expert_share_first expert_share_last"
    )
    assert set(f"{promised} zero_variance seconds peak_memory_gib".split()) <= set(summarize_run(files, files.steps()))
