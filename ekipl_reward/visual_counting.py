"""Visual counting (CLEVR-Math, Super-CLEVR): the answer is one number."""

from ekipl_reward.errors import TruthError
from ekipl_reward.numbers import parse_number
from ekipl_reward.options import RewardOptions


def check_truth(truth: str) -> None:
    if parse_number(truth) is None:
        raise TruthError(f"a count must be a number, not {truth!r}")


def accuracy(answer: str, truth: str, options: RewardOptions) -> float:
    """1.0 when both are the same number, else 0.0. "3.0" and " 3 " are 3; "three" and "3 or 4" are wrong."""
    said = parse_number(answer)
    return float(said is not None and said == parse_number(truth))
