"""Whether weights can be trusted (paper, A.3 and A.4): effective sample size, quantiles, variance, and the bias bound."""

import math
from collections.abc import Mapping, Sequence

from ekipl_rollout.weigh.modes import log_sum_exp


def effective_sample_size(log_weights: Sequence[float]) -> float:
    """(sum w)^2 / sum w^2 of weights given by their logs: n for equal weights, 1 when one of them is all (A.3)."""
    if not log_weights or max(log_weights) == -math.inf:
        return 0.0
    return math.exp(2 * log_sum_exp(log_weights) - log_sum_exp([2 * log for log in log_weights]))


def quantile(values: Sequence[float], share: float) -> float:
    """By linear interpolation between the two nearest ranks, as numpy's default."""
    ordered = sorted(values)
    at = share * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])


def variance(values: Sequence[float]) -> float:
    """Of the population; 0 for fewer than two."""
    if len(values) < 2:
        return 0.0
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values) / len(values)


def bias_bound(log_weights: Sequence[float], advantages: Sequence[float]) -> float:
    """Eq. 10, estimated on one group: 2 max|g| TV(pi_old, q) with g = A (the ratio is 1 at the first update).

    TV = E_q|w - 1| / 2. With w = pi_old / q of the mixture this estimates it; with w = pi_old / pi_s of each source it
    estimates the mean of the sources' distances, which is no smaller (TV is convex). Kept rows stand for all of q.
    """
    if not advantages:
        return 0.0
    distance = math.fsum(abs(_weight(log) - 1.0) for log in log_weights) / len(log_weights) / 2
    return 2 * max(abs(advantage) for advantage in advantages) * min(distance, 1.0)


def ess_metrics(per_group: Sequence[tuple[float, int]]) -> dict[str, float]:
    """(ESS, rows) of each group as metrics. Not called min or max: verl reduces a metric by such words in its name."""
    if not per_group:
        return {}
    sizes = [ess for ess, _ in per_group]
    return {
        "ekipl/weights/ess_mean": math.fsum(sizes) / len(sizes),
        "ekipl/weights/ess_p05": quantile(sizes, 0.05),
        "ekipl/weights/ess_smallest": min(sizes),
        "ekipl/weights/ess_share": math.fsum(ess / rows for ess, rows in per_group) / len(per_group),
    }


def source_metrics(log_weights: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Quantiles of the log-weights by source; the 95 % one is the paper's (A.3)."""
    return {
        f"ekipl/weights/{source}/log_p{round(100 * share):02d}": quantile(values, share)
        for source, values in log_weights.items()
        if values
        for share in (0.05, 0.5, 0.95)
    }


def _weight(log_weight: float) -> float:
    return math.exp(min(log_weight, 60.0))
