"""The released rules against worked cases of the original functions (visible ones; more exist elsewhere)."""

import json
from pathlib import Path

import pytest

from ekipl_reward import OptionError, compute_score, evaluate

CASES = [json.loads(line) for line in (Path(__file__).parent / "released_cases.jsonl").read_text().splitlines()]
SOURCE = {"visual_counting": "clevr_math", "structure_perception": "geomath", "spatial_transformation": "trance"}
FIELDS = {
    "accuracy": {},
    "accuracy_math": {"structure": "tolerance"},
    "accuracy_partial": {"spatial": "partial"},
    "accuracy_penalty": {"spatial": "penalty"},
}
"""Field of a case -> the options that reproduce it, beside rules=released."""


@pytest.mark.parametrize("case", CASES, ids=[f"{c['task'][:8]} {c['note']}" for c in CASES])
def test_a_worked_case_of_the_original(case):
    source, response, truth = SOURCE[case["task"]], case["response"], case["ground_truth"]
    for field, options in FIELDS.items():
        if case.get(field) is not None:
            # the original's NaN would poison a group: ours is 0
            expected = 0.0 if case[field] == "nan" else case[field]
            result = compute_score(source, response, truth, rules="released", **options)
            assert result["accuracy"] == pytest.approx(expected), field
            assert result["format"] == case["format"]
    if case.get("eval_score") is not None:
        assert evaluate(source, response, truth, rules="released") == pytest.approx(case["eval_score"])
    if case.get("eval_score_enhanced") is not None:
        assert evaluate(source, response, truth, rules="released", enhanced=True) == case["eval_score_enhanced"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rules": "mine"}, "paper, released"),
        ({"strcture": "exact"}, "structure"),
        ({"format_weight": -1}, "format_weight"),
    ],
)
def test_a_wrong_option_is_refused_with_the_way_out(options, says):
    with pytest.raises(OptionError, match=says):
        compute_score("clevr_math", "x", "3", **options)


def test_what_verl_adds_on_its_own_is_no_option():
    assert compute_score("clevr_math", "x", "3", reward_router_address=None)["score"] == 0.0
