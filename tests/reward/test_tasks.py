"""Which judge looks at a row, and adding one's own."""

import subprocess
import sys

import pytest

from ekipl_reward import (
    DATA_SOURCES,
    TASKS,
    TruthError,
    UnknownTaskError,
    Verdict,
    check_truth,
    compute_score,
    register_task,
    task_of,
)

pytestmark = pytest.mark.usefixtures("forget_registered_tasks")


def said(answer):
    return f"<think>a</think><answer>{answer}</answer>"


@pytest.mark.parametrize(
    "source", ["clevr_math", "clevr-math", "Clevr-Math", "Reason-RFT/clevr_math", "visual_counting"]
)
def test_a_data_source_is_known_in_its_usual_spellings(source):
    assert task_of(source) == "visual_counting"


@pytest.mark.parametrize("source", ["imagenet", "", "/", None, 3, ["trance"], b"trance", "clevr_math2", "\ud83d"])
def test_an_unknown_data_source_is_refused_with_the_known_ones(source):
    with pytest.raises(UnknownTaskError) as caught:
        compute_score(source, said("3"), "3")
    assert all(name in str(caught.value) for name in [*TASKS, *DATA_SOURCES])


def test_a_decorated_function_becomes_a_task():
    @register_task("colour", data_sources=["my_colours"])
    def colour(answer: str, truth: str) -> float:
        return float(answer.casefold() == truth.casefold())

    result = compute_score("my_colours", said("Red"), "red")
    assert (result["score"], result["task"], result["reason"]) == (2.0, "colour", "")
    assert compute_score("colour", said("blue"), "red")["reason"] == "wrong"


def test_its_function_may_name_its_own_reasons_and_check_truths():
    def only_colours(truth):
        if truth not in ("red", "blue"):
            raise ValueError(f"{truth!r} is no colour")

    @register_task("colour", check_truth=only_colours)
    def colour(answer, truth):
        return Verdict(0.0, "no_colour_at_all")

    assert compute_score("colour", said("7"), "red")["reason"] == "no_colour_at_all"
    with pytest.raises(TruthError, match="is no colour"):
        check_truth("colour", "cube")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), "many", None, 10**400])
def test_a_judge_that_returns_no_finite_number_scores_zero(value):
    @register_task("odd")
    def odd(answer, truth):
        return value

    result = compute_score("odd", said("x"), "y")
    assert (result["score"], result["reason"]) == (1.0, "not_finite")


def test_a_name_that_is_taken_is_refused():
    for name, sources in (("visual_counting", []), ("mine", ["trance"]), ("trance", [])):
        with pytest.raises(ValueError, match="is taken"):
            register_task(name, data_sources=sources)(lambda answer, truth: 1.0)
    assert "mine" not in TASKS


def test_importing_the_same_module_again_is_no_conflict():
    def colour(answer, truth):
        return 1.0

    register_task("colour", data_sources=["my_colours"])(colour)
    register_task("colour", data_sources=["my_colours"])(colour)


def test_a_function_with_other_arguments_is_refused():
    with pytest.raises(ValueError, match="two arguments"):
        register_task("mine")(lambda answer: 1.0)


def test_released_rules_know_reason_rfts_tasks_only():
    register_task("colour")(lambda answer, truth: 1.0)
    with pytest.raises(UnknownTaskError, match="needs rules=paper"):
        compute_score("colour", said("red"), "red", rules="released")


def test_a_module_is_loaded_by_its_dotted_name(tmp_path):
    package = tmp_path / "my_lab"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "rewards.py").write_text(
        "from ekipl_reward import register_task\n"
        "@register_task('loaded_task', data_sources=['loaded_source'])\n"
        "def judge(answer: str, truth: str) -> float:\n"
        "    return float(answer == truth)\n"
    )
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from ekipl_reward import compute_score\n"
        "print(compute_score('loaded_source', '<think></think><answer>x</answer>', 'x', task_modules=['my_lab.rewards'])['score'])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "2.0"
