"""A server of this folder beside a program: started, waited for, and ended with it."""

import contextlib
import ctypes
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ekipl_rollout.errors import EkiplError

PR_SET_PDEATHSIG = 1
READY_SECONDS = 600.0  # a vLLM server takes a minute on an idle machine


class ServerError(EkiplError):
    """A server ended, or was silent for too long, before it could be asked; the message holds the end of its log."""


def end_with_parent() -> None:
    """SIGTERM for this process when the one that started it is gone, killed or not (Linux; elsewhere nothing)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@contextlib.contextmanager
def serving(
    module: str, *options: str, ready: Path, log: Path, check: Callable[[], None] = lambda: None
) -> Iterator[str]:
    """The address of `python -m module`, which writes it into `ready` when it listens. `check` is called while it is waited
    for, and may raise. Raises ServerError."""
    ready.unlink(missing_ok=True)
    with open(log, "ab") as file:
        command = [sys.executable, "-m", module, *options, "--ready", str(ready), "--end-with-parent"]
        server = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        deadline = time.monotonic() + READY_SECONDS
        while not (ready.exists() and ready.read_text()):
            if server.poll() is not None or time.monotonic() > deadline:
                tail = log.read_text(errors="replace")[-1000:]
                raise ServerError(f"{module} was not ready; the end of {log}:\n{tail}")
            check()
            time.sleep(0.2)
        yield ready.read_text()
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
