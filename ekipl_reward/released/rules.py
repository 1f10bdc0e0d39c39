"""Which of the original's functions judges a task, in training and in evaluation."""

import math

from ekipl_reward import symbolic
from ekipl_reward.options import RewardOptions
from ekipl_reward.released import spatial, tags
from ekipl_reward.verdict import Verdict

FULL_WITHIN, NOTHING_BEYOND = 0.05, 0.20


def judge(task: str, response: str, truth: str, options: RewardOptions) -> tuple[str, str, Verdict]:
    """(format problem, answer, verdict) of the training reward. Options: structure `exact` (wired in the scripts) or
    `tolerance`; spatial `full` (wired in the scripts), `partial` or `penalty`."""
    problem = "" if tags.wears_the_format(response) else "it is not <think>...</think>, blanks, <answer>...</answer>"
    found = tags.first_answer(response)
    candidate = response.strip() if found is None else found
    if task == "spatial_transformation":
        assert options.spatial is not None  # read_options resolves it
        return problem, candidate, spatial.judge(candidate, truth, options.spatial)
    expected = tags.answer_or_all(truth)
    tolerant = task == "structure_perception" and options.structure == "tolerance"
    verdict = _tolerance(candidate, expected) if tolerant else _exact(candidate, expected)
    if verdict.accuracy == 0.0 and verdict.rule != "not_finite" and found is None:
        verdict = _math_verify(response, truth)
    return problem, candidate, verdict


def evaluation(task: str, response: str, truth: str, enhanced: bool = False) -> float:
    """The metric behind the paper's Table 1. `enhanced`: the extra rule for proprietary models on structure perception,
    truth anywhere in a response without tags counts."""
    if task == "spatial_transformation":
        return spatial.evaluation(tags.answer_or_all(response, over_lines=False), truth)
    answer = tags.first_answer(response)
    if answer is not None:
        return float(answer == truth or symbolic.verify(answer, truth).equal)
    if response.strip() == truth.strip():
        return 1.0
    found = symbolic.verify(response, truth)
    if enhanced and not found.equal and not found.failed and task == "structure_perception":
        return float(truth.strip() in response.strip())
    return float(found.equal)


def _exact(candidate: str, expected: str) -> Verdict:
    return Verdict(1.0, "same_text") if candidate == expected else Verdict(0.0, "another_text")


def _math_verify(prediction: str, truth: str) -> Verdict:
    found = symbolic.verify(prediction, truth)
    if found.gave_up:
        return Verdict(0.0, "expression_too_hard")
    return Verdict(1.0, "equal_expression") if found.equal else Verdict(0.0, "another_expression")


def _tolerance(candidate: str, expected: str) -> Verdict:
    """With the original's arithmetic, operation by operation. Where it returns NaN this returns 0: a NaN would poison the
    whole group."""
    try:
        said, wanted = float(candidate), float(expected)
    except ValueError:
        return _exact(candidate, expected)
    error, size = abs(said - wanted), abs(wanted)
    if error < FULL_WITHIN * size:
        return Verdict(1.0, "within_tolerance")
    if error > NOTHING_BEYOND * size:
        return Verdict(0.0, "beyond_tolerance")
    try:
        position = (error - FULL_WITHIN * size) / ((NOTHING_BEYOND - FULL_WITHIN) * size)
    except ZeroDivisionError:  # truth 0: the original's outer handler makes it 0
        return Verdict(0.0, "beyond_tolerance")
    value = 0.5 * (math.cos(math.pi * position) + 1)
    return Verdict(0.0, "not_finite") if math.isnan(value) else Verdict(value, "within_tolerance")
