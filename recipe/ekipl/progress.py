"""What a person sees while a run trains: one bar instead of the logs of ten processes."""

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from recipe.ekipl.measure.summary import validation
from recipe.ekipl.processes import memory_gib, resident_gib
from recipe.ekipl.run_files import RunFiles

LOOK_SECONDS = 0.5
MEMORY_SECONDS = 10.0  # between two looks at the memory of all processes
LOG_SECONDS = 20.0  # between two lines when the output is no terminal


@contextlib.contextmanager
def quiet(log: Path, verbose: bool) -> Iterator[None]:
    """Sends everything that is printed, by child processes too, to `log`; `Progress` writes to the real terminal."""
    if verbose:
        yield
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    Progress.terminal = os.fdopen(os.dup(saved[1]), "w", buffering=1)
    try:
        os.dup2(file, 1)
        os.dup2(file, 2)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(saved[0], 1)
        os.dup2(saved[1], 2)
        for descriptor in (*saved, file):
            os.close(descriptor)
        Progress.terminal = sys.stderr


class Progress:
    """Follows verl's file logger in a thread, draws step, ETA, accuracy, expert share and money (`shown`), and weighs the
    processes."""

    terminal: Any = sys.stderr

    def __init__(self, files: RunFiles, attempt: Path, start: int, total: int, shown: bool = True):
        self._files, self._attempt, self._start, self._total = files, attempt, start, total
        self._shown = shown
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._dollars, self._resident = 0.0, 0.0

    def __enter__(self) -> "Progress":
        self._bar = self._new_bar("starting verl, Ray and vLLM (about a minute)")
        self._training = False
        self._thread.start()
        return self

    def _new_bar(self, description: str) -> tqdm:
        return tqdm(
            initial=self._start,
            total=self._total,
            desc=description,
            file=self.terminal,
            mininterval=LOOK_SECONDS if self.terminal.isatty() else LOG_SECONDS,
            dynamic_ncols=True,
            disable=not self._shown,
        )

    def __exit__(self, *_: Any) -> None:
        self._done.set()
        self._thread.join(timeout=5)
        self._bar.close()

    def _follow(self) -> None:
        with open(self._attempt, encoding="utf-8") as file:
            rest, weighed = "", 0.0
            while True:
                if time.monotonic() - weighed > MEMORY_SECONDS:
                    weighed = time.monotonic()
                    self._weigh()
                finished = self._done.is_set()
                rest += file.read()
                *lines, rest = rest.split("\n")
                for line in lines:
                    self._show(json.loads(line))
                if self.terminal.isatty():
                    self._bar.refresh()
                if finished:
                    return
                self._done.wait(LOOK_SECONDS)

    def _weigh(self) -> None:
        """Notes the memory of all processes when it may have grown: to count shared pages once holds every process up."""
        resident = resident_gib(self._files.root)
        if resident > self._resident:
            self._resident = resident
            self._files.note_memory(memory_gib(self._files.root))

    def _show(self, row: dict[str, Any]) -> None:
        data = row["data"]
        for _, accuracy in validation([{**data, "step": row["step"]}], "acc"):
            scores = ", ".join(f"{name} {value:.3f}" for name, value in accuracy.items())
            self._bar.write(f"  step {row['step']}: held-out accuracy {scores}", file=self.terminal)
        if "ekipl/groups/count" not in data:
            return
        # the ledger's count where there is one: it knows of late answers, failed requests and earlier attempts
        self._dollars = data.get("ekipl/budget/spent", self._dollars + data.get("ekipl/dollars", 0.0))
        shown = {
            "acc": f"{data.get('ekipl/policy/accuracy', 0.0):.2f}",
            "experts": f"{data.get('ekipl/expert_share', 0.0):.0%}",
            "silent": f"{data.get('ekipl/groups/silent', 0.0):.0%}",
        }
        if self._dollars:
            left = data.get("ekipl/budget/left")
            shown["paid"] = f"${self._dollars:.2f}" + ("" if left is None else f" (${left:.2f} left)")
        if data.get("ekipl/experts_resting"):
            shown["resting"] = f"{data['ekipl/experts_resting']:.0f}"
        if not self._training:  # a fresh bar, so that the remaining time is not guessed from the start-up
            self._bar.close()
            self._bar, self._training = self._new_bar("training"), True
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(row["step"] - self._bar.n)
