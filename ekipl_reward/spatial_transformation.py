"""Spatial transformation (TRANCE): a set of calls such as `change_color(0, red)`.

Reason-RFT's function-based reward: a predicted call earns 1 for an exact match, 1/2 for the right function with the
right object or the right value, 1/4 for the right function alone. We pair calls by the best assignment instead of
greedily over a set, so the value depends neither on order nor on the hash seed.
"""

import re
from collections import Counter
from dataclasses import dataclass

from ekipl_reward.errors import TruthError
from ekipl_reward.options import RewardOptions

FUNCTIONS = ("change_size", "change_color", "change_material", "change_shape", "change_position")
MAX_CALLS = 16  # a sample has 1-4 changes; more predicted calls than this only cost more

# Anchored on the five names and on short words, so that it is linear on any text.
_CALL = re.compile(r"\b(" + "|".join(FUNCTIONS) + r")\((\w{1,16}),\s{0,8}'?(\w{1,16})'?\)")

Call = tuple[str, str, str]


def parse_calls(text: str) -> list[Call]:
    """All calls in `text`, in order, repeats included. Example: "change_size(1, small)" -> [("change_size", "1", "small")]"""
    return _CALL.findall(text)


def check_truth(truth: str) -> None:
    if not parse_calls(truth):
        raise TruthError(f"no call such as change_color(0, red) in {truth[:80]!r}")


def accuracy(answer: str, truth: str, options: RewardOptions) -> float:
    """Sum of the best pairing's credits, divided by the larger number of calls. In [0, 1], or [-0.5, 1] with penalty."""
    predicted, expected = parse_calls(answer), parse_calls(truth)
    if not predicted or not expected or len(predicted) > MAX_CALLS:
        return 0.0
    return best_pairing(predicted, expected, CREDITS[options.spatial]) / max(len(predicted), len(expected))


@dataclass(frozen=True)
class Credits:
    """What a pair of calls earns when it is not an exact match (which earns 1)."""

    right_object_or_value: float
    """Right function, and the right object or the right value."""

    right_function: float


CREDITS = {"partial": Credits(0.5, 0.25), "full": Credits(0.0, 0.0), "penalty": Credits(-0.25, -0.5)}
"""Reason-RFT's trance, trance-only-full and trance-penalty."""


def credit(predicted: Call, expected: Call, credits: Credits) -> float | None:
    """None when the two cannot be paired: another function."""
    if predicted == expected:
        return 1.0
    if predicted[0] != expected[0]:
        return None
    alike = predicted[1] == expected[1] or predicted[2] == expected[2]
    return credits.right_object_or_value if alike else credits.right_function


def best_pairing(predicted: list[Call], expected: list[Call], credits: Credits) -> float:
    """Largest total credit when every call is used at most once and as many calls as can be are paired.

    Exact matches are paired first: giving one up to gain elsewhere never pays, because a call pairs for at most 1. What
    is left is at most a handful of calls, so that trying every assignment with a memory of the used ones is cheap. With
    penalties a pair is worth less than none; pairing as many as possible keeps a wrong call from being hidden.
    """
    exact = Counter(predicted) & Counter(expected)
    rest_predicted = tuple((Counter(predicted) - exact).elements())
    rest_expected = tuple((Counter(expected) - exact).elements())[:MAX_CALLS]

    best = {0: 0.0}  # bit set of used expected calls -> best credit so far
    for call in rest_predicted:
        following = dict(best)
        for used, value in best.items():
            for j, other in enumerate(rest_expected):
                gain = None if used >> j & 1 else credit(call, other, credits)
                if gain is not None:
                    key = used | 1 << j
                    following[key] = max(following.get(key, float("-inf")), value + gain)
        best = following
    most = max(bin(used).count("1") for used in best)
    return sum(exact.values()) + max(value for used, value in best.items() if bin(used).count("1") == most)
