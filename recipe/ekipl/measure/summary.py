"""A run in one JSON object."""

from typing import Any

from recipe.ekipl.run_files import RunFiles


def validation(steps: list[dict[str, Any]], part: str) -> list[tuple[int, dict[str, float]]]:
    """(step, value by data source) of each validation; `part` is a key of the reward: acc, format."""
    found = []
    for row in steps:
        values = {}
        for name, value in row.items():
            section, _, rest = name.partition("/")
            if (
                section in ("val-core", "val-aux")
                and rest.split("/")[1:2] == [part]
                and rest.split("/")[2].startswith("mean@")
            ):
                values[rest.split("/")[0]] = value
        if values:
            found.append((row["step"], values))
    return found


def summarize_run(files: RunFiles, steps: list[dict[str, Any]]) -> dict[str, Any]:
    """Accuracy before and after by data source, expert share, silent groups, time and memory.

    `peak_memory_gib` is the largest sum over all processes that was seen; `seconds` is training time, start-up and
    validation apart.
    """
    accuracy, formats = validation(steps, "acc"), validation(steps, "format")
    trained = [row for row in steps if "ekipl/groups/count" in row]
    shares = [row["ekipl/expert_share"] for row in trained]
    silent = [row["ekipl/groups/zero_variance"] for row in trained]
    return {
        "run_dir": str(files.root),
        "steps": trained[-1]["step"] if trained else 0,
        "accuracy_before": accuracy[0][1] if accuracy else None,
        "accuracy_after": accuracy[-1][1] if accuracy else None,
        "format_before": formats[0][1] if formats else None,
        "format_after": formats[-1][1] if formats else None,
        "expert_share_first": round(shares[0], 4) if shares else None,
        "expert_share_last": round(shares[-1], 4) if shares else None,
        "zero_variance": round(sum(silent) / len(silent), 4) if silent else None,
        "seconds": round(sum(row.get("timing_s/step", 0.0) for row in trained), 1),
        "peak_memory_gib": files.peak_memory(),
    }
