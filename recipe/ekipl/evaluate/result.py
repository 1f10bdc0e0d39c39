"""Scores -> the numbers of an evaluation: means with intervals, pass@k, and the file that tables and figures read."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from recipe.ekipl.evaluate.judge import RowScores
from recipe.ekipl.measure.statistics import estimate, estimate_pass_at_k

SOLVED = 1.0 - 1e-9
"""A score from which on an answer counts as right for pass@k: partial credit does not."""


def summarize_split(rows: Sequence[RowScores], answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Numbers of one split. `accuracy` is the mean over rows of their samples' mean; its interval resamples rows."""
    scores = np.array([row.scores for row in rows])  # [R, n]
    count, samples = scores.shape
    right = (scores >= SOLVED).sum(axis=1)
    sizes = range(1, samples + 1)
    curve = estimate_pass_at_k(samples, right, sizes) if samples > 1 else []
    statuses = [answer["status"] for answer in answers]
    summary = {
        "rows": count,
        "samples": samples,
        "accuracy": asdict(estimate(scores.mean(axis=1))),
        "solved": float((scores >= SOLVED).mean()),
        "format": float(np.mean([row.formats for row in rows])),
        "tokens": float(np.mean([answer["tokens"] for answer in answers])),
        "statuses": {status: statuses.count(status) / len(statuses) for status in sorted(set(statuses))},
        "pass_at_k": {str(k): asdict(point) for k, point in zip(sizes, curve, strict=False)},
    }
    if any("dollars" in answer for answer in answers):
        summary["dollars"] = float(sum(answer.get("dollars", 0.0) for answer in answers))
    return summary


def write_result(
    path: Path, head: Mapping[str, Any], splits: Mapping[str, Mapping[str, Any]], incomplete: Sequence[str] = ()
) -> dict[str, Any]:
    """`head`: who was evaluated, and how. Splits of earlier calls stay: the folder holds one model, asked in one way.

    No time stamps: the same evaluation writes the same bytes.
    """
    before = json.loads(path.read_text())["splits"] if path.exists() else {}
    merged = {name: split for name, split in {**before, **splits}.items() if name not in incomplete}
    result = {**head, "splits": {name: merged[name] for name in sorted(merged)}}
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(result, indent=1) + "\n")
    partial.replace(path)
    return result


def render(result: Mapping[str, Any]) -> str:
    """A table for people: accuracy in per cent with its 95 % interval."""
    lines = [f"{'split':<16} {'rows':>6} {'n':>4} {'accuracy':>9} {'95 %':>15} {'format':>7}  pass@k"]
    for name, split in result["splits"].items():
        mean, low, high = (100 * split["accuracy"][k] for k in ("mean", "low", "high"))
        powers = [k for k in (1, 2, 4, 8, 16, 32, 64, 128, 256) if str(k) in split["pass_at_k"]]
        curve = "  ".join(f"{k}: {100 * split['pass_at_k'][str(k)]['mean']:.1f}" for k in powers) or "-"
        interval = f"{low:.1f} .. {high:.1f}"
        lines.append(
            f"{name:<16} {split['rows']:>6} {split['samples']:>4} {mean:>9.2f} {interval:>15} "
            f"{100 * split['format']:>7.1f}  {curve}"
        )
    return "\n".join(lines)
