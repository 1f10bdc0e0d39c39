"""What happened to one group, as a small dictionary, and what happened in a step, as metrics.

The dictionary travels as a tag of the prompt through TransferQueue; `step_metrics` turns the tags of a step into the
numbers that verl logs. Experts are called expert1, expert2, ... there: verl chooses how to reduce a metric by looking
for "min", "max" or "sum" in its name, and "gemini" contains one of them.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from ekipl_rollout.answer import POLICY, Answer, Candidate, Selection
from ekipl_rollout.ask import Asked
from ekipl_rollout.group_filter import is_silent, mean_and_std


def summarize(
    candidates: Sequence[Candidate],
    selection: Selection,
    asked: Asked,
    num_kept: int,
    unusable: Sequence[tuple[Answer, str]] = (),
    baseline: str = "selected",
) -> dict[str, Any]:
    """The group in plain numbers: statistics for the baseline, and counts per source.

    `zero_variance`: all kept rewards are equal, so that the paper's advantages are all zero. `silent`: the advantages
    that are really used are, which with a wider `baseline` is rarer.
    """
    kept_scores = [c.score for c in selection.kept]
    statistics = {"selected": mean_and_std(kept_scores), "all": mean_and_std([c.score for c in candidates])}
    mean = statistics[baseline][0]
    policy = [c for c in candidates if c.is_policy]
    solved = [float(c.parts.get("accuracy", c.parts.get("acc", 0.0)) or 0.0) >= 1.0 for c in policy]
    return {
        **statistics,
        "zero_variance": is_silent(kept_scores),
        "silent": all(abs(score - mean) < 1e-9 for score in kept_scores),
        "short": len(kept_scores) < num_kept,
        "solve_none": not any(solved),
        "solve_all": all(solved) and bool(solved),
        "exposed_wait_s": asked.exposed_wait_s,
        "wanted": dict(asked.wanted),
        "retried": {name: count for name, count in asked.retries.items() if count},
        "ahead": asked.ahead,
        "sources": _sources(candidates, selection, asked, unusable),
    }


def _sources(candidates, selection, asked, unusable) -> dict[str, dict[str, Any]]:
    sources: dict[str, dict[str, Any]] = defaultdict(lambda: defaultdict(float))
    for candidate in candidates:
        row = sources[candidate.source]
        row["judged"] += 1
        row["score"] += candidate.score
        row["length"] += candidate.length
        for part in ("format", "accuracy"):
            row[part] += float(candidate.parts.get(part, 0.0) or 0.0)
    for candidate in selection.kept:
        sources[candidate.source]["kept"] += 1
    for _, reason in selection.dropped:
        sources["_dropped"][reason] += 1
    for answer, reason in unusable:
        sources[answer.source][f"unusable_{reason}"] += 1
    for name, failure in asked.failures:
        sources[name][f"failed_{failure.value}"] += 1
    for answer in asked.answers:
        row = sources[answer.source]
        row["answers"] += 1
        row["dollars"] += answer.dollars
        row["tokens"] += answer.output_tokens
        row["recorded"] += answer.recorded
        row["seconds"] = max(row["seconds"], answer.seconds)  # 0 when all of them come from the record
    return {name: dict(row) for name, row in sources.items()}


def step_metrics(groups: Iterable[dict[str, Any]], experts: Sequence[str]) -> dict[str, float]:
    """Metrics of one step under `ekipl/`, from the group dictionaries of that step."""
    groups = list(groups)
    if not groups:
        return {}
    count = len(groups)
    metrics = {
        f"ekipl/groups/{name}": sum(bool(g[name]) for g in groups) / count
        for name in ("zero_variance", "silent", "short", "solve_none", "solve_all")
    }
    metrics["ekipl/groups/count"] = float(count)
    metrics["ekipl/asked_share"] = sum(bool(g.get("wanted")) for g in groups) / count
    metrics["ekipl/asked_ahead_share"] = sum(bool(g.get("ahead")) for g in groups) / count
    waits = sorted(g["exposed_wait_s"] for g in groups)
    metrics["ekipl/wait/exposed_mean_s"] = sum(waits) / count
    metrics["ekipl/wait/exposed_longest_s"] = waits[-1]
    alias = {POLICY: POLICY, **{name: f"expert{i}" for i, name in enumerate(experts, start=1)}}
    totals: dict[str, Counter] = defaultdict(Counter)
    slowest: dict[str, list[float]] = defaultdict(list)
    for group in groups:
        for name, row in group["sources"].items():
            totals[name].update(row)
            if row.get("seconds"):
                slowest[name].append(row["seconds"])
        for name, number in group.get("wanted", {}).items():
            totals[name]["asked"] += number
        for name, number in group.get("retried", {}).items():
            totals[name]["retried"] += number
    dropped = totals.pop("_dropped", Counter())
    for reason, number in dropped.items():
        metrics[f"ekipl/dropped/{reason}"] = number / count
    kept = sum(row["kept"] for row in totals.values()) or 1.0
    for name, row in totals.items():
        metrics.update(_source_metrics(f"ekipl/{alias.get(name, name)}", row, kept, count, slowest[name]))
    metrics["ekipl/expert_share"] = sum(r["kept"] for n, r in totals.items() if n != POLICY) / kept
    metrics["ekipl/dollars"] = float(sum(row["dollars"] for row in totals.values()))
    return metrics


def _source_metrics(at: str, row: Counter, kept: float, groups: int, seconds: list[float]) -> dict[str, float]:
    metrics = {f"{at}/share": row["kept"] / kept}
    if row["judged"]:
        metrics.update(
            {f"{at}/{part}": row[part] / row["judged"] for part in ("score", "format", "accuracy", "length")}
        )
    for name, number in row.items():
        if name.startswith(("failed_", "unusable_")):
            metrics[f"{at}/{name}"] = float(number)
    if row["asked"]:
        metrics[f"{at}/asked"] = float(row["asked"])
        metrics[f"{at}/answered"] = float(row["answers"])
        metrics[f"{at}/retried"] = float(row["retried"])
    if seconds:
        ordered = sorted(seconds)
        metrics[f"{at}/latency_p50_s"] = ordered[len(ordered) // 2]
        metrics[f"{at}/latency_p95_s"] = ordered[int(0.95 * (len(ordered) - 1))]
    if row["answers"]:
        metrics[f"{at}/recorded"] = row["recorded"] / row["answers"]
        metrics[f"{at}/tokens"] = float(row["tokens"])
        metrics[f"{at}/dollars"] = float(row["dollars"])
    return metrics
