"""The original's spatial rewards: sets of triples, a greedy matcher, and a penalty for repeats.

The greedy matcher of `partial` and `penalty` walks over a Python set, so that the original's value can depend on
PYTHONHASHSEED. Here triples are taken in order of appearance, which is one of the original's possible values.
"""

import re

# Three runs of word characters in function(object, value) form, anywhere in the text. The original's pattern is this
# without the look-behind; a match always begins at the start of a run, and saying so makes it linear.
_CALL = re.compile(r"(?<!\w)(\w+)\((\w+),\s*'?(\w+)'?\)")

Call = tuple[str, str, str]
STAGES = (
    lambda a, b: (a[0], a[1]) == (b[0], b[1]),
    lambda a, b: (a[0], a[2]) == (b[0], b[2]),
    lambda a, b: a[0] == b[0],
)
WEIGHTS = {"full": (0.0, 0.0, 0.0), "partial": (0.5, 0.5, 0.25), "penalty": (-0.25, -0.25, -0.5)}


def calls(text: str) -> list[Call]:
    return _CALL.findall(text)


def score(answer: str, truth: str, kind: str, repeats_cost: bool = True) -> float:
    """`full` (trance-only-full), `partial` (trance) or `penalty` (trance-penalty); without `repeats_cost` and with
    `partial` it is the evaluation."""
    said, expected = calls(answer), calls(truth)
    if not said or not expected:
        return 0.0
    predicted, wanted = list(dict.fromkeys(said)), list(dict.fromkeys(expected))
    unit = 1.0 / max(len(predicted), len(wanted))
    if repeats_cost:
        unit *= len(predicted) / len(said)
    exact = [call for call in predicted if call in set(wanted)]
    total = unit * len(exact)
    predicted = [call for call in predicted if call not in exact]
    wanted = [call for call in wanted if call not in exact]
    for same, weight in zip(STAGES, WEIGHTS[kind], strict=True):
        rest = []
        for call in predicted:
            partner = next((other for other in wanted if same(call, other)), None)
            if partner is None:
                rest.append(call)
            else:
                wanted.remove(partner)
                total += unit * weight
        predicted = rest
    return total
