"""Mean and standard deviation of rewards, and whether their spread teaches anything."""

import math
from collections.abc import Mapping, Sequence

from ekipl_rollout.answer import Candidate

EQUAL = 1e-6  # rewards closer than this count as the same: verl sees them in fp32


def is_silent(scores: Sequence[float]) -> bool:
    """True when all advantages over these scores are zero: a group that teaches nothing."""
    return len(scores) < 2 or max(scores) - min(scores) < EQUAL


def mean_and_std(scores: Sequence[float]) -> tuple[float, float]:
    """Mean and unbiased standard deviation, as verl's GRPO takes them; (0, 1) for fewer than two, as verl does."""
    if len(scores) < 2:
        return (0.0, 1.0)
    mean = math.fsum(scores) / len(scores)
    return mean, math.sqrt(math.fsum((score - mean) ** 2 for score in scores) / (len(scores) - 1))


def scopes(candidates: Sequence[Candidate], kept: Sequence[Candidate]) -> Mapping[str, list[float]]:
    """Scores by scope, as `ekipl.advantage.baseline` and `.std` name them."""
    return {
        "selected": [c.score for c in kept],
        "all": [c.score for c in candidates],
        "policy_only": [c.score for c in candidates if c.is_policy],
    }
