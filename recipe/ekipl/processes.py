"""One driver a run folder, and no process of a run left behind.

vLLM's engine is a grandchild of Ray: when a driver is stopped hard, Ray's processes go with it and vLLM's stay, with a
core and gigabytes. Every process of a run carries the run's folder in its environment and can be found by it.
"""

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from ekipl_rollout.errors import SettingsError

MARK = "EKIPL_RUN_DIR"
GRACE_SECONDS = 5.0


@contextlib.contextmanager
def alone_in(folder: Path, otherwise: str) -> Iterator[None]:
    """Holds `folder`. Raises SettingsError, which says `otherwise`, when another live process does."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SettingsError(otherwise) from None
        yield


@contextlib.contextmanager
def only_driver(run_dir: Path) -> Iterator[None]:
    """Holds the run folder. Raises SettingsError when another live process does."""
    busy = f"another process is training in {run_dir}. Wait for it, or choose another ekipl.run_dir."
    with alone_in(run_dir, busy):
        end_processes(run_dir)  # of a driver that was killed
        try:
            yield
        finally:
            end_processes(run_dir)


def processes_of(run_dir: Path) -> list[int]:
    """Processes of this user that were started for the run, this one apart."""
    mark = f"{MARK}={run_dir}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):  # gone, or somebody else's
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


def memory_gib(run_dir: Path) -> float:
    """Memory of all processes of the run and of this one, shared pages counted once (proportional set size)."""
    total = 0
    for pid in [os.getpid(), *processes_of(run_dir)]:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
    return total / 1024**2


def resident_gib(run_dir: Path) -> float:
    """Likewise, but shared pages count in every process that has them: quick, and grows when that grows."""
    pages = 0
    for pid in [os.getpid(), *processes_of(run_dir)]:
        with contextlib.suppress(OSError):
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024**3


def end_processes(run_dir: Path) -> None:
    """SIGTERM, some patience, SIGKILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        alive = processes_of(run_dir)
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + GRACE_SECONDS
        while alive and processes_of(run_dir) and time.monotonic() < deadline:
            time.sleep(0.1)
