"""Spatial transformation (TRANCE): a sequence of calls such as `change_color(0, red)`. The paper's function-based type.

A predicted call that is paired with a call of the truth earns 1 for an exact match, 1/2 for the right function with the
right object or the right value, 1/4 for the right function alone (Reason-RFT's numbers). The pairing is the best one, not
a greedy one over a set, so the value depends neither on order nor on the hash seed.
"""

import re
from collections import defaultdict
from functools import lru_cache
from typing import NamedTuple

from ekipl_reward.errors import TruthError
from ekipl_reward.options import RewardOptions
from ekipl_reward.verdict import Verdict

FUNCTIONS = ("change_size", "change_color", "change_material", "change_shape", "change_position")

# Anchored on the five names and on short words, so that it is linear on any text.
_CALL = re.compile(
    r"\b("
    + "|".join(FUNCTIONS)
    + r")\s{0,8}\(\s{0,8}[\"']?(\w{1,16})[\"']?\s{0,8},\s{0,8}[\"']?([\w-]{1,24})[\"']?\s{0,8}\)",
    re.ASCII,
)
_CALL_LIKE = re.compile(r"\w+\s*\(")

Call = tuple[str, str, str]
"""(function, object, value)"""


class Credits(NamedTuple):
    """What a pair of calls with the same function earns when it is not an exact match (which earns 1)."""

    alike: float
    """The right object or the right value."""

    function_only: float


CREDITS = {"partial": Credits(0.5, 0.25), "full": Credits(0.0, 0.0), "penalty": Credits(-0.25, -0.5)}
"""Reason-RFT's trance, trance-only-full and trance-penalty."""


def parse_calls(text: str) -> list[Call]:
    """All calls in `text`, in order, repeats included. Blanks and quotes around object and value, the case of the value,
    `-` for `_` and leading zeros of an object number do not matter.

    Example:
        "1. change_position( 00, 'Front-Left')" -> [("change_position", "0", "front_left")]
    """
    return [
        (function, str(int(item)) if item.isdigit() else item, value.lower().replace("-", "_"))
        for function, item, value in _CALL.findall(text)
    ]


@lru_cache(maxsize=8192)
def _expected(truth: str) -> list[Call]:
    return parse_calls(truth)


def check_truth(truth: str) -> None:
    calls = parse_calls(truth)
    if not calls:
        raise TruthError(f"no call such as change_color(0, red) in {truth[:80]!r}")
    if len(calls) != len(_CALL_LIKE.findall(truth)):
        raise TruthError(f"only {len(calls)} calls can be read in {truth[:200]!r}; write each as change_color(0, red)")


def judge(answer: str, truth: str, options: RewardOptions) -> Verdict:
    """Sum of the best pairing's credits, divided by the larger number of calls: in [0, 1], with penalty in [-0.5, 1].

    Example:
        one call of two right, the other with a wrong value -> (1 + 0.5) / 2 = 0.75
    """
    predicted, expected = parse_calls(answer), _expected(truth)
    if not predicted:
        return Verdict(0.0, "no_calls")
    pairs = best_pairing(predicted, expected)
    assert options.spatial is not None  # read_options resolves it
    credits = CREDITS[options.spatial]
    value = sum(credit(*pair, credits) for pair in pairs) / max(len(predicted), len(expected))
    return Verdict(value, "all_calls" if value == 1.0 else "some_calls" if pairs else "no_call_matches")


def credit(predicted: Call, expected: Call, credits: Credits) -> float:
    """Of a pair with the same function."""
    if predicted == expected:
        return 1.0
    return credits.alike if _alike(predicted, expected) else credits.function_only


def best_pairing(predicted: list[Call], expected: list[Call]) -> list[tuple[Call, Call]]:
    """As many pairs (predicted, expected) of one function as there can be, with the largest total credit.

    Exact matches first: giving one up never pays, two alike pairs are worth at most one exact pair. Of the rest every
    call of a function can be paired with every other of it, so that only the number of alike pairs matters: a maximum
    bipartite matching. Pairing as many as possible keeps a penalty from being dodged.
    """
    pairs, rest, left = [], [], list(expected)
    for call in predicted:
        if call in left:
            left.remove(call)
            pairs.append((call, call))
        else:
            rest.append(call)
    by_function: dict[str, list[Call]] = defaultdict(list)
    for call in rest:
        by_function[call[0]].append(call)
    for function in {call[0]: None for call in left}:
        pairs += _pair_alike(by_function[function], [call for call in left if call[0] == function])
    return pairs


def _pair_alike(predicted: list[Call], expected: list[Call]) -> list[tuple[Call, Call]]:
    """All of the shorter list paired, as many alike as possible (Kuhn's augmenting paths)."""
    partner: dict[int, int] = {}  # index into expected -> index into predicted

    def find(i: int, tried: set[int]) -> bool:
        for j, other in enumerate(expected):
            if j not in tried and _alike(predicted[i], other):
                tried.add(j)
                if j not in partner or find(partner[j], tried):
                    partner[j] = i
                    return True
        return False

    alone = [i for i in range(len(predicted)) if not find(i, set())]
    free = [j for j in range(len(expected)) if j not in partner]
    return [
        (predicted[i], expected[j]) for i, j in [*((i, j) for j, i in partner.items()), *zip(alone, free, strict=False)]
    ]


def _alike(one: Call, other: Call) -> bool:
    return one[1] == other[1] or one[2] == other[2]
