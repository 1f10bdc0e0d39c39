"""The original's spatial rewards: sets of triples, a greedy matcher, and a penalty for repeats.

The greedy matcher of `partial` and `penalty` walks over a Python set, so that the original's value can depend on
PYTHONHASHSEED. Here triples are taken in order of appearance, which is one of the original's possible values.
"""

import re
from collections.abc import Callable

from ekipl_reward.verdict import Verdict

# The original's pattern, (\w+)\((\w+),\s*'?(\w+)'?\), read backwards. Forwards every word may begin a match, and a long
# word makes it quadratic; backwards only a closing bracket may. Both find the same calls: a match contains one opening
# bracket, and its three words are whole runs of word characters either way.
_CALL_BACKWARDS = re.compile(r"\)'?(\w+)'?\s*,(\w+)\((\w+)")

Call = tuple[str, str, str]
"""(value, object, function), each spelled backwards: calls are only ever compared with each other."""

STAGES: tuple[Callable[[Call], tuple], ...] = (
    lambda call: (call[2], call[1]),  # function and object
    lambda call: (call[2], call[0]),  # function and value
    lambda call: (call[2],),
)
WEIGHTS = {"full": (0.0, 0.0, 0.0), "partial": (0.5, 0.5, 0.25), "penalty": (-0.25, -0.25, -0.5)}


def calls(text: str) -> list[Call]:
    """All calls, in order of appearance, repeats included."""
    return _CALL_BACKWARDS.findall(text[::-1])[::-1]


def judge(answer: str, truth: str, kind: str) -> Verdict:
    """`full` (trance-only-full), `partial` (trance) or `penalty` (trance-penalty)."""
    said, expected = calls(answer), calls(truth)
    if not said or not expected:  # the original divides by zero here and makes it 0
        return Verdict(0.0, "no_calls")
    predicted, wanted = list(dict.fromkeys(said)), list(dict.fromkeys(expected))
    unit = len(predicted) / len(said) / max(len(predicted), len(wanted))
    value = _greedy(predicted, wanted, unit, WEIGHTS[kind])
    return Verdict(value, "all_calls" if value == 1.0 else "some_calls" if value else "no_call_matches")


def evaluation(answer: str, truth: str) -> float:
    """Partial credit without the penalty for repeats."""
    predicted, wanted = list(dict.fromkeys(calls(answer))), list(dict.fromkeys(calls(truth)))
    if not predicted or not wanted:
        return 0.0
    return _greedy(predicted, wanted, 1.0 / max(len(predicted), len(wanted)), WEIGHTS["partial"])


def _greedy(predicted: list[Call], wanted: list[Call], unit: float, weights: tuple[float, ...]) -> float:
    """Exact matches, then each stage on what is left: the first prediction takes the first partner. The sums are formed
    in the original's order, so that they agree to the last bit."""
    exact = set(predicted) & set(wanted)
    wanted = [call for call in wanted if call not in exact]
    functions = {call[2] for call in wanted}
    predicted = [call for call in predicted if call[2] in functions and call not in exact]
    total = 0.0 + len(exact) * unit
    for key, weight in zip(STAGES, weights, strict=True):
        paired = _pair(predicted, wanted, key) if weight else 0
        total += paired * unit * weight
    return total


def _pair(predicted: list[Call], wanted: list[Call], key: Callable[[Call], tuple]) -> int:
    """Removes the pairs with equal keys from both lists, first come first served; returns how many."""
    keys, before = [key(call) for call in wanted], len(wanted)
    for call in predicted[:]:
        if not wanted:
            break
        mine = key(call)
        if mine in keys:
            place = keys.index(mine)
            del keys[place], wanted[place]
            predicted.remove(call)
    return before - len(wanted)
