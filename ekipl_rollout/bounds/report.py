"""The state of the bounds as metrics of a step. Experts are expert1, expert2, ... as in group_report.py."""

from collections.abc import Sequence
from typing import Any

REST = {"closed": 0.0, "half_open": 0.5, "open": 1.0}


def bounds_metrics(snapshot: dict[str, Any], experts: Sequence[str]) -> dict[str, float]:
    """Metrics under `ekipl/` from `Governor.snapshot(step)`.

    `budget/spent` is the run's money so far, with late answers, failed requests and earlier attempts; what a group used
    in this step is `ekipl/dollars`. Limits that are not set have no metric. Counts of requests are since the bounds were
    started. `expert<i>/resting`: 0 may be asked, 1 rests, 0.5 waits for a probe.
    """
    metrics = {
        "ekipl/budget/spent": snapshot["spent"],
        "ekipl/budget/reserved": snapshot["reserved"],
        "ekipl/experts_resting": float(sum(e["breaker"] != "closed" for e in snapshot["experts"].values())),
    }
    for name in ("left", "step_spent", "step_left"):
        if snapshot.get(name) is not None:
            metrics[f"ekipl/budget/{name}"] = snapshot[name]
    for number, name in enumerate(experts, start=1):
        seen, at = snapshot["experts"][name], f"ekipl/expert{number}"
        metrics |= {
            f"{at}/in_flight": float(seen["in_flight"]),
            f"{at}/in_flight_allowed": float(seen["in_flight_limit"]),
            f"{at}/waiting": float(seen["waiting"]),
            f"{at}/resting": REST[seen["breaker"]],
            f"{at}/spent": seen["spent"],
        }
        if seen["left"] is not None:
            metrics[f"{at}/budget_left"] = seen["left"]
        counts = seen["counts"]
        metrics[f"{at}/requests"] = float(counts.get("requests", 0))
        for kind, number_of in counts.items():
            if kind.startswith(("failed_", "refused_")) or kind in ("overruns", "forfeited"):
                metrics[f"{at}/requests_{kind}"] = float(number_of)
    return metrics
