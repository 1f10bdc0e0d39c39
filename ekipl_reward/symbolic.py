"""Are two mathematical texts equal? math-verify (sympy), inside bounds that cannot hang.

math-verify stops itself with SIGALRM, which works on the main thread only and silently changes results elsewhere; sympy
can take seconds and gigabytes for "9^9^9^9". So it runs in one helper process of ours with a limit on time and memory,
the same from a thread, a process or a Ray worker. Texts beyond the static bounds are unequal without asking.
"""

import atexit
import json
import os
import re
import select
import subprocess
import sys
import threading
from functools import lru_cache

MAX_CHARS = 1000  # of each text; the last ones, where an answer stands
MAX_EXPONENT = 999
SECONDS = 5.0  # for one comparison; a usual one takes a millisecond
START_SECONDS = 60.0  # for importing sympy once

_POWER = re.compile(r"(?:\^|\*\*)\s{0,8}\{?\(?\s{0,8}([\w.+-]{0,12})")
_TOWER = re.compile(r"[\w)}]\s{0,4}(?:\^|\*\*)\s{0,4}[{(]?\s{0,4}[\w.]{1,12}\s{0,4}[})]?\s{0,4}(?:\^|\*\*)")
_ENDLESS = re.compile(r"\d{101}")


def admissible(text: str) -> bool:
    """False for texts whose size alone could cost too much: towers of powers, huge exponents, endless digits."""
    powers = [match.group(1) for match in _POWER.finditer(text)]
    if len(powers) > 8 or any(p.lstrip("+-").isdigit() and int(p) > MAX_EXPONENT for p in powers):
        return False
    return not (_TOWER.search(text) or "!!" in text or _ENDLESS.search(text))


@lru_cache(maxsize=4096)
def equal(prediction: str, truth: str, truth_first: bool = True) -> bool:
    """True when math-verify finds the two equal. `truth_first=False` is the argument order of Reason-RFT's rewards."""
    prediction, truth = prediction[-MAX_CHARS:], truth[-MAX_CHARS:]
    if not (admissible(prediction) and admissible(truth)):
        return False
    return _helper.ask(truth, prediction) if truth_first else _helper.ask(prediction, truth)


class _Helper:
    """The process that owns sympy. Started at the first question, again after a question that took too long."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen | None = None
        self._owner = 0

    def ask(self, gold: str, target: str) -> bool:
        with self._lock:
            try:
                process = self._running()
                process.stdin.write(json.dumps([gold, target]).encode("ascii") + b"\n")
                process.stdin.flush()
                return self._line(process, SECONDS) == b"1"
            except (OSError, ValueError):  # it died: of memory, or with this process
                self._end()
                return False

    def _running(self) -> subprocess.Popen:
        if self._process is None or self._process.poll() is not None or self._owner != os.getpid():
            command = [sys.executable, "-m", "ekipl_reward.symbolic_helper"]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self._owner = os.getpid()
            if self._line(self._process, START_SECONDS) != b"ready":
                raise OSError("the helper did not start; is math-verify installed?")
        return self._process

    def _line(self, process: subprocess.Popen, seconds: float) -> bytes:
        """One line of the helper. A helper that is late is ended."""
        ready, _, _ = select.select([process.stdout], [], [], seconds)
        if not ready:
            self._end()
            return b""
        return process.stdout.readline().strip()

    def _end(self) -> None:
        if self._process is not None and self._owner == os.getpid():
            self._process.kill()
            self._process.wait()
        self._process = None


_helper = _Helper()
atexit.register(_helper._end)
os.register_at_fork(after_in_child=_helper.__init__)
