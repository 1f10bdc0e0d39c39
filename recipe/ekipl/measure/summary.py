"""A run in one JSON object."""

import re
from typing import Any

from recipe.ekipl.run_files import RunFiles

VALIDATED = re.compile(r"val-(?:core|aux)/(?P<source>.+)/(?P<part>\w+)/mean@\d+")
"""verl's name of a validation metric; a data source may have slashes (hiyouga/geometry3k)."""


def validation(steps: list[dict[str, Any]], part: str) -> list[tuple[int, dict[str, float]]]:
    """(step, value by data source) of each validation; `part` is a key of the reward: acc, format."""
    named = [(row["step"], {name: VALIDATED.fullmatch(name) for name in row}, row) for row in steps]
    found = [
        (step, {m["source"]: row[name] for name, m in matches.items() if m and m["part"] == part})
        for step, matches, row in named
    ]
    return [(step, values) for step, values in found if values]


def summarize_run(files: RunFiles, steps: list[dict[str, Any]]) -> dict[str, Any]:
    """Accuracy before and after by data source, expert share, silent groups, money, time and memory.

    Before is step 0 and after the last trained step; null where that was not validated.
    `asked_share` is the share of rows whose experts were asked, `exposed_wait_s` what the steps waited for experts beyond
    the policy, all steps together.
    `peak_memory_gib` is the largest sum over all processes that was seen; `seconds` is training time, start-up and
    validation apart.
    """
    accuracy, formats = validation(steps, "acc"), validation(steps, "format")
    trained = [row for row in steps if "ekipl/groups/count" in row]
    shares = [row["ekipl/expert_share"] for row in trained]
    silent = [row["ekipl/groups/zero_variance"] for row in trained]
    asked = [row["ekipl/asked_share"] for row in trained if "ekipl/asked_share" in row]
    last = trained[-1]["step"] if trained else 0
    return {
        "run_dir": str(files.root),
        "steps": last,
        "accuracy_before": dict(accuracy).get(0),
        "accuracy_after": dict(accuracy).get(last) if last else None,
        "format_before": dict(formats).get(0),
        "format_after": dict(formats).get(last) if last else None,
        "expert_share_first": round(shares[0], 4) if shares else None,
        "expert_share_last": round(shares[-1], 4) if shares else None,
        "zero_variance": round(sum(silent) / len(silent), 4) if silent else None,
        "asked_share": round(sum(asked) / len(asked), 4) if asked else None,
        "dollars": round(_dollars(trained), 6),
        "exposed_wait_s": round(sum(row.get("ekipl/wait/exposed_longest_s", 0.0) for row in trained), 1),
        "seconds": round(sum(row.get("timing_s/step", 0.0) for row in trained), 1),
        "peak_memory_gib": files.peak_memory(),
    }


def _dollars(trained: list[dict[str, Any]]) -> float:
    """What the run has cost by its ledger, and by its answers where it kept none."""
    by_ledger = [row["ekipl/budget/spent"] for row in trained if "ekipl/budget/spent" in row]
    return by_ledger[-1] if by_ledger else sum(row.get("ekipl/dollars", 0.0) for row in trained)
