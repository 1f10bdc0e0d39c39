"""Figures: the right numbers in their CSV files, and files that are the same every time."""

import csv
import json
from pathlib import Path

import pytest
import yaml

from recipe.ekipl.measure.curves import COLORS, DASHES
from recipe.ekipl.measure.figure_data import Figure, all_figures
from recipe.ekipl.measure.figures import main
from recipe.ekipl.measure.plot import MARKERS
from recipe.ekipl.measure.runs import read_all

BATCH = 16


def write_run(
    folder: Path, accuracy: dict[int, tuple[float, ...]], experts=("gpt-4o",), dollars=0.0, silent=0.25
) -> Path:
    """A run on spatial transformation: `accuracy` is (trance, trance_left, trance_right) by step."""
    folder.mkdir(parents=True)
    steps = []
    for step in range(max(accuracy) + 1):
        row = {"step": step}
        if step:
            row |= {"ekipl/groups/count": 4.0, "ekipl/groups/silent": silent, "ekipl/dollars": dollars}
            row |= {"ekipl/policy/share": 0.4 + 0.01 * step, "ekipl/expert1/share": 0.6 - 0.01 * step}
        for split, value in zip(("trance", "trance_left", "trance_right"), accuracy.get(step, ()), strict=False):
            row[f"val-core/{split}/acc/mean@1"] = value
        steps.append(row)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in steps))
    (folder / "plan.json").write_text(json.dumps({"batch": BATCH}))
    (folder / "config.yaml").write_text(yaml.safe_dump({"ekipl": {"experts": [{"name": name} for name in experts]}}))
    return folder


def write_evaluation(
    folder: Path, accuracy=(0.5, 0.4, 0.2), samples_seen=None, pass_at_k=None, method=None, samples=1
) -> Path:
    folder.mkdir(parents=True)
    splits = {
        split: {
            "accuracy": {"mean": value, "low": value, "high": value},
            "samples": samples,
            "pass_at_k": pass_at_k or {},
        }
        for split, value in zip(("trance", "trance_left", "trance_right"), accuracy, strict=True)
    }
    result = {"name": folder.name, "method": method, "rules": "paper", "samples_seen": samples_seen}
    result |= {"splits": splits}
    (folder / "result.paper.json").write_text(json.dumps(result))
    return folder


def figures_of(*folders) -> dict[str, Figure]:
    return {figure.name: figure for figure in all_figures(*read_all([str(folder) for folder in folders], "paper"))}


def points(figure: Figure, panel: str, label: str, value: str = "y") -> list[tuple[float, float]]:
    (series,) = [s for p in figure.panels if p.title == panel for s in p.series if s.label == label]
    return [("" if series.level else p.x, getattr(p, value)) for p in series.points]


def test_accuracy_stands_against_rows_seen_as_mean_and_range_of_the_seeds(tmp_path):
    one = write_run(tmp_path / "one", {0: (0.1, 0.0, 0.2), 4: (0.5, 0.2, 0.4)})
    two = write_run(tmp_path / "two", {0: (0.3, 0.0, 0.2), 4: (0.9, 0.4, 0.4)})
    figure = figures_of(f"ekipl={one}", f"ekipl={two}")["figure_3_samples_spatial_transformation"]
    assert points(figure, "in domain", "ekipl") == [(0, pytest.approx(0.2)), (4 * BATCH, pytest.approx(0.7))]
    assert points(figure, "in domain", "ekipl", "low")[1][1] == pytest.approx(0.5)
    assert points(figure, "in domain", "ekipl", "high")[1][1] == pytest.approx(0.9)
    # out of domain is the mean of the two other views
    assert points(figure, "out of domain", "ekipl")[1][1] == pytest.approx((0.3 + 0.4) / 2)


def test_an_evaluation_of_a_checkpoint_counts_before_its_validation(tmp_path):
    run = write_run(tmp_path / "run", {0: (0.1, 0.1, 0.1), 2: (0.3, 0.3, 0.3)})
    write_evaluation(run / "evaluations/step-2-greedy", (0.35, 0.2, 0.2), samples_seen=2 * BATCH)
    sft = write_evaluation(tmp_path / "sft", (0.6, 0.4, 0.4), method="cot_sft")
    figure = figures_of(f"ekipl={run}", sft)["figure_3_samples_spatial_transformation"]
    assert points(figure, "in domain", "ekipl") == [(0, pytest.approx(0.1)), (2 * BATCH, pytest.approx(0.35))]
    assert points(figure, "in domain", "cot_sft") == [("", pytest.approx(0.6))]  # a line across


def test_a_sampled_evaluation_of_a_checkpoint_does_not_move_its_greedy_accuracy(tmp_path):
    run = write_run(tmp_path / "run", {0: (0.1, 0.1, 0.1), 2: (0.3, 0.3, 0.3)})
    write_evaluation(run / "evaluations/step-2-greedy", samples_seen=2 * BATCH)
    write_evaluation(run / "evaluations/step-2-t1", (0.0, 0.0, 0.0), samples_seen=2 * BATCH, samples=64)
    figure = figures_of(f"ekipl={run}")["figure_3_samples_spatial_transformation"]
    assert points(figure, "in domain", "ekipl")[1] == (2 * BATCH, pytest.approx(0.5))


def test_sources_are_called_by_their_configured_names(tmp_path):
    run = write_run(tmp_path / "run", {0: (0.1,), 30: (0.3,)})
    figure = figures_of(f"ekipl={run}")["figure_4_sources"]
    assert points(figure, "ekipl", "policy")[0] == (1, pytest.approx(0.41))
    assert points(figure, "ekipl", "gpt-4o")[29] == (30, pytest.approx(0.30))
    assert figure.panels[0].series[1].trend[29] == pytest.approx(0.6 - 0.01 * 25.5)


def test_pass_at_k_is_drawn_for_evaluations_with_several_samples(tmp_path):
    curve = {str(k): {"mean": k / 8, "low": k / 10, "high": 1.0} for k in (1, 2, 4, 8)}
    sampled = write_evaluation(tmp_path / "base-t1", pass_at_k=curve, samples=8, method="zero_shot")
    greedy = write_evaluation(tmp_path / "grpo-greedy", method="grpo")
    figure = figures_of(sampled, greedy)["figure_5_pass_at_k_spatial_transformation"]
    assert {series.label for panel in figure.panels for series in panel.series} == {"zero_shot"}
    assert points(figure, "trance", "zero_shot") == [(k, pytest.approx(k / 8)) for k in (1, 2, 4, 8)]


def test_dollars_add_up_over_the_steps_and_free_methods_are_lines_across(tmp_path):
    paid = write_run(tmp_path / "paid", {0: (0.1,), 5: (0.3,), 10: (0.6,)}, dollars=0.5)
    free = write_run(tmp_path / "free", {0: (0.1,), 10: (0.4,)}, experts=())
    figure = figures_of(f"ekipl={paid}", f"grpo={free}")["dollars_spatial_transformation"]
    assert points(figure, "in domain", "ekipl") == [
        (0.0, pytest.approx(0.1)),
        (2.5, pytest.approx(0.3)),
        (5.0, pytest.approx(0.6)),
    ]
    assert points(figure, "in domain", "grpo") == [("", pytest.approx(0.4))]


def test_dollars_stand_against_evaluations_of_checkpoints_where_there_are_no_validations(tmp_path):
    run = write_run(tmp_path / "paid", {10: ()}, dollars=0.5)
    for step, accuracy in ((4, 0.3), (10, 0.6)):
        write_evaluation(run / f"evaluations/step-{step}", (accuracy,) * 3, samples_seen=step * BATCH)
    figure = figures_of(f"ekipl={run}")["dollars_spatial_transformation"]
    assert points(figure, "in domain", "ekipl") == [(2.0, pytest.approx(0.3)), (5.0, pytest.approx(0.6))]


def test_without_paid_experts_there_is_no_dollars_figure_and_it_says_so(tmp_path, capsys):
    run = write_run(tmp_path / "run", {0: (0.1,), 3: (0.3,)})
    assert main([str(run), "--out", str(tmp_path / "out")]) == 0
    assert "no dollars figure" in capsys.readouterr().out


def test_groups_that_carry_gradient_are_those_that_are_not_silent(tmp_path):
    run = write_run(tmp_path / "run", {0: (0.1,), 3: (0.3,)}, silent=0.75)
    figure = figures_of(f"paper's rule={run}")["gradient_groups"]
    assert points(figure, "", "paper's rule") == [(step, pytest.approx(0.25)) for step in (1, 2, 3)]


def test_every_figure_is_written_three_times_and_the_same_data_gives_the_same_bytes(tmp_path):
    run = write_run(tmp_path / "run", {0: (0.1, 0.1, 0.1), 3: (0.3, 0.2, 0.2)}, dollars=0.1)
    for folder in ("a", "b"):
        assert main([str(run), "--out", str(tmp_path / folder)]) == 0
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    names = (
        "dollars_spatial_transformation",
        "figure_3_samples_spatial_transformation",
        "figure_4_sources",
        "gradient_groups",
    )
    assert files == sorted(f"{name}.{ending}" for name in names for ending in ("csv", "png", "svg"))
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)
    with open(tmp_path / "a/figure_3_samples_spatial_transformation.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert (rows[1]["panel"], rows[1]["label"], rows[1]["x"], rows[1]["y"]) == ("in domain", "run", "48", "0.3")


def test_a_name_is_drawn_as_it_is_and_is_no_formula_in_a_spreadsheet(tmp_path):
    run = write_run(tmp_path / "run", {0: (0.1,), 3: (0.3,)})
    assert main([f"+1$\\frac$={run}", "--out", str(tmp_path / "out")]) == 0
    with open(tmp_path / "out/gradient_groups.csv", newline="") as file:
        assert {row["label"] for row in csv.DictReader(file)} == {"'+1$\\frac$"}


def test_curves_differ_by_more_than_their_colour():
    assert len({*COLORS}) == len({*map(str, DASHES)}) == len({*MARKERS}) == 7


def test_a_folder_that_is_no_run_and_holds_no_evaluation_is_an_error(tmp_path, capsys):
    assert main([str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "python -m recipe.ekipl.evaluate" in capsys.readouterr().err
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "does not exist" in capsys.readouterr().err
    (tmp_path / "metrics.jsonl").write_text("")
    assert main([str(tmp_path)]) == 2
    assert "no complete run folder" in capsys.readouterr().err
