"""Steps of a benchmark -> the numbers of each arm, their ratios to stock, a table."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import mean, median
from typing import Any

from recipe.ekipl.benchmark.arms import ARMS, STOCK

PHASES = {
    "generate": ("timing_s/gen",),
    "log-probs": ("timing_s/old_log_prob", "timing_s/ref"),
    "update": ("timing_s/update_actor",),
    "sync": ("timing_s/update_weights",),
}
TARGETS = {"recorded": 1.02, "fast": 1.05}
"""Most seconds a step as a ratio to stock."""

SLOW_TARGET = 1.1
"""Exposed wait as a ratio to what the experts take longer than the policy, L - R."""


def read_steps(folder: Path) -> list[dict[str, Any]]:
    """Every step of every attempt: verl's metrics, our counts, `arm` and `block` (numbered over all attempts)."""
    found, blocks = [], 0
    for schedule in sorted(folder.glob("attempt-*.schedule.json")):
        names = json.loads(schedule.read_text())
        metrics, counts = (
            Path(str(schedule).replace("schedule.json", f"{kind}.jsonl")) for kind in ("metrics", "counts")
        )
        counted = by_step(lines(counts))
        for row in lines(metrics):
            step = row["step"]
            if 1 <= step <= len(names) and step in counted:
                block = blocks + (step - 1) // len(ARMS)
                found.append(
                    {"arm": names[step - 1], "block": block, "warm_up": step <= len(ARMS)} | row["data"] | counted[step]
                )
        blocks += -(-len(names) // len(ARMS))
    return found


def lines(path: Path) -> list[dict[str, Any]]:
    """JSON lines; the torn last one of a killed attempt is left out."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def by_step(counts: Iterable[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """The workers' counts of a step, together."""
    sums: dict[int, dict[str, Any]] = {}
    for row in counts:
        into = sums.setdefault(row["step"], {"rows": 0, "bytes": 0, "preprocessings": 0, "groups": []})
        for name in into:
            into[name] = into[name] + row[name]
    return sums


def complete_blocks(steps: Iterable[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Blocks in which every arm has its step; the warm-up of each attempt apart."""
    blocks = defaultdict(list)
    for row in steps:
        if not row["warm_up"]:
            blocks[row["block"]].append(row)
    return [rows for rows in blocks.values() if len({row["arm"] for row in rows}) == len(ARMS)]


def summarize(steps: list[dict[str, Any]]) -> dict[str, Any]:
    """Numbers by arm: medians over blocks; `ratio` is the median of the ratios within blocks, with the smallest and largest."""
    blocks = complete_blocks(steps)
    arms = {}
    for arm in ARMS:
        rows = [row for block in blocks for row in block if row["arm"] == arm.name]
        if not rows:
            continue
        ratios = sorted(
            row["timing_s/step"] / next(r for r in block if r["arm"] == STOCK)["timing_s/step"]
            for block in blocks
            for row in block
            if row["arm"] == arm.name
        )
        arms[arm.name] = _numbers(rows) | {"ratio": median(ratios), "ratio_least": ratios[0], "ratio_most": ratios[-1]}
    return {"blocks": len(blocks), "arms": arms, "checks": _checks(arms)}


def _numbers(rows: list[Mapping[str, Any]]) -> dict[str, Any]:
    def middle(values: Iterable[float]) -> float:
        return median(list(values))

    groups = [group for row in rows for group in row["groups"]]
    exposed = sum(max(g.get("exposed_s", 0.0) for g in row["groups"]) for row in rows)
    longer = sum(max(max(g.get("expert_s", 0.0) - g.get("policy_s", 0.0), 0.0) for g in row["groups"]) for row in rows)
    phases = {name: middle(sum(row.get(key, 0.0) for key in keys) for row in rows) for name, keys in PHASES.items()}
    step_s = middle(row["timing_s/step"] for row in rows)
    numbers = {
        "step_s": step_s,
        **{f"{name}_s": value for name, value in phases.items()},
        "other_s": step_s - sum(phases.values()),
        "ask_s": mean(g.get("expert_s", 0.0) for g in groups),
        "judge_s": mean(g.get("judge_s", 0.0) for g in groups),
        "keep_s": mean(g.get("keep_s", 0.0) for g in groups),
        "exposed_s": exposed / len(rows),
        "longer_s": longer / len(rows),
        "prompts_per_s": middle(len(row["groups"]) / row["timing_s/step"] for row in rows),
        "tokens_per_s": middle(row.get("perf/total_num_tokens", 0.0) / row["timing_s/step"] for row in rows),
        "tokens": middle(row.get("perf/total_num_tokens", 0.0) for row in rows),
        "skipped": sum(row.get("ekipl/update/skipped", 0.0) for row in rows),
        "bytes_per_prompt": middle(row["bytes"] / len(row["groups"]) for row in rows),
        "preprocessings_per_prompt": middle(row["preprocessings"] / len(row["groups"]) for row in rows),
    }
    if any(row.get("perf/mfu/actor") for row in rows):  # verl says 0 for a device whose peak it does not know
        numbers["mfu"] = middle(row.get("perf/mfu/actor", 0.0) for row in rows)
    return numbers


def _checks(arms: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, Any]]:
    """What was aimed at, what was seen."""
    checks = {
        f"{name}: step / stock": {"most": most, "seen": arms[name]["ratio"]}
        for name, most in TARGETS.items()
        if name in arms
    }
    if "slow" in arms and arms["slow"]["longer_s"]:
        seen = arms["slow"]["exposed_s"] / arms["slow"]["longer_s"]
        checks["slow: exposed wait / (L - R)"] = {"most": SLOW_TARGET, "seen": seen}
    for name in arms:
        checks[f"{name}: updates skipped"] = {"most": 0.0, "seen": arms[name]["skipped"]}
        if name != STOCK:
            checks[f"{name}: preprocessings a prompt"] = {"most": 2.0, "seen": arms[name]["preprocessings_per_prompt"]}
            seen = arms[name]["bytes_per_prompt"] / arms[STOCK]["bytes_per_prompt"]
            checks[f"{name}: bytes a prompt / stock"] = {"most": 1.1, "seen": seen}
    return {name: check | {"holds": check["seen"] <= check["most"]} for name, check in checks.items()}


ROWS = (
    ("seconds a step", "step_s", "{:.2f}"),
    ("  ratio to stock", "ratio", "{:.3f}"),
    ("  smallest", "ratio_least", "{:.3f}"),
    ("  largest", "ratio_most", "{:.3f}"),
    ("  generate, ask, judge, keep", "generate_s", "{:.2f}"),
    ("  log-probs", "log-probs_s", "{:.2f}"),
    ("  update", "update_s", "{:.2f}"),
    ("  sync", "sync_s", "{:.2f}"),
    ("  other", "other_s", "{:.2f}"),
    ("ask: slowest expert of a group", "ask_s", "{:.2f}"),
    ("judge: experts of a group", "judge_s", "{:.2f}"),
    ("keep: write a group", "keep_s", "{:.2f}"),
    ("exposed wait, longest of a step", "exposed_s", "{:.2f}"),
    ("  L - R", "longer_s", "{:.2f}"),
    ("prompts/s", "prompts_per_s", "{:.2f}"),
    ("tokens/s", "tokens_per_s", "{:.0f}"),
    ("tokens a step", "tokens", "{:.0f}"),
    ("updates skipped", "skipped", "{:.0f}"),
    ("TransferQueue bytes a prompt", "bytes_per_prompt", "{:.0f}"),
    ("picture preprocessings a prompt", "preprocessings_per_prompt", "{:.2f}"),
    ("MFU of the update", "mfu", "{:.3f}"),
)


def render(summary: Mapping[str, Any]) -> str:
    """The table for people."""
    arms = summary["arms"]
    told = [["", *arms]] + [
        [label, *(form.format(arms[arm][key]) if key in arms[arm] else "-" for arm in arms)]
        for label, key, form in ROWS
        if any(key in arms[arm] for arm in arms)
    ]
    widths = [max(len(row[i]) for row in told) for i in range(len(told[0]))]
    text = [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in told
    ]
    for name, check in summary["checks"].items():
        text.append(f"{'holds' if check['holds'] else 'FAILS'}  {name}: {check['seen']:.3f}, at most {check['most']}")
    return "\n".join(text)
