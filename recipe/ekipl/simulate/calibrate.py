"""The model's assumptions from measured steps, and how far its answers are from other measured steps.

From a benchmark's folder: ends of groups and the rest of a step come from the arm with recorded experts, where nothing
is waited for; latencies from the arm that is predicted. What is predicted, the length of a step and the exposed wait of
that arm, is in none of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from ekipl_rollout.errors import SettingsError
from recipe.ekipl.benchmark.arms import ARMS
from recipe.ekipl.benchmark.table import complete_blocks, read_steps
from recipe.ekipl.run_files import RunFiles
from recipe.ekipl.simulate.model import simulate
from recipe.ekipl.simulate.world import World

REPEATS = 20  # simulated steps that a prediction is the median of


@dataclass(frozen=True)
class Check:
    """A prediction beside what was measured; medians over steps."""

    arm: str
    predicted_s: float
    measured_s: float
    predicted_exposed_s: float
    measured_exposed_s: float

    @property
    def error(self) -> float:
        """Of the step's length, as a share."""
        return abs(self.predicted_s - self.measured_s) / self.measured_s


def from_benchmark(folder: Path) -> tuple[World, list[Check]]:
    """The measured world of a benchmark, and the model's error on its live arms."""
    blocks = complete_blocks(read_steps(folder))
    if not blocks:
        raise SettingsError(f"{folder} holds no finished block. Run python -m recipe.ekipl.benchmark first.")
    arms = {arm.name: [row for block in blocks for row in block if row["arm"] == arm.name] for arm in ARMS}
    quiet = arms["recorded"]
    world = World(
        prompts=len(quiet[0]["groups"]),
        rollouts=tuple(tuple(group["policy_s"] for group in row["groups"]) for row in quiet),
        rest_s=median(row["timing_s/step"] - max(group["policy_s"] for group in row["groups"]) for row in quiet),
        timeout_s=600.0,
        max_in_flight=256,
    )
    return world, [_check(world, name, arms[name]) for name in ("fast", "slow")]


def _check(world: World, name: str, rows: Sequence[Mapping[str, Any]]) -> Check:
    latencies = tuple(group["expert_s"] for row in rows for group in row["groups"])
    # the slowest of a group's experts was measured, so one expert stands for all of them
    steps = simulate(replace(world, experts=1, latencies=latencies), REPEATS)
    return Check(
        name,
        median(step.seconds for step in steps),
        median(row["timing_s/step"] for row in rows),
        median(step.exposed_s for step in steps),
        median(max(group["exposed_s"] for group in row["groups"]) for row in rows),
    )


def from_run(run_dir: Path, world: World) -> World:
    """`world` with the rollout, the rest of a step and the latency of a run's metrics.jsonl."""
    rows = [row for row in RunFiles(run_dir).steps() if "ekipl/groups/count" in row]
    if not rows:
        raise SettingsError(f"{run_dir} holds no trained step.")
    waits = [row.get("ekipl/wait/exposed_longest_s", 0.0) for row in rows]
    rollout = median(row["timing_s/gen"] - wait for row, wait in zip(rows, waits, strict=True))
    changed: dict[str, Any] = {
        "rollout_s": rollout,
        "rest_s": median(row["timing_s/step"] - row["timing_s/gen"] for row in rows),
    }
    for name, key in (("latency_s", "latency_p50_s"), ("latency_p95_s", "latency_p95_s")):
        values = [value for row in rows for metric, value in row.items() if metric.endswith(f"/{key}")]
        if values:
            changed[name] = median(values)
    return replace(world, **changed)
