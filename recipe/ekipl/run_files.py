"""The folder of a run, and how it survives kills and resumes.

runs/<name>/
├── config.yaml        the resolved config of the newest attempt
├── plan.json
├── attempts/          what verl's file logger wrote: <number>-from-<step>.jsonl, one file a start
├── metrics.jsonl      a line a step, made from the attempts: what a killed attempt did beyond its last checkpoint is left out
├── groups/            every group's answers, compressed
├── checkpoints/       verl's
├── records.sqlite     expert answers
├── ledger.sqlite      what they have cost, over all attempts
├── tensorboard/
├── train.log          everything verl, vLLM and Ray print
└── report.html
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from ekipl_rollout.group_files import forget_after

TRACKER = "latest_checkpointed_iteration.txt"
"""verl's, in the folder of checkpoints."""
DOLLARS = "ekipl/dollars"


class RunFiles:
    """Paths and the merged metrics of one run."""

    def __init__(self, run_dir: str | Path):
        self.root = Path(run_dir)
        self.metrics, self.log, self.report = (
            self.root / "metrics.jsonl",
            self.root / "train.log",
            self.root / "report.html",
        )
        self.attempts, self._peak = self.root / "attempts", self.root / "peak_memory_gib"

    def last_checkpoint(self) -> int:
        """Step of the newest complete checkpoint, 0 without one.

        verl writes the tracker last and not at once: a kill in that instant leaves it empty, and verl cannot read it any
        more. All checkpoints are whole then, so the newest one is written into it.
        """
        tracker = self.root / "checkpoints" / TRACKER
        if not tracker.exists():
            return 0
        if not tracker.read_text():
            tracker.write_text(str(max(self.checkpoints())))
        return int(tracker.read_text())

    def start_attempt(self) -> tuple[Path, int]:
        """(file for verl's file logger, step it goes on from). Forgets what is about to be done again."""
        start = self._logged_checkpoint()
        self.attempts.mkdir(parents=True, exist_ok=True)
        forget_after(self.root, start)
        path = self.attempts / f"{len(list(self.attempts.glob('*.jsonl'))) + 1:04d}-from-{start:06d}.jsonl"
        path.touch()
        self.write_metrics()
        return path, start

    def _logged_checkpoint(self) -> int:
        """The last checkpoint; the one before it where a stop came between checkpoint and log: verl validates in between,
        and that step's metrics would be missing for good."""
        start, logged = self.last_checkpoint(), {row["step"] for row in self.steps()}
        earlier = [step for step in self.checkpoints() if step < start and step in logged]
        if start in logged or not earlier:
            return start
        (self.root / "checkpoints" / TRACKER).write_text(str(max(earlier)))
        return max(earlier)

    def checkpoints(self) -> list[int]:
        """Steps of the checkpoints that are there, in order; the last one may not be whole yet (`last_checkpoint`).

        Of one that it no longer keeps, verl leaves the data loader's state (verl/utils/checkpoint/checkpoint_manager.py).
        """
        folders = (self.root / "checkpoints").glob("global_step_*")
        there = [path for path in folders if any(child.name != "data.pt" for child in path.iterdir())]
        return sorted(int(path.name.removeprefix("global_step_")) for path in there)

    def steps(self) -> list[dict[str, Any]]:
        """Metrics of every step that counts, in order; `step` among them. Step 0 holds the validation before training.

        What a step that was done again had cost stays with it: the second time its answers come from the records.
        """
        merged: dict[int, dict[str, Any]] = {}
        paid: Counter[int] = Counter()
        for path in sorted(self.attempts.glob("*.jsonl")):
            start = int(path.stem.split("-from-")[1])
            paid.update({step: row.get(DOLLARS, 0.0) for step, row in merged.items() if step > start})
            merged = {step: row for step, row in merged.items() if step <= start}
            for line in path.read_text().splitlines():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError:  # the torn last line of a killed attempt
                    continue
                merged[row["step"]] = {**merged.get(row["step"], {}), "step": row["step"], **row["data"]}
        for row in merged.values():
            if DOLLARS in row:
                row[DOLLARS] += paid[row["step"]]
        return [merged[step] for step in sorted(merged)]

    def note_memory(self, gib: float) -> None:
        """Keeps the largest value."""
        if gib > self.peak_memory():
            self._peak.write_text(f"{gib:.2f}")

    def peak_memory(self) -> float:
        return float(self._peak.read_text() or 0.0) if self._peak.exists() else 0.0

    def write_metrics(self) -> list[dict[str, Any]]:
        """metrics.jsonl from the attempts; returns the steps."""
        steps = self.steps()
        partial = self.metrics.with_suffix(".partial")
        partial.write_text("".join(json.dumps(row) + "\n" for row in steps))
        partial.replace(self.metrics)
        return steps
