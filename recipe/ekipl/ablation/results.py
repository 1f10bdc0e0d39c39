"""The results file: one JSON line a finished run, small enough to commit. A torn last line is passed over."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from recipe.ekipl.ablation.cells import Cell
from recipe.ekipl.measure.summary import validation

CURVES = {
    "zero_variance": "ekipl/groups/zero_variance",
    "silent": "ekipl/groups/silent",
    "expert_share": "ekipl/expert_share",
    "ess_share": "ekipl/weights/ess_share",
    "entropy": "actor/entropy",
    "skipped": "ekipl/update/skipped",
}


@dataclass
class Line:
    """What is kept of a run."""

    id: str
    regime: str
    variant: str
    seed: int
    steps: int
    lr: float
    rows: int
    """Held-out rows a data source."""

    seconds: float
    """Training time, start-up and validation apart."""

    startup_s: float
    """Everything else of the wall clock."""

    accuracy: list[dict[str, Any]] = field(default_factory=list)
    """{step, dollars, <data source>: share of rows right (greedy)} of each validation; dollars spent until then."""

    format: list[dict[str, Any]] = field(default_factory=list)
    curves: dict[str, list[float | None]] = field(default_factory=dict)
    """Means over the steps between two validations."""


def make_line(cell: Cell, steps: list[dict[str, Any]], rows: int, wall_s: float) -> Line:
    """From the metrics of a run's steps (run_files.py)."""
    seconds = sum(row.get("timing_s/step", 0.0) for row in steps)
    accuracy, formats = validation(steps, "acc"), validation(steps, "format")
    looks = [step for step, _ in accuracy]
    return Line(
        cell.name,
        cell.regime,
        cell.variant,
        cell.seed,
        cell.steps,
        cell.lr,
        rows,
        round(seconds, 1),
        round(max(wall_s - seconds, 0.0), 1),
        [{"step": step, "dollars": _dollars(steps, step), **_rounded(values)} for step, values in accuracy],
        [{"step": step, **_rounded(values)} for step, values in formats],
        {name: _between(steps, looks, metric) for name, metric in CURVES.items()},
    )


def _dollars(steps: list[dict[str, Any]], until: int) -> float:
    return round(sum(row.get("ekipl/dollars", 0.0) for row in steps if row["step"] <= until), 6)


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}


def _between(steps: list[dict[str, Any]], looks: Sequence[int], metric: str) -> list[float | None]:
    means: list[float | None] = []
    for first, last in zip(looks, looks[1:], strict=False):
        values = [row[metric] for row in steps if first < row["step"] <= last and metric in row]
        means.append(round(sum(values) / len(values), 4) if values else None)
    return means


def read_lines(path: Path) -> dict[str, Line]:
    """id -> line; the last one of an id counts."""
    found = {}
    for text in path.read_text().splitlines() if path.exists() else []:
        try:
            line = Line(**json.loads(text))
        except (json.JSONDecodeError, TypeError):
            continue
        found[line.id] = line
    return found


def append_line(path: Path, line: Line) -> None:
    """In one write at the end of the file, whoever else appends; on a line of its own whatever a killed run left behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torn = path.exists() and path.read_bytes()[-1:] not in (b"", b"\n")
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(file, ("\n" * torn + json.dumps(asdict(line)) + "\n").encode())
    finally:
        os.close(file)
