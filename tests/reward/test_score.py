"""What compute_score promises whatever the task: the dict, the format, where the answer stands, the options."""

import math
import subprocess
import sys
import time

import pytest

from ekipl_reward import OptionError, TruthError, check_truth, compute_score, evaluate


def score(response, truth="3", source="clevr_math", **options):
    return compute_score(source, response, truth, **options)


def said(answer):
    return f"<think> because </think><answer> {answer} </answer>"


def test_right_answer_in_right_format_scores_two():
    assert score(said("3")) == {
        "score": 2.0,
        "format": 1.0,
        "accuracy": 1.0,
        "acc": 1.0,
        "task": "visual_counting",
        "parsed": "3",
        "reason": "",
    }


def test_it_is_called_the_way_verl_calls_it():
    keywords = {"data_source": "clevr_math", "solution_str": said("3"), "ground_truth": "3", "extra_info": {"index": 7}}
    assert compute_score(**keywords, reward_router_address=None, reward_model_tokenizer=None)["score"] == 2.0


@pytest.mark.parametrize(
    ("response", "parsed"),
    [
        ("<think> maybe <answer>4</answer> </think><answer>5</answer><answer>3</answer>", "3"),
        ("<think>put it in <answer> tags</think><answer>3</answer>", "3"),
        ("<think>a</think><answer>3</answer></answer>", "3"),
        ("<think>a</think><answer>3</answer><answer>4", "3"),
        ("<think>a</think><think>b <answer>4</answer></think><answer>3</answer>", "3"),
        ("<answer>3</answer>", "3"),
    ],
)
def test_the_last_complete_answer_block_after_the_thinking_counts(response, parsed):
    result = score(response)
    assert (result["parsed"], result["accuracy"], result["format"]) == (parsed, 1.0, 0.0)


@pytest.mark.parametrize(
    "response", ["The answer is 3", "<think>a</think>3", "<think><answer>3</answer></think>", "<answer>3", ""]
)
def test_without_an_answer_block_there_is_no_accuracy_and_the_reason_says_so(response):
    result = score(response)
    assert (result["accuracy"], result["reason"]) == (0.0, "no_answer_tags")


def test_answers_without_tags_can_be_allowed():
    assert score("<think>a</think> 3", answer_in_tags=False)["accuracy"] == 1.0


@pytest.mark.parametrize(
    "response",
    [
        said("3"),
        f"\n {said('3')}\n\n",
        "<think></think>\r\n\t<answer></answer>",
        "<think>a\nb</think><answer>\n3\n</answer>",
    ],
)
def test_one_think_block_then_one_answer_block_is_the_format(response):
    assert score(response)["format"] == 1.0


@pytest.mark.parametrize(
    "response",
    [
        "<answer>3</answer>",
        "<think>a</think>so<answer>3</answer>",
        "<think>a</think><answer>3",
        "<think>a</think><answer>3</answer><answer>3</answer>",
        "<think>a</think><think>b</think><answer>3</answer>",
        "<think>a</think></think><answer>3</answer>",
        "<answer>3</answer><think>a</think>",
        "<think>a<answer>3</think></answer>",
        "x<think>a</think><answer>3</answer>",
        "<think>a</think><answer>3</answer> done",
        "<THINK>a</THINK><ANSWER>3</ANSWER>",
        "<think >a</think><answer>3</answer>",
        "",
    ],
)
def test_anything_else_misses_it(response):
    assert score(response)["format"] == 0.0


def test_the_parts_are_weighed():
    assert score(said("3"), format_weight=0.5, accuracy_weight=2)["score"] == 2.5
    assert score(said("4"), format_weight=0.5, accuracy_weight=2)["score"] == 0.5


def test_the_length_term_grows_to_its_weight_and_stays_there():
    response = said("3")
    half = score(response, length_weight=0.5, length_limit=2 * len(response))["score"]
    assert half == 1.75
    assert score(response, length_weight=0.5, length_limit=1)["score"] == 1.5


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rules": "mine"}, "paper, released"),
        ({"strcture": "exact"}, "Did you mean structure"),
        ({"structure": "full"}, "exact, tolerance"),
        ({"spatial": "greedy"}, "full, partial, penalty"),
        ({"format_weight": -1}, "format_weight"),
        ({"accuracy_weight": math.nan}, "accuracy_weight"),
        ({"length_weight": math.inf}, "from 0 to 1,000,000"),
        ({"format_weight": 0, "accuracy_weight": 0.0}, "reward every answer alike"),
        ({"length_limit": 0}, "length_limit"),
        ({"answer_in_tags": "yes"}, "true or false"),
        ({"task_modules": "my_lab"}, "list of dotted names"),
        ({"task_modules": ["no_such_lab.rewards"]}, "cannot be imported"),
        ({"rules": ["paper"]}, "paper, released"),
        ({"rules": {}}, "paper, released"),
    ],
)
def test_a_wrong_option_is_refused_with_the_way_out(options, says):
    with pytest.raises(OptionError, match=says):
        score("x", **options)


def test_all_wrong_options_are_named_at_once():
    with pytest.raises(OptionError) as caught:
        score("x", spatial="no", structure="no", length_limit=-1)
    assert all(name in str(caught.value) for name in ("spatial", "structure", "length_limit"))


def test_a_truth_in_answer_tags_is_taken_out_of_them():
    assert score(said("3"), "<answer> 3 </answer>")["accuracy"] == 1.0


@pytest.mark.parametrize("truth", [None, 3, 3.0, ["3"], b"3", "", "  ", "<answer></answer>", "3<think>", "x" * 5000])
def test_a_malformed_truth_is_an_error_and_no_zero(truth):
    for source in ("clevr_math", "geomath", "trance"):
        with pytest.raises(TruthError):
            check_truth(source, truth)
        with pytest.raises(TruthError):
            score(said("3"), truth, source)


def test_under_released_rules_any_text_is_a_truth_and_nothing_else():
    assert score(said("3"), "no functions here", "trance", rules="released")["accuracy"] == 0.0
    with pytest.raises(TruthError, match="must be a string, not int 3"):
        score(said("3"), 3, rules="released")


def test_evaluation_is_exact_for_structure_perception_and_partial_for_spatial():
    assert evaluate("geomath", said("101"), "100") == 0.0
    assert evaluate("geomath", said("101"), "100", structure="tolerance") == 1.0
    assert evaluate("trance", said("change_size(0, small)"), "change_size(0, large)") == 0.5
    with pytest.raises(OptionError, match="rules=released"):
        evaluate("geomath", said("101"), "100", enhanced=True)


def test_the_rewards_and_the_filter_import_fast_and_without_torch():
    code = "import sys, ekipl_reward, ekipl_rollout.group_filter; print(not {'torch', 'verl', 'ray', 'sympy', 'numpy'} & set(sys.modules))"
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "True"
    assert time.monotonic() - started < 5  # a tenth of a second on an idle machine
