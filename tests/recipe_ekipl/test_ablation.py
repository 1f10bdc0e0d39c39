import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml

from ekipl_rollout.errors import SettingsError
from ekipl_rollout.settings import EkiplSettings
from recipe.ekipl.ablation import runner
from recipe.ekipl.ablation.__main__ import main
from recipe.ekipl.ablation.cells import CORE, REGIMES, VARIANTS, Cell, make_cells
from recipe.ekipl.ablation.results import append_line, make_line, read_lines
from recipe.ekipl.ablation.table import IN_DOMAIN, OUT_OF_DOMAIN, accuracy, draw, markdown
from recipe.ekipl.compose import CONFIG_DIR
from recipe.ekipl.lanes import Lanes
from recipe.ekipl.run_files import RunFiles


def steps(right: float) -> list[dict]:
    """Metrics of a run of 4 steps, as run_files.py merges them, with validations at 0, 2 and 4."""

    def look(share):
        return {
            f"val-core/{source}/{part}/mean@1": value
            for source in (IN_DOMAIN, OUT_OF_DOMAIN)
            for part, value in (("acc", share), ("format", 1.0))
        }

    train = {
        "ekipl/groups/zero_variance": 0.5,
        "ekipl/groups/silent": 0.0,
        "ekipl/expert_share": 0.4,
        "ekipl/dollars": 0.25,
    }
    return [
        {"step": 0, **look(0.2)},
        *(
            {"step": step, "timing_s/step": 10.0, **train, **(look(right) if step % 2 == 0 else {})}
            for step in range(1, 5)
        ),
    ]


def line(variant="robust", seed=0, right=0.9):
    return make_line(Cell("lacks_skill", variant, seed, 4, 1e-4), steps(right), rows=50, wall_s=100.0)


def test_a_line_holds_validations_money_and_means_between_them():
    found = line()
    assert [(look["step"], look["dollars"], look[IN_DOMAIN]) for look in found.accuracy] == [
        (0, 0.0, 0.2),
        (2, 0.5, 0.9),
        (4, 1.0, 0.9),
    ]
    assert found.curves["zero_variance"] == [0.5, 0.5]
    assert found.curves["ess_share"] == [None, None]
    assert (found.seconds, found.startup_s) == (40.0, 60.0)
    assert len(json.dumps(found.__dict__)) < 2_000


def test_results_outlive_a_kill_in_the_middle_of_a_line(tmp_path):
    path = tmp_path / "results.jsonl"
    append_line(path, line(seed=0))
    with open(path, "a") as file:
        file.write('{"id": "torn')
    append_line(path, line(seed=1))
    assert [found.seed for found in read_lines(path).values()] == [0, 1]


def test_seeds_and_rows_both_widen_the_interval():
    alike, apart = (
        [line(seed=s, right=0.5) for s in range(3)],
        [line(seed=s, right=r) for s, r in enumerate((0.1, 0.5, 0.9))],
    )
    narrow, wide = accuracy(alike, IN_DOMAIN), accuracy(apart, IN_DOMAIN)
    assert narrow.mean == wide.mean == pytest.approx(0.5)
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


def test_the_table_and_the_figures_name_every_variant(tmp_path):
    lines = [line(variant, seed) for variant in ("grpo", "robust") for seed in (0, 1)]
    text = markdown(lines)
    assert "| `grpo` | no expert | 0, 1 | 0.20 [" in text
    assert all(path.stat().st_size > 1_000 for path in draw(lines, tmp_path))


def test_a_dry_run_says_what_is_missing_and_starts_nothing(tmp_path, capsys):
    results = tmp_path / "results.jsonl"
    append_line(results, line("paper"))
    asked = ["--regimes", "lacks_skill", "--variants", "paper", "grpo", "--seeds", "0", "--steps", "4", "--lr", "1e-4"]
    assert main(["run", "--dry-run", "--results", str(results), *asked]) == 0
    said = capsys.readouterr().out
    assert "1 of 2 runs to go" in said and "done  lacks_skill-paper-s0-4x0.0001" in said
    assert not (tmp_path / "runs").exists()


def test_an_unknown_variant_is_answered_with_the_known_ones():
    with pytest.raises(SettingsError, match="Variants: grpo, paper, robust"):
        make_cells(REGIMES, ["robbust"], [0], 4, 1e-4)


def test_the_default_is_what_a_small_machine_can_train_and_one_word_is_everything(tmp_path, capsys):
    plan = ["run", "--dry-run", "--results", str(tmp_path / "results.jsonl")]
    assert main(plan) == 0
    said = capsys.readouterr().out
    assert f"{6 * len(CORE)} of {6 * len(CORE)} runs to go, 1 at a time" in said
    assert "lacks_skill-robust-s0-100x0.0004" in said and "fair-robust-s0-40x0.0001" in said
    assert main([*plan, "--variants", "all"]) == 0
    assert f"{6 * len(VARIANTS)} runs to go" in capsys.readouterr().out


def test_lines_of_runs_that_end_at_once_do_not_mix(tmp_path):
    path = tmp_path / "results.jsonl"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda seed: append_line(path, line(seed=seed)), range(64)))
    assert sorted(found.seed for found in read_lines(path).values()) == list(range(64))


def test_metrics_and_report_of_a_run_stay_and_checkpoints_go(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows, cell = tmp_path / "rows", Cell("fair", "grpo", 0, 4, 1e-4)

    def trained(lanes, log, module, *overrides, environment):
        files = RunFiles(log.parent)
        attempt, _ = files.start_attempt()
        attempt.write_text("".join(json.dumps({"step": row.pop("step"), "data": row}) + "\n" for row in steps(0.9)))
        files.report.write_text("report")
        for heavy in ("checkpoints", "groups"):
            (files.root / heavy).mkdir()

    monkeypatch.setattr(runner, "prepare", lambda cell, folder, lanes: (rows, tmp_path / "model"))
    monkeypatch.setattr(runner, "call", trained)
    monkeypatch.setattr(runner, "rows_of", lambda path: 50)
    (rows / runner.TASK).mkdir(parents=True)
    (rows / runner.TASK / "test.rl.parquet").touch()
    found = runner.train_cell(cell, tmp_path / "runs", Lanes(1))
    assert found.accuracy[-1][IN_DOMAIN] == 0.9
    assert {path.name for path in (tmp_path / "runs" / cell.name).iterdir()} == {
        "attempts",
        "metrics.jsonl",
        "report.html",
    }


def test_whole_comparisons_come_first():
    cells = make_cells(["fair"], ["grpo", "paper"], [0, 1], 4, 1e-4)
    assert [(cell.seed, cell.variant) for cell in cells] == [(0, "grpo"), (0, "paper"), (1, "grpo"), (1, "paper")]
    assert len({cell.name for cell in cells}) == 4


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_sets_what_exists(name):
    block = {}
    for override in VARIANTS[name].overrides:
        key, value = override.split("=")
        if key.startswith("actor_rollout_ref."):
            continue  # verl's
        if key == "preset":
            block = yaml.safe_load((CONFIG_DIR / "preset" / f"{value}.yaml").read_text())
        else:
            _, part, setting = key.split(".")
            block.setdefault(part, {})[setting] = yaml.safe_load(value)
    EkiplSettings.from_config(block)
    assert (CONFIG_DIR / "experts" / f"{VARIANTS[name].experts}.yaml").is_file()
