"""w = pi_old / q for the rows of one group, by `ekipl.weights.mode` (paper, appendix A).

A mode takes the rows, the shares alpha_j of the sources among all candidates, and the settings, and returns one weight for
each row. `luffy` is the exception: its weights are per token, and it needs no log-probability but the policy's.

Everything is subtracted before anything is exponentiated: log pi of 350 tokens underflows fp32 at 0.3 nats a token.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ekipl_rollout.settings.weights import WeightSettings
from ekipl_rollout.weigh.row import POLICY, WeighedRow

LARGEST_LOG = 60.0  # e^60 is finite in fp32; a weight beyond it has long stopped the training

Mode = Callable[[Sequence[WeighedRow], Mapping[str, float], WeightSettings], list[float]]


def log_sum_exp(values: Sequence[float]) -> float:
    """log(sum(exp(values))); -inf for nothing."""
    top = max(values, default=-math.inf)
    return top if math.isinf(top) else top + math.log(math.fsum(math.exp(value - top) for value in values))


def log_per_source(row: WeighedRow) -> float:
    """log pi_old(o) - log pi_s(o): 0 for the policy's own."""
    if row.is_policy:
        return 0.0
    if row.log_own is None:
        raise ValueError(f"an answer of {row.source} has no log-probability of its own")
    return row.log_old - row.log_own


def log_mixture(row: WeighedRow, alphas: Mapping[str, float]) -> float:
    """log pi_old(o) - log sum_j alpha_j pi_j(o) over policy and experts (A.5); at most -log alpha_policy."""
    missing = [source for source in alphas if source != POLICY and source not in row.log_under]
    if missing:
        raise ValueError(f"an answer of {row.source} was not scored under {', '.join(missing)}")
    under = {POLICY: row.log_old, **row.log_under}
    return row.log_old - log_sum_exp([math.log(alpha) + under[source] for source, alpha in alphas.items()])


def log_mixture_own(row: WeighedRow, alphas: Mapping[str, float]) -> float:
    """`log_mixture` with only the terms that are known: the policy's, and that of the source. The missing ones count as 0,
    so that q is too small and w too large; it is still at most 1 / alpha_policy."""
    known = [math.log(alphas[POLICY]) + row.log_old] if POLICY in alphas else []
    if not row.is_policy:
        known.append(math.log(alphas[row.source]) + row.log_old - log_per_source(row))
    return row.log_old - log_sum_exp(known)


def per_source(rows: Sequence[WeighedRow], alphas: Mapping[str, float], settings: WeightSettings) -> list[float]:
    """w = pi_old / pi_s, unbounded (ablation B)."""
    return [_exp(log_per_source(row)) for row in rows]


def snis(rows: Sequence[WeighedRow], alphas: Mapping[str, float], settings: WeightSettings) -> list[float]:
    """G * softmax(log w) over the kept rows (ablation C): mean 1, so that the scale of the loss stays. The unknown
    normaliser of the selected proposal cancels."""
    logs = [log_per_source(row) for row in rows]
    total = log_sum_exp(logs)
    return [len(rows) * math.exp(log - total) for log in logs]


def mixture(rows: Sequence[WeighedRow], alphas: Mapping[str, float], settings: WeightSettings) -> list[float]:
    """w = pi_old / sum_j alpha_j pi_j, exact (A.5)."""
    return [math.exp(log_mixture(row, alphas)) for row in rows]


def mixture_own(rows: Sequence[WeighedRow], alphas: Mapping[str, float], settings: WeightSettings) -> list[float]:
    """`mixture` without the terms that closed experts cannot give: an over-estimate."""
    return [math.exp(log_mixture_own(row, alphas)) for row in rows]


def clip(rows: Sequence[WeighedRow], alphas: Mapping[str, float], settings: WeightSettings) -> list[float]:
    """w = min(pi_old / pi_s, clip): truncated importance sampling over whole sequences."""
    return [min(weight, settings.clip) for weight in per_source(rows, alphas, settings)]


def geo(rows: Sequence[WeighedRow], alphas: Mapping[str, float], settings: WeightSettings) -> list[float]:
    """w = clamp((pi_old / pi_s) ^ (1/T), 1 - geo_delta, 1): the weight per token, as GSPO and HACPO take it. Not an
    unbiased estimator; it does not degenerate with length. T is the policy's, whatever tokenizer the expert has."""
    return [min(max(_exp(log_per_source(row) / max(row.num_tokens, 1)), 1.0 - settings.geo_delta), 1.0) for row in rows]


def luffy_factor(p: Any, gamma: float) -> Any:
    """gamma p / (p + gamma)^2 for a token, or a tensor of them, of probability p under the old policy: the factor that turns
    A grad log p into the gradient of A p / (p + gamma), LUFFY's shaping. It is largest where p is gamma."""
    return gamma * p / (p + gamma) ** 2


MODES: dict[str, Mode] = {mode.__name__: mode for mode in (per_source, snis, mixture, mixture_own, clip, geo)}
"""The modes with one weight a row."""


def _exp(value: float) -> float:
    return math.exp(min(value, LARGEST_LOG))
