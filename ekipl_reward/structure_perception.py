"""Structure perception (GeoMath, Geometry3K): a number, the letter of a choice, or an expression.

The paper's mathematical reward type: numeric or symbolic equality, with Reason-RFT's tolerance for numbers. Letters are
its discrete type.
"""

import math
import re
from fractions import Fraction

from ekipl_reward import symbolic
from ekipl_reward.errors import TruthError
from ekipl_reward.extract import undecorated
from ekipl_reward.numbers import MAX_CHARS, parse_number
from ekipl_reward.options import RewardOptions
from ekipl_reward.verdict import Verdict

FULL_WITHIN, NOTHING_BEYOND = 0.05, 0.20
"""Relative errors of Reason-RFT's tolerance reward: full credit up to the first, none from the second."""

_LETTER = re.compile(r"[A-Z]")
_CHOICE = re.compile(
    r"(?:(?:the )?(?:correct |final |right )?(?:answer|option|choice)(?: is)?:?\s*)?"  # Option, The answer is
    r"[(\[]?([A-Z])[)\]]?"
    r"(?:[.):,]?|[.):]\s.*)",  # B) 45 cm
    re.IGNORECASE | re.DOTALL | re.ASCII,
)
_LONE_LETTER = re.compile(r"(?<![\w\\])[A-H](?!\w)")
_NAME = re.compile(r"\A[A-Za-z]{1,2}\s?=\s?")
_WITH_UNIT = re.compile(
    r"(.+?)\s*(?:(°|degrees?|deg|(?:\^\s?\{?)?\\circ\}?)|(\\?%|percent)"
    r"|(?:square |sq\.? |cubic )?(?:units?|mm|cm|dm|km|m|inch(?:es)?|in|feet|ft|yards?|yd|(?:centi|milli|kilo)?met(?:er|re)s?)"
    r"(?:\s?\^?\{?[23]\}?|[²³])?)"
)


def check_truth(truth: str) -> None:
    if not undecorated(truth):
        raise TruthError(f"the ground truth {truth!r} holds nothing to compare with")


def judge(answer: str, truth: str, options: RewardOptions) -> Verdict:
    """Letters must match. Numbers earn the cosine tolerance, unless `structure=exact`; a unit or degree sign behind them
    and a name before them (`x = 45`) do not matter. Other texts must be equal, as they stand or as mathematics.

    Example:
        truth 100: "104" -> 1.0    "112.5 cm" -> 0.5    "120" -> 0.0    truth B: "(b)" -> 1.0    "A or B" -> 0.0
    """
    answer, truth = undecorated(answer), undecorated(truth)
    if _LETTER.fullmatch(truth):
        letter = parse_choice(answer)
        if letter is None:
            return Verdict(0.0, "not_a_choice")
        return Verdict(1.0, "same_choice") if letter == truth else Verdict(0.0, "another_choice")
    expected, said = read_quantity(truth), read_quantity(answer)
    if expected and said:
        return max(_compare(a, b, options) for a in said for b in expected)
    if answer == truth:
        return Verdict(1.0, "same_text")
    if expected and not symbolic.looks_numeric(answer):
        return Verdict(0.0, "not_a_number")
    return _as_mathematics(answer, truth, options)


def _compare(said: Fraction, expected: Fraction, options: RewardOptions) -> Verdict:
    if said == expected:
        return Verdict(1.0, "same_number")
    if options.structure == "exact":
        return Verdict(0.0, "another_number")
    value = tolerance(float(said), float(expected))
    return Verdict(value, "within_tolerance" if value else "beyond_tolerance")


def _as_mathematics(answer: str, truth: str, options: RewardOptions) -> Verdict:
    found = symbolic.compare(answer, truth)
    if found.gave_up:
        return Verdict(0.0, "expression_too_hard")
    if found.equal:
        return Verdict(1.0, "equal_expression")
    if options.structure == "tolerance" and found.answer_value is not None and found.truth_value is not None:
        value = tolerance(found.answer_value, found.truth_value)
        return Verdict(value, "within_tolerance" if value else "beyond_tolerance")
    return Verdict(0.0, "another_expression")


def tolerance(said: float, expected: float) -> float:
    """1 within 5 % of the truth, 0 from 20 % on, a cosine between; at truth 0 only 0 is right.

    With d = |said - expected| / |expected|: 0.5 (cos(pi (d - 0.05) / 0.15) + 1) for 0.05 < d < 0.20.
    """
    error, size = abs(said - expected), abs(expected)
    if error <= FULL_WITHIN * size:
        return 1.0
    if not error < NOTHING_BEYOND * size or math.isinf(size):
        return 0.0
    position = (error / size - FULL_WITHIN) / (NOTHING_BEYOND - FULL_WITHIN)
    return 0.5 * (math.cos(math.pi * position) + 1.0)


def read_quantity(text: str) -> tuple[Fraction, ...]:
    """What a number with or without a unit can mean; empty for anything else. "75%" is 75 and 0.75."""
    if len(text) > 2 * MAX_CHARS:
        return ()
    text = _NAME.sub("", text)
    value = parse_number(text)
    if value is not None:
        return (value,)
    measured = _WITH_UNIT.fullmatch(text)
    value = parse_number(undecorated(measured[1])) if measured else None
    if measured is None or value is None:
        return ()
    return (value, value / 100) if measured[3] else (value,)


def parse_choice(answer: str) -> str | None:
    """The one letter of "B", "(b)", "B.", "Option B", "The answer is (B)", "B) 45 cm"; None for none or several."""
    text = undecorated(answer)
    match = _CHOICE.fullmatch(text)
    if match is None or _LONE_LETTER.search(text, match.end(1) + 1):
        return None
    return match[1].upper()
