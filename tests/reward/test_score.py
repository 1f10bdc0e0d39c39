import subprocess
import sys

import pytest

from ekipl_reward import TruthError, UnknownTaskError, check_truth, compute_score


def score(response, truth, source="clevr_math"):
    return compute_score(source, response, truth)


def said(answer):
    return f"<think> because </think><answer> {answer} </answer>"


def test_right_answer_in_right_format_scores_two():
    assert score(said("3"), "3") == {
        "score": 2.0,
        "format": 1.0,
        "accuracy": 1.0,
        "acc": 1.0,
        "task": "visual_counting",
        "parsed": "3",
        "reason": "",
    }


@pytest.mark.parametrize("answer", ["3", "3.0", " 3 ", "+3", "3.", "$3$", "6/2"])
def test_a_count_is_compared_as_a_number(answer):
    assert score(said(answer), "3")["accuracy"] == 1.0


@pytest.mark.parametrize("answer", ["three", "3 or 4", "nan", "inf", "3e999999999", "１", "1_0", "", "4"])
def test_anything_else_is_a_wrong_count(answer):
    assert score(said(answer), "3")["accuracy"] == 0.0


def test_the_last_answer_after_the_thinking_counts():
    response = "<think> maybe <answer>4</answer> </think><answer>5</answer><answer>3</answer>"
    assert score(response, "3")["accuracy"] == 1.0
    assert score(response, "3")["format"] == 0.0


def test_without_answer_tags_there_is_no_accuracy_and_the_reason_says_so():
    result = score("The answer is 3", "3")
    assert (result["accuracy"], result["reason"]) == (0.0, "no_answer_tags")


@pytest.mark.parametrize(
    "response",
    [
        "<answer>3</answer>",
        "<think>a</think>so<answer>3</answer>",
        "<think>a</think><answer>3",
        "<think>a</think><answer>3</answer><answer>3</answer>",
        "<answer>3</answer><think>a</think>",
        "x<think>a</think><answer>3</answer>",
        "<THINK>a</THINK><ANSWER>3</ANSWER>",
        "",
    ],
)
def test_anything_but_one_think_and_one_answer_block_misses_the_format(response):
    assert score(response, "3")["format"] == 0.0


@pytest.mark.parametrize(
    ("answer", "accuracy"),
    [("100", 1.0), ("104", 1.0), ("112.5", 0.5), ("120", 0.0), ("80", 0.0), ("hundred", 0.0)],
)
def test_a_measured_number_earns_the_cosine_tolerance(answer, accuracy):
    assert score(said(answer), "100", "geomath")["accuracy"] == pytest.approx(accuracy)


def test_truth_zero_asks_for_zero():
    assert score(said("0"), "0", "geomath")["accuracy"] == 1.0
    assert score(said("0.1"), "0", "geomath")["accuracy"] == 0.0


@pytest.mark.parametrize("answer", ["B", "b", "(B)", "B.", "Option B", "**B**"])
def test_a_choice_is_known_by_its_letter(answer):
    assert score(said(answer), "B", "geometry3k")["accuracy"] == 1.0
    assert score(said(answer), "C", "geometry3k")["accuracy"] == 0.0


@pytest.mark.parametrize(
    ("answer", "accuracy"),
    [
        ("change_position(0, behind) change_shape(1, sphere)", 1.0),
        ("change_shape(1, sphere)\nchange_position(0, behind)", 1.0),
        ("change_position(0, behind)", 0.5),
        ("change_position(0, front) change_shape(1, sphere)", 0.75),
        ("change_position(1, behind)", 0.25),
        ("change_position(2, left)", 0.125),
        ("change_size(0, behind)", 0.0),
        ("change_position(0, behind) change_position(0, behind)", 0.5),
        ("nothing", 0.0),
    ],
)
def test_calls_earn_partial_credit_in_any_order(answer, accuracy):
    truth = "change_position(0, behind)\nchange_shape(1, sphere)"
    assert score(said(answer), truth, "trance")["accuracy"] == pytest.approx(accuracy)


def test_the_best_pairing_is_found_where_a_greedy_one_misses_it():
    truth = "change_position(0, front)\nchange_position(1, left)"
    assert score(said("change_position(0, left) change_position(0, right)"), truth, "trance")[
        "accuracy"
    ] == pytest.approx(0.5)


@pytest.mark.parametrize("garbage", [None, b"bytes", "\ud83d", "\0" * 10, "<think>" * 1000, "(" * 10_000, "9^9^9^9"])
def test_no_text_raises(garbage):
    for source in ("clevr_math", "geomath", "trance"):
        assert compute_score(source, garbage, "change_size(0, small)" if source == "trance" else "3")["score"] == 0.0


def test_an_unknown_data_source_is_refused_with_the_known_ones():
    with pytest.raises(UnknownTaskError, match="clevr_math"):
        score(said("3"), "3", "imagenet")


@pytest.mark.parametrize(
    ("source", "truth"), [("clevr_math", "three"), ("trance", "move it"), ("geomath", " "), ("clevr_math", 3)]
)
def test_a_truth_that_cannot_be_judged_against_is_the_users_error(source, truth):
    with pytest.raises(TruthError):
        check_truth(source, truth)


def test_the_rewards_and_the_filter_import_without_torch():
    code = (
        "import sys, ekipl_reward, ekipl_rollout.group_filter; assert not {'torch', 'verl', 'ray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
