"""Which of the original's functions judges a task, in training and in evaluation."""

import math

from ekipl_reward import symbolic
from ekipl_reward.released import spatial, tags

FULL_WITHIN, NOTHING_BEYOND = 0.05, 0.20


def accuracy(task: str, response: str, truth: str, structure: str = "exact", kind: str = "full") -> float:
    """The training reward. `structure`: `exact` (wired in the scripts) or `tolerance`; `kind`: see spatial.score.

    Where the original returns NaN (a candidate "nan") this returns 0: a NaN would poison the whole group.
    """
    if task == "spatial_transformation":
        return spatial.score(tags.answer_or_all(response), truth, kind)
    candidate = tags.answer_or_all(response)
    expected = tags.answer_or_all(truth)
    if task == "structure_perception" and structure == "tolerance":
        value = _tolerance(candidate, expected)
    else:
        value = float(candidate == expected)
    if value == 0.0 and tags.first_answer(response) is None:
        return float(symbolic.equal(response, truth, truth_first=False))
    return value


def evaluation(task: str, response: str, truth: str, enhanced: bool = False) -> float:
    """The metric behind the paper's Table 1. `enhanced`: the extra rule for proprietary models on structure perception,
    truth anywhere in an answer without tags counts."""
    if task == "spatial_transformation":
        return spatial.score(tags.answer_or_all(response, over_lines=False), truth, "partial", repeats_cost=False)
    candidate = tags.answer_or_all(response)
    value = float(candidate == truth) or float(symbolic.equal(candidate, truth, truth_first=False))
    if enhanced and not value and task == "structure_perception" and tags.first_answer(response) is None:
        value = float(truth in response)
    return value


def _tolerance(candidate: str, expected: str) -> float:
    try:
        said, wanted = float(candidate), float(expected)
    except ValueError:
        return float(candidate == expected)
    error, size = abs(said - wanted), abs(wanted)
    if math.isnan(error) or size == 0.0:  # the original: NaN, and a division by zero that scores 0
        return 0.0
    if error < FULL_WITHIN * size:
        return 1.0
    if error > NOTHING_BEYOND * size:
        return 0.0
    return 0.5 * (math.cos(math.pi * (error - FULL_WITHIN * size) / ((NOTHING_BEYOND - FULL_WITHIN) * size)) + 1.0)
