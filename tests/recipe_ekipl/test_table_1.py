"""The paper's Table 1, and ours in its layout."""

import csv
import io
import json
from dataclasses import replace

import pytest

from ekipl_rollout.errors import SettingsError
from recipe.ekipl.evaluate.judge import RowScores, write_scores
from recipe.ekipl.measure.results import find_results
from recipe.ekipl.measure.table_1 import main
from recipe.ekipl.measure.table_rows import COLUMNS, LABELS, TASKS, our_row, paper_rows, parts_of
from recipe.ekipl.measure.table_text import comma_separated, latex, markdown

# Cells that no rule gives back: misprints of the paper, or columns that were changed after the average was made.
# (method, task) -> (what its columns give, what is printed)
EXCEPTIONS = {
    ("gemini_1_5_pro", "structure_perception"): (49.25, 49.45),
    ("internvl_2_5_8b", "structure_perception"): (55.16, 51.60),
    ("qwen2_5_vl_3b", "spatial_transformation"): (8.4275, 8.42),  # rounded twice: (8.57 + 8.28) / 2
    ("pixtral_12b", "spatial_transformation"): (6.2375, 6.42),
}
# Rows whose spatial average is not the plain mean of the three columns.
ID_AND_OOD = {row.method for row in paper_rows() if row.base == ""}  # proprietary and open-source models
OOD_ONLY = {("2B", "grpo"), ("7B", "grpo")}  # Reason-RFT-Zero


def average(values, rule):
    """An AVG cell from the columns of its task, in-domain first (`PaperRow.spatial_rule`)."""
    ood = sum(values[1:]) / (len(values) - 1)
    return {"all": sum(values) / len(values), "id_ood": (values[0] + ood) / 2, "ood": ood}[rule]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("row", paper_rows(), ids=lambda r: f"{r.base}{r.method}")
def test_every_average_of_the_paper_follows_from_its_own_columns(row, task):
    rule = "all"
    if task == "spatial_transformation":
        rule = "id_ood" if row.method in ID_AND_OOD else "ood" if (row.base, row.method) in OOD_ONLY else "all"
        assert row.spatial_rule == rule
    made = average([row.cells[split] for split in TASKS[task][1]], rule)
    printed = row.cells[f"{task}_avg"]
    if (row.method, task) in EXCEPTIONS:
        assert (pytest.approx(made, abs=1e-9), printed) == EXCEPTIONS[row.method, task]
        assert abs(made - printed) > 0.0051
    else:
        assert made == pytest.approx(printed, abs=0.0051)  # half a unit of the last printed digit, either way


def test_the_paper_has_21_rows_and_ten_columns():
    assert len(paper_rows()) == 21
    assert len(COLUMNS) == 10
    assert all(row.method in LABELS for row in paper_rows() if row.base)


def evaluation(folder, method, right: dict[str, list[float]], **head):
    """An evaluation with the given score of each row."""
    rules = "paper"
    for split, scores in right.items():
        (folder / split).mkdir(parents=True)
        rows = [RowScores(f"r{i}", split, "1", [score], [1.0]) for i, score in enumerate(scores)]
        write_scores(folder / split / f"scores.{rules}.jsonl", rows)
    splits = {split: {"accuracy": {"mean": sum(s) / len(s)}} for split, s in right.items()}
    content = {"name": folder.name, "method": method, "rules": rules, "splits": splits, **head}
    (folder / f"result.{rules}.json").write_text(json.dumps(content))
    return str(folder)


@pytest.fixture
def spatial(tmp_path):
    half, third, all_right = [1.0, 0.0] * 20, [0.5, 0.5, 0.0, 0.25] * 10, [1.0] * 40
    return [
        evaluation(tmp_path / "a", "ekipl", {"trance": half, "trance_left": third, "trance_right": all_right}),
        evaluation(tmp_path / "b", "ekipl", {"trance": half, "trance_left": half, "trance_right": all_right}),
        evaluation(tmp_path / "c", "grpo", {"trance": third}),
    ]


def test_our_averages_are_the_plain_mean_and_stand_beside_the_papers(spatial):
    row = our_row("ekipl", find_results(spatial[:1]))
    assert row.cells["trance"].mean == pytest.approx(50.0)
    assert row.cells["spatial_transformation_avg"].mean == pytest.approx((50 + 31.25 + 100) / 3)
    assert "visual_counting_avg" not in row.cells
    text = markdown(parts_of([row], "2B"))
    line = next(line for line in text.splitlines() if "Vision-EKIPL" in line)
    assert "50.00 ±" in line
    assert "(78.23)" in line
    assert "60.42 ±" in line
    assert "– (99.10)" in line


def test_experts_stand_under_a_heading_of_their_own_beside_the_papers(spatial, tmp_path):
    """An expert by the paper's name gets the paper's numbers; one that the paper does not have stands alone."""
    third = {"trance": [0.5, 0.5, 0.0, 0.25] * 10}
    asked = [evaluation(tmp_path / name, name, third, expert=name) for name in ("gpt_4o", "demo-a")]
    text = markdown(parts_of([our_row(r.label, [r]) for r in find_results([spatial[2], *asked])], "2B"))
    ours, experts = text.split("| *experts (paper: proprietary models)* |")
    assert "demo-a" not in ours and "+ Reason-RFT-Zero" in ours
    lines = {line.split(" | ")[0].strip("| "): line for line in experts.splitlines() if line.startswith("| ")}
    assert list(lines) == ["GPT-4o-2024-08-06", "Gemini-1.5-Pro", "demo-a"]
    assert "(42.55)" in lines["GPT-4o-2024-08-06"] and "31.25 ±" in lines["GPT-4o-2024-08-06"]
    assert "– (26.22)" in lines["Gemini-1.5-Pro"]
    assert "31.25 ±" in lines["demo-a"] and "(" not in lines["demo-a"]


def test_the_table_says_how_averages_were_made_and_how_zero_shot_was_asked(spatial):
    row = our_row("ekipl", find_results(spatial[:1]))
    for text in (markdown(parts_of([row], "2B")), latex(parts_of([row], "2B"))):
        assert "Reason-RFT-Zero leaves ID out" in text
        assert "prompt of the training, Zero-Shot too" in text
    assert "Reason-RFT-Zero leaves ID out" in markdown(parts_of([], "2B"))


def test_several_seeds_of_a_method_are_averaged(spatial):
    row = our_row("ekipl", find_results(spatial[:2]))
    assert row.runs == 2
    assert row.cells["trance_left"].mean == pytest.approx((31.25 + 50) / 2)
    assert "2 training seeds" in markdown(parts_of([row], "2B"))


def test_a_column_that_one_seed_lacks_is_left_empty(spatial, tmp_path):
    other = evaluation(tmp_path / "d", "grpo", {"trance_left": [1.0] * 40})
    assert our_row("grpo", find_results([spatial[2], other])).cells == {}


def test_seeds_on_other_rows_are_refused(spatial, tmp_path):
    other = evaluation(tmp_path / "d", "grpo", {"trance": [1.0] * 39})
    with pytest.raises(SettingsError, match="same rows of trance .40 and 39, 39 in common"):
        our_row("grpo", find_results([spatial[2], other]))


def test_two_steps_of_one_run_are_not_two_seeds(tmp_path):
    folders = [evaluation(tmp_path / str(step), "ekipl", {"trance": [1.0]}, step=step) for step in (40, 80)]
    with pytest.raises(SettingsError, match="not seeds of one run"):
        our_row("ekipl", find_results(folders))


def test_the_command_writes_all_three_forms_and_prints_one(spatial, tmp_path, capsys):
    assert main([*spatial, "mine=" + spatial[2], "--paper", "7B", "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == (tmp_path / "out/table_1.md").read_text()
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out/table_1.csv").read_text())))
    by_method = {row["method"]: row for row in rows}
    papers = ["zero_shot", "ans_sft", "cot_sft", "grpo", "reason_rft", "ekipl"]
    assert list(by_method) == [*papers, "mine", "gpt_4o", "gemini_1_5_pro"]
    assert by_method["ekipl"]["trance_paper"] == "83.32"
    assert float(by_method["grpo"]["trance"]) == pytest.approx(31.25)
    assert by_method["mine"]["trance_paper"] == ""
    tex = (tmp_path / "out/table_1.tex").read_text()
    assert tex.count("&") >= 10 * 7
    assert tex.count(r"\begin") == tex.count(r"\end")


def test_a_name_that_somebody_gave_is_no_markup_no_formula_and_no_command(spatial):
    name = r"=HYPERLINK(1)|<b>\input{x}$^~_%&#\x1b"
    row = replace(our_row("mine", find_results(spatial[2:])), method=name)
    parts = parts_of([row], "2B")
    shown = markdown(parts)
    assert r"=HYPERLINK(1)\|&lt;b&gt;" in shown and "<b>" not in shown
    escaped = r"\textless{}b\textgreater{}\textbackslash{}input\{x\}\$\textasciicircum{}\textasciitilde{}\_\%\&\#"
    assert escaped in latex(parts)
    line = next(line for line in csv.reader(io.StringIO(comma_separated(parts))) if "HYPERLINK" in line[1])
    assert line[1] == "'" + name
    assert not any(cell.startswith(("=", "+", "@")) for cell in line)
    assert "\x1b" not in shown + latex(parts)


def test_without_evaluations_it_is_the_papers_own_table(capsys):
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert "| + Vision-EKIPL | **99.70** | **53.30** | **76.50** |" in printed
    assert "| GPT-4o-2024-08-06 | 68.10 | 34.31 | 51.20 |" in printed


def test_every_line_of_the_latex_table_has_ten_columns(spatial):
    row = our_row("ekipl", find_results(spatial[:1]))
    for parts in (parts_of([], "2B"), parts_of([row], "2B")):
        body = latex(parts).split(r"\midrule", 1)[1].split(r"\bottomrule")[0]
        lines = [line for line in body.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
        assert lines
        assert all(line.count(" & ") == 10 for line in lines)
        assert all(len(line.split(",")) == 4 + 40 for line in comma_separated(parts).splitlines() if '"' not in line)


def test_a_folder_without_a_result_is_an_error_that_says_what_to_do(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "python -m recipe.ekipl.evaluate" in capsys.readouterr().err
