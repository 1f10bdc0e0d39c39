"""Structure perception (GeoMath, Geometry3K): a number, or the letter of a choice A-D."""

import math

from ekipl_reward import symbolic
from ekipl_reward.errors import TruthError
from ekipl_reward.numbers import parse_number
from ekipl_reward.options import RewardOptions

CHOICES = frozenset("ABCD")
FULL_WITHIN, NOTHING_BEYOND = 0.05, 0.20
"""Relative errors of Reason-RFT's tolerance reward: full credit up to the first, none from the second."""


def check_truth(truth: str) -> None:
    if not truth.strip():
        raise TruthError("the ground truth is empty")


def accuracy(answer: str, truth: str, options: RewardOptions) -> float:
    """Letters must match; numbers earn the cosine tolerance of Reason-RFT, unless `structure=exact`; other text must be
    equal, as it stands or as mathematics.

    Example:
        truth 100: 104 -> 1.0    112.5 -> 0.5    120 -> 0.0
    """
    truth = truth.strip()
    if truth in CHOICES:
        return float(parse_choice(answer) == truth)
    expected, said = parse_number(truth), parse_number(answer)
    if expected is None or said is None:
        return float(answer.strip() == truth or symbolic.equal(answer, truth))
    if options.structure == "exact":
        return float(said == expected)
    return tolerance(float(abs(said - expected)), float(abs(expected)))


def tolerance(error: float, size: float) -> float:
    """1 within 5 % of `size`, 0 from 20 % on, a cosine between; exact equality is asked for at size 0."""
    if error <= FULL_WITHIN * size:
        return 1.0
    if error >= NOTHING_BEYOND * size:
        return 0.0
    position = (error - FULL_WITHIN * size) / ((NOTHING_BEYOND - FULL_WITHIN) * size)
    return 0.5 * (math.cos(math.pi * position) + 1.0)


def parse_choice(answer: str) -> str | None:
    """The letter of "A", "(a)", "A.", "option B": the last word, without punctuation, if it is one letter A-D."""
    words = answer[-64:].upper().split()
    letter = words[-1].strip("().:$*") if words else ""
    return letter if letter in CHOICES else None
