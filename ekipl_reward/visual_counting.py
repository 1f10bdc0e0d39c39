"""Visual counting (CLEVR-Math, Super-CLEVR): the answer is one number. The paper's discrete reward type."""

from ekipl_reward.errors import TruthError
from ekipl_reward.extract import undecorated
from ekipl_reward.numbers import parse_number
from ekipl_reward.options import RewardOptions
from ekipl_reward.verdict import Verdict


def check_truth(truth: str) -> None:
    if parse_number(undecorated(truth)) is None:
        raise TruthError(f"a count must be a number, not {truth[:80]!r}")


def judge(answer: str, truth: str, options: RewardOptions) -> Verdict:
    """1 when both are the same number, else 0. "3.0" and "**3**" are 3; "three", "3 objects" and "3 or 4" are wrong."""
    said = parse_number(undecorated(answer))
    if said is None:
        return Verdict(0.0, "not_a_number")
    same = said == parse_number(undecorated(truth))
    return Verdict(1.0, "same_number") if same else Verdict(0.0, "another_number")
