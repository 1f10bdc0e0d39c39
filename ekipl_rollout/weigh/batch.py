"""The weights of a batch, group by group, and what they say about themselves."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ekipl_rollout.settings.weights import WeightSettings
from ekipl_rollout.weigh.diagnostics import bias_bound, effective_sample_size, ess_metrics, source_metrics, variance
from ekipl_rollout.weigh.modes import MODES, log_mixture, log_mixture_own, log_per_source
from ekipl_rollout.weigh.row import POLICY, WeighedRow


@dataclass
class BatchRow:
    """A row that is no padding."""

    at: int
    """Its place in the batch."""

    uid: str
    row: WeighedRow
    advantage: float


@dataclass
class _Seen:
    """What the groups of a batch had, for the metrics."""

    sizes: list[tuple[float, int]] = field(default_factory=list)
    by_source: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    weights: list[float] = field(default_factory=list)
    changed: int = 0
    bounds: list[float] = field(default_factory=list)


def weigh(
    rows: Sequence[BatchRow],
    groups: Mapping[str, Mapping[str, Any]],
    settings: WeightSettings,
    experts: Sequence[str] = (),
) -> tuple[dict[int, float], dict[str, float]]:
    """(weight by place in the batch, metrics). Groups are found by uid, since verl reorders rows; rows that are not
    named, verl's padding, have no weight. `experts`: the configured names, in whose order they are called expert1, ...

    Modes without a weight for whole rows (none, luffy) return no weights, and the metrics where log-probabilities are
    known all the same: they say what a correction would do.
    """
    alias = {POLICY: POLICY, **{name: f"expert{i}" for i, name in enumerate(experts, start=1)}}
    by_group: dict[str, list[BatchRow]] = defaultdict(list)
    for row in rows:
        by_group[row.uid].append(row)
    result: dict[int, float] = {}
    seen = _Seen()
    for uid, members in by_group.items():
        alphas = groups[uid]["shares"]
        weighed = [member.row for member in members]
        logs = _log_weights(weighed, alphas, settings.mode)
        weights = MODES[settings.mode](weighed, alphas, settings) if settings.mode in MODES else None
        if weights is not None:
            result.update((member.at, weight) for member, weight in zip(members, weights, strict=True))
            seen.weights += weights
        if logs is not None:
            _look_at(seen, members, logs, settings, alias)
    return result, _metrics(seen)


def _log_weights(rows: Sequence[WeighedRow], alphas: Mapping[str, float], mode: str) -> list[float] | None:
    """log(pi_old / q) before anything is clipped or normalised; None where a log-probability is missing."""
    try:
        if mode == "mixture":
            return [log_mixture(row, alphas) for row in rows]
        if mode == "mixture_own":
            return [log_mixture_own(row, alphas) for row in rows]
        return [log_per_source(row) for row in rows]
    except ValueError:
        return None


def _look_at(
    seen: _Seen, members: Sequence[BatchRow], logs: Sequence[float], settings: WeightSettings, alias: Mapping[str, str]
) -> None:
    seen.sizes.append((effective_sample_size(logs), len(logs)))
    seen.bounds.append(bias_bound(logs, [member.advantage for member in members]))
    for member, log in zip(members, logs, strict=True):
        seen.by_source[alias.get(member.row.source, member.row.source)].append(log)
        seen.changed += _is_bounded(member.row, settings)


def _is_bounded(row: WeighedRow, settings: WeightSettings) -> bool:
    """True when `clip` or `geo` cuts this row's weight."""
    if settings.mode == "clip":
        return _log_per(row, 1) > settings.log_clip
    if settings.mode == "geo":
        return not settings.log_geo_least <= _log_per(row, row.num_tokens) <= 0.0
    return False


def _log_per(row: WeighedRow, tokens: int) -> float:
    return log_per_source(row) / max(tokens, 1)


def _metrics(seen: _Seen) -> dict[str, float]:
    metrics = {**ess_metrics(seen.sizes), **source_metrics(seen.by_source)}
    if seen.sizes:
        metrics["ekipl/weights/bias_bound"] = sum(seen.bounds) / len(seen.bounds)
        metrics["ekipl/weights/share_clipped"] = seen.changed / sum(rows for _, rows in seen.sizes)
    if seen.weights:
        metrics["ekipl/weights/mean"] = sum(seen.weights) / len(seen.weights)
        metrics["ekipl/weights/variance"] = variance(seen.weights)
    return metrics
