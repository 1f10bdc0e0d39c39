"""Keep: a judged group of N(1+M) candidates -> the best G, and the reason for each drop. No torch, no verl.

The paper (section 3.2): sort the union of all sources by reward and take the top G. It leaves ties open, and rewards
are discrete, so ties decide most selections; the rule for them is a setting.
"""

import random
import statistics
from collections.abc import Callable

from ekipl_rollout.answer import Candidate, Selection

TieOrder = Callable[[Candidate, random.Random], tuple]


def _policy_first(candidate: Candidate, _: random.Random) -> tuple:
    return (not candidate.is_policy, candidate.session)


def _expert_first(candidate: Candidate, _: random.Random) -> tuple:
    return (candidate.is_policy, candidate.session)


def _random(_: Candidate, rng: random.Random) -> tuple:
    return (rng.random(),)


TIES: dict[str, TieOrder] = {"policy_first": _policy_first, "expert_first": _expert_first, "random": _random}
"""Order among candidates of equal reward. `policy_first` is the order of the paper's Eq. 6 and keeps on-policy data."""


def keep_top(candidates: list[Candidate], num_kept: int, ties: str = "policy_first", seed: int | str = 0) -> Selection:
    """Best `num_kept` candidates by score. Fewer candidates than that are all kept; none is ever duplicated.

    Example:
        scores [1.0 gpt, 0.0 policy, 1.0 policy, 0.5 gemini], num_kept=2 -> [policy 1.0, gpt 1.0]
    """
    rng = random.Random(str(seed))
    order = TIES[ties]
    ranked = sorted(candidates, key=lambda c: (-c.score, *order(c, rng)))
    kept, rest = ranked[:num_kept], ranked[num_kept:]
    cut = kept[-1].score if kept else 0.0
    return Selection(kept, [(c, "lost_a_tie" if c.score == cut else "lower_reward") for c in rest])


def is_silent(scores: list[float]) -> bool:
    """True when all advantages of a group are zero: it teaches nothing."""
    return len(scores) < 2 or max(scores) - min(scores) < 1e-9


def mean_and_std(scores: list[float]) -> tuple[float, float]:
    """Mean and unbiased standard deviation, as verl's GRPO takes them; (mean, 1) for a single score, as verl does."""
    if len(scores) < 2:
        return (0.0, 1.0)
    return statistics.fmean(scores), statistics.stdev(scores)
