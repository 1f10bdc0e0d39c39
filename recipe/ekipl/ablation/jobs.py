"""Cells side by side, each trained by a command of its own with its share of the cores.

Each has a Ray, ports and a folder of its own (config/ekipl_tiny.yaml: `address: local`); what they share is made under a lock
(runner.py), and each appends its line to the results file in one write (results.py).
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from recipe.ekipl.ablation.cells import Cell

LOOK_S = 0.5
ENDING_S = 150.0  # a training that is told to stop closes requests, Ray and vLLM


def command(cell: Cell, out: Path, results: Path) -> list[str]:
    """The command line that trains this cell and no other."""
    words = ["run", "--regimes", cell.regime, "--variants", cell.variant, "--seeds", str(cell.seed)]
    words += ["--steps", str(cell.steps), "--lr", str(cell.lr), "--out", str(out), "--results", str(results)]
    return [sys.executable, "-m", "recipe.ekipl.ablation", *words, *(["--look"] if cell.look else [])]


def start(cell: Cell, args: argparse.Namespace) -> subprocess.Popen:
    """In a session of its own, so that a Ctrl-C comes to it once, from us."""
    threads = max(1, len(os.sched_getaffinity(0)) // args.jobs)
    folder = args.out / cell.id
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "cell.out", "ab") as log:
        return subprocess.Popen(
            command(cell, args.out, args.results),
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def side_by_side(
    cells: Sequence[Cell], jobs: int, start: Callable[[Cell], subprocess.Popen]
) -> Iterator[tuple[Cell, int]]:
    """(cell, exit status) as they end, `jobs` at a time. Whoever stops listening ends those that are running."""
    waiting = list(cells)
    running: dict[subprocess.Popen, Cell] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                cell = waiting.pop(0)
                running[start(cell)] = cell
            for process in [process for process in running if process.poll() is not None]:
                yield running.pop(process), process.returncode
            time.sleep(LOOK_S)
    finally:
        end(list(running))


def end(processes: Sequence[subprocess.Popen]) -> None:
    """Ctrl-C to each and to what it has started, patience, and SIGKILL."""
    for number in (signal.SIGINT, signal.SIGKILL):
        for process in processes:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
        deadline = time.monotonic() + ENDING_S
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(deadline - time.monotonic(), 0.1))
