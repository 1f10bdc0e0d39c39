"""What happened to one group, as a small dictionary, and what happened in a step, as metrics.

The dictionary travels as a tag of the prompt through TransferQueue; `step_metrics` turns the tags of a step into the
numbers that verl logs. Experts are called expert1, expert2, ... there: verl chooses how to reduce a metric by looking
for "min", "max" or "sum" in its name, and "gemini" contains one of them.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ekipl_rollout.answer import POLICY, Answer, Candidate, Selection
from ekipl_rollout.ask import Asked
from ekipl_rollout.keep.spread import EQUAL, is_silent, mean_and_std, scopes
from ekipl_rollout.settings import AdvantageSettings, EkiplSettings, SelectSettings
from ekipl_rollout.weigh.row import shares

WARN_SILENT = 0.9


@dataclass(frozen=True)
class Rollout:
    """How the policy's own sessions of a group went."""

    failed: int = 0
    """Sessions that ended with an error."""

    seconds: float = 0.0
    """Until the last one had ended."""


_WELL = Rollout()
_PAPERS_SELECTION, _PAPERS_ADVANTAGE = SelectSettings(), AdvantageSettings()


def summarize(
    candidates: Sequence[Candidate],
    selection: Selection,
    asked: Asked,
    num_kept: int,
    unusable: Sequence[tuple[Answer, str]] = (),
    select: SelectSettings = _PAPERS_SELECTION,
    advantage: AdvantageSettings = _PAPERS_ADVANTAGE,
    rollout: Rollout = _WELL,
) -> dict[str, Any]:
    """The group in plain numbers: statistics for the baseline, rows by session, and counts per source.

    `zeroed`: sessions whose advantage is 0.
    `zero_variance`: all kept rewards are equal, so that the paper's advantages are all zero. `silent`: the advantages
    that are really used are, which with a wider baseline is rarer.
    """
    scores = scopes(candidates, selection.kept)
    zeroed = _zeroed(selection.kept, scores[advantage.baseline], select, advantage)
    solved = [c.is_right for c in candidates if c.is_policy]
    return {
        **{scope: mean_and_std(of_scope) for scope, of_scope in scores.items()},
        "rows": {str(c.session): _row(c) for c in selection.kept},
        "shares": shares(c.source for c in candidates),
        "zeroed": zeroed,
        "zero_variance": is_silent(scores["selected"]),
        "silent": len(zeroed) == len(selection.kept),
        "short": len(selection.kept) < num_kept,
        "solve_none": not any(solved),
        "solve_all": all(solved) and bool(solved),
        "exposed_wait_s": asked.exposed_wait_s,
        "wanted": dict(asked.wanted),
        "retried": {name: count for name, count in asked.retries.items() if count},
        "ahead": asked.ahead,
        "sources": _sources(candidates, selection, asked, unusable, rollout),
    }


def _row(candidate: Candidate) -> dict[str, Any]:
    """What weights and loss need to know about a kept answer."""
    row: dict[str, Any] = {"source": candidate.source, "right": candidate.is_right}
    if candidate.log_own is not None:  # 0.0 is a log-probability: that of a sure answer
        row["log_own"] = candidate.log_own
    if candidate.log_under:
        row["log_under"] = candidate.log_under
    return row


def _zeroed(
    kept: Sequence[Candidate], scores: Sequence[float], select: SelectSettings, advantage: AdvantageSettings
) -> list[int]:
    """Sessions whose advantage is 0 whatever the estimator says. `scores`: of those over whom the mean is taken.

    verl gives the only row of a group its raw reward for an advantage, which is relative to nothing. And the rounding of a
    mean over equal rewards (eight times 1.4), divided by a deviation of next to nothing + 1e-6, becomes an advantage of
    about 0.1.
    """
    if advantage.control != "none":
        only_experts = advantage.control == "imitate_experts"
        return [c.session for c in kept if not c.is_right or (only_experts and c.is_policy)]
    mean, alone = mean_and_std(scores)[0], len(scores) < 2
    no_negative = select.negative_experts != "keep"
    return [
        c.session
        for c in kept
        if alone or abs(c.score - mean) < EQUAL or (no_negative and not c.is_policy and c.score < mean)
    ]


def _sources(
    candidates: Sequence[Candidate],
    selection: Selection,
    asked: Asked,
    unusable: Sequence[tuple[Answer, str]],
    rollout: Rollout,
) -> dict[str, dict[str, Any]]:
    sources: dict[str, dict[str, Any]] = defaultdict(lambda: defaultdict(float))
    if rollout.failed:
        sources[POLICY]["failed_session"] = rollout.failed
    if rollout.seconds:
        sources[POLICY]["seconds"] = rollout.seconds
    for candidate in candidates:
        row = sources[candidate.source]
        row["judged"] += 1
        row["score"] += candidate.score
        row["length"] += candidate.length
        row["accuracy"] += candidate.accuracy
        row["format"] += float(candidate.parts.get("format", 0.0) or 0.0)
        if candidate.parts.get("reason") == "reward_error":
            row["failed_reward"] += 1
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
    metrics["ekipl/groups/teaching"] = 1.0 - metrics["ekipl/groups/silent"]
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
        metrics.update(_source_metrics(f"ekipl/{alias.get(name, name)}", row, kept, slowest[name]))
    metrics["ekipl/expert_share"] = sum(r["kept"] for n, r in totals.items() if n != POLICY) / kept
    metrics["ekipl/dollars"] = float(sum(row["dollars"] for row in totals.values()))
    return metrics


def silence_warning(groups: Collection[Mapping[str, Any]], settings: EkiplSettings) -> str | None:
    """What to change when hardly any group of a step teaches anything; None when enough do."""
    silent = sum(bool(group["silent"]) for group in groups) / max(len(groups), 1)
    if silent <= WARN_SILENT:
        return None
    advantage = settings.advantage
    solved = sum(bool(group["solve_all"]) for group in groups) / len(groups)
    if solved > 0.5:
        way_out = f"The policy itself solves {solved:.0%} of the rows: use harder rows, or stop here."
    elif settings.experts and advantage.baseline == "selected":
        way_out = (
            "The best G are alike, which good experts bring about. Set ekipl.advantage.baseline=all and std=all (preset=robust), "
            "or ask each expert for fewer answers (num_answers)."
        )
    elif settings.experts:
        way_out = "Neither policy nor experts have a right answer to most rows: use easier rows or better experts."
    else:
        way_out = "Its answers to a row are all alike: use easier rows, a higher temperature, or experts."
    return f"{silent:.0%} of the groups teach nothing: all advantages in them are zero. {way_out}"


def _source_metrics(at: str, row: Counter, kept: float, seconds: list[float]) -> dict[str, float]:
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
