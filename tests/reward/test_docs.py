"""docs/rewards.md says what the code does: every table marked as executed is run."""

import json
import re
import types
from dataclasses import fields
from pathlib import Path

import pytest

import ekipl_reward
from ekipl_reward import DATA_SOURCES, RULES, RewardOptions, TruthError, compute_score, evaluate
from ekipl_reward.tasks import TASKS

HERE = Path(__file__).parent
PAGE = (HERE.parents[1] / "docs" / "rewards.md").read_text(encoding="utf-8")
CASES = [json.loads(line) for line in (HERE / "released_cases.jsonl").read_text(encoding="utf-8").splitlines()]


def table(name: str) -> list[list[str]]:
    """Body of the table that follows the mark, cell by cell."""
    text = PAGE.split(f"<!-- executed: {name} -->\n", 1)[1].split("\n\n", 1)[0]
    return [[cell.strip() for cell in line.strip()[1:-1].split("|")] for line in text.splitlines()[2:]]


def code(cell: str) -> list[str]:
    """The code spans of a cell."""
    spans = re.findall(r"`([^`]*)`", cell)
    return [span.replace("⏎", "\n").replace("[4096 dots]", "." * 4096) for span in spans]


def text(cell: str) -> str:
    return (code(cell) or [""])[0]


def options_in(spans: list[str]) -> dict[str, str]:
    return dict(span.split("=") for span in spans)


def rows(name: str):
    found = table(name)
    assert len(found) > 1
    return pytest.mark.parametrize("row", found, ids=[f"{name} {i}" for i in range(1, len(found) + 1)])


def test_the_reasons_are_those_of_the_code():
    listed = {text(row[0]): row[1] for row in table("reasons")}
    assert listed.items() <= RULES.items()
    full_credit = {"same_number", "within_tolerance", "same_choice", "same_text", "equal_expression", "all_calls"}
    assert set(RULES) - set(listed) == full_credit


def test_the_data_sources_are_those_of_the_code():
    assert {text(row[0]): text(row[1]) for row in table("data_sources")} == DATA_SOURCES


def test_the_options_and_their_defaults_are_those_of_the_code():
    listed = {text(row[0]): text(row[1]) for row in table("options")}
    assert listed == {f.name: "" if f.default is None else str(f.default) for f in fields(RewardOptions)}


@rows("format")
def test_a_format_example(row):
    assert compute_score("clevr_math", text(row[0]), "3")["format"] == float(row[1])


@rows("answers")
def test_an_example_of_which_answer_is_judged(row):
    result = compute_score("clevr_math", text(row[0]), "3")
    assert (result["parsed"], result["accuracy"]) == (text(row[1]), float(row[2]))


@pytest.mark.parametrize("task", sorted(ekipl_reward.tasks.REASON_RFT_TASKS))
def test_every_example_of_a_task(task):
    for row in table(task):
        result = compute_score(task, f"<think>a</think><answer>{text(row[0])}</answer>", text(row[1]))
        assert (result["accuracy"], result["reason"]) == (pytest.approx(float(row[2])), text(row[3])), row


@rows("deviations")
def test_a_deviation_from_the_released_rules(row):
    _, _, source, response, truth, paper, released = row
    name, *options = code(source)
    for rules, expected in (("paper", paper), ("released", released)):
        how = {"rules": rules, **options_in(options)}
        if expected == "TruthError":
            with pytest.raises(TruthError):
                compute_score(name, text(response), text(truth), **how)
            continue
        result = compute_score(name, text(response), text(truth), **how)
        formatted, accuracy = map(float, expected.split(" + "))
        assert (result["format"], result["accuracy"]) == (formatted, pytest.approx(accuracy)), rules


@rows("evaluation")
def test_a_deviation_from_the_released_evaluation(row):
    _, _, source, response, truth, paper, released = row
    for rules, expected in (("paper", paper), ("released", released)):
        enhanced = "enhanced" in row[1] and rules == "released"
        value = evaluate(text(source), text(response), text(truth), rules=rules, enhanced=enhanced)
        assert value == float(expected), rules


TASKS_OF_A_FIELD = {
    "counting": "visual_counting",
    "structure": "structure_perception",
    "spatial": "spatial_transformation",
}


@rows("fields")
def test_a_field_of_the_worked_cases_is_the_call_in_the_table(row):
    field, where, call = text(row[0]), row[1], text(row[3])
    tasks = [task for short, task in TASKS_OF_A_FIELD.items() if where == "all" or short in where]
    judged = 0
    for case in CASES:
        if case["task"] in tasks and case.get(field) is not None:
            expected = 0.0 if case[field] == "nan" else case[field]
            arguments = [case["task"], case["response"], case["ground_truth"]]
            names = {"compute_score": compute_score, "evaluate": evaluate, "arguments": arguments}
            assert eval(call.replace("...", "*arguments"), names) == expected, case["note"]
            judged += 1
    assert judged > 10


@rows("nulls")
def test_where_the_original_depends_on_the_hash_seed_ours_is_one_of_its_values(row):
    response, truth, option, possible, here = row
    result = compute_score("trance", text(response), text(truth), rules="released", **options_in(code(option)))
    assert result["accuracy"] == float(here)
    assert result["accuracy"] in map(float, possible.split(" or "))


def test_the_example_of_a_task_of_ones_own_works_and_is_short():
    example = PAGE.split("<!-- executed: own task -->\n```python\n", 1)[1].split("```", 1)[0]
    function = example[example.index("@register_task") :].strip()
    assert len(function.splitlines()) <= 20
    before = dict(TASKS), dict(DATA_SOURCES)
    try:
        module = types.ModuleType("my_lab_rewards")
        exec(example, module.__dict__)
        assert compute_score("my_lab/colours", "<think>a</think><answer>Red</answer>", "red")["score"] == 2.0
        assert compute_score("colour_naming", "<think>a</think><answer>blue</answer>", "red")["score"] == 1.0
        with pytest.raises(TruthError, match="is no colour"):
            compute_score("colour_naming", "x", "cube")
    finally:
        for known, old in zip((TASKS, DATA_SOURCES), before, strict=True):
            known.clear()
            known.update(old)
        ekipl_reward.tasks._looked_up.cache_clear()
        ekipl_reward.tasks._usable.cache_clear()


def test_every_internal_link_leads_to_a_heading():
    headings = {
        re.sub(r"[^\w\- ]", "", h).strip().lower().replace(" ", "-") for h in re.findall(r"^#+ (.*)$", PAGE, re.M)
    }
    assert set(re.findall(r"\]\(#([^)]*)\)", PAGE)) <= headings
