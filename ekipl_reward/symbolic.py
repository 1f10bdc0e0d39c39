"""Are two mathematical texts equal? math-verify (sympy), inside bounds that cannot hang.

math-verify stops itself with SIGALRM, which works on the main thread only and silently changes results elsewhere; sympy
can take seconds and gigabytes for "9^9^9^9". So it runs in one helper process of ours with a limit on CPU time and memory,
the same from a thread, a process or a Ray worker. Texts beyond the static bounds are not asked about.
"""

import atexit
import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from ekipl_reward.errors import HelperError

MAX_EXPRESSION_CHARS = 256
"""Of an expression under our own rules: longer is no answer to a question about a diagram."""

MAX_TEXT_CHARS = 20_000
"""Of a whole response that Reason-RFT's fallback looks through: five times what its evaluation lets a model write."""

WALL_SECONDS = 60.0  # the helper limits its own CPU time to a few seconds; this is for a machine that gives it none
START_SECONDS = 120.0  # for importing sympy once, on a machine that is busy

# 9^9^9, 9**9**9, 9^{9^{9}}: a power of a power of numbers. `**` counts only without blanks: "so 4 **3** are" is bold.
_TOWER = re.compile(r"[\d)}!](?:\s?\^\s?|\*\*)[{(]{0,3}[\d.]{1,12}[})!]{0,3}(?:\s?\^\s?|\*\*)[{(]{0,3}\d")
_HUGE_POWER = re.compile(r"(?:\^\s?|[\w)}]\*\*)[{(]{0,3}\d{5}")
_HUGE_FACTORIAL = re.compile(r"\d{5}\s?!|!\s?\)?\s?!")
# math-verify would take the first half of `45 \approx 50` and `45 \text{ or 50}`, and the second of `50 = 45`.
_TWO_ANSWERS = re.compile(r"\\(?:text|mathrm|mbox)\s?\{[^}]*\d|\\(?:approx|sim|simeq|neq?)\b|\A[^A-Za-z\\]*=")
_SOMETHING_TO_READ = re.compile(r"[\d$\\\[]")
_WHOLE = re.compile(r"[1-9]\d{0,14}|0", re.ASCII)
_NUMERIC = re.compile(r"[\d\\π√]")
_TO_LATEX = (
    (re.compile(r"√\s?\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"√\s?(\w+)"), r"\\sqrt{\1}"),
    (re.compile(r"\^\s?\{?\\circ\}?|°|\\(?:(?:left|right)(?![a-z])|[,;!])"), ""),
)
_UNICODE = str.maketrans({"π": "\\pi ", "×": "\\times ", "·": "\\cdot ", "÷": "/", "−": "-", "²": "^2", "³": "^3"})


class Comparison(NamedTuple):
    """What is known of two expressions."""

    equal: bool = False
    answer_value: float | None = None
    """Value of the answer, where it is a finite real number."""

    truth_value: float | None = None
    gave_up: bool = False
    """Too large to compare, or it took too long."""

    failed: bool = False
    """math-verify raised an exception."""


def compare(answer: str, truth: str) -> Comparison:
    """Two expressions, each read as a whole: `2 or 3` is not 3 and `5` is not `5\\sqrt{2}`, as in math-verify's default."""
    if len(answer) > MAX_EXPRESSION_CHARS or len(truth) > MAX_EXPRESSION_CHARS:
        return Comparison(gave_up=True)
    if _TWO_ANSWERS.search(answer):
        return Comparison()
    return _asked("compare", as_latex(answer), as_latex(truth))


def verify(prediction: str, truth: str) -> Comparison:
    """Reason-RFT's `verify(parse(prediction), parse(truth))`: math-verify looks for expressions anywhere in both texts."""
    if not (_SOMETHING_TO_READ.search(prediction) and _SOMETHING_TO_READ.search(truth)):
        return Comparison()  # without digits, dollars, backslashes and brackets there is nothing that it extracts
    if _WHOLE.fullmatch(prediction) and _WHOLE.fullmatch(truth):
        return Comparison(equal=prediction == truth)
    if len(prediction) > MAX_TEXT_CHARS or len(truth) > MAX_TEXT_CHARS:
        return Comparison(gave_up=True)
    if len(prediction) > MAX_EXPRESSION_CHARS:  # whole responses hardly repeat and would fill the cache
        return _asked.__wrapped__("verify", prediction, truth)
    return _asked("verify", prediction, truth)


def looks_numeric(text: str) -> bool:
    """False for a text that cannot have a value: no digit, no LaTeX command, no π or root."""
    return _NUMERIC.search(text) is not None


def as_latex(text: str) -> str:
    """Unicode mathematics as LaTeX. Example: "12π" -> "12\\pi ", "2√3" -> "2\\sqrt{3}"."""
    for pattern, latex in _TO_LATEX:
        text = pattern.sub(latex, text)
    return text.translate(_UNICODE).replace("$", "")


def admissible(text: str) -> bool:
    """False for numbers whose size alone would use up the limits: towers of powers, exponents and factorials of five
    digits. The limits would catch them too, at the price of a new helper."""
    return not (_TOWER.search(text) or _HUGE_POWER.search(text) or _HUGE_FACTORIAL.search(text))


@lru_cache(maxsize=4096)
def _asked(kind: str, first: str, second: str) -> Comparison:
    if not (admissible(first) and admissible(second)):
        return Comparison(gave_up=True)
    return Comparison(**_helper.ask([kind, first, second]))


def installation_problem() -> str:
    """Why the helper could not work on this machine; "" when it can. For checks at start-up."""
    from importlib.util import find_spec

    return "" if find_spec("math_verify") else "math-verify is not installed. Install it: pip install 'math-verify<1'."


class _Helper:
    """The process that owns sympy. Started at the first question, again after one that had to be ended.

    One at a time per process: questions are few and short. A forked child starts its own; the helper ends by itself when
    its standard input closes, also when this process is killed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen | None = None

    def ask(self, request: list[str]) -> dict:
        """The reply. Raises HelperError when no helper can be started."""
        with self._lock:
            for _ in range(2):
                process = self._running()
                try:
                    _write(process, json.dumps(request).encode("ascii") + b"\n")
                    return _read(process, WALL_SECONDS)
                except TimeoutError:
                    self.end()
                    break
                except (OSError, ValueError):
                    if self.end() == -signal.SIGXCPU:  # its limit of CPU time: this question would do it again
                        break
            return {"gave_up": True}

    def _running(self) -> subprocess.Popen:
        if self._process is None or self._process.poll() is not None:
            self._process = _start()
            try:
                ready = _read(self._process, START_SECONDS)
            except (OSError, ValueError) as error:
                self.end()
                raise HelperError(f"the helper that compares expressions did not start: {error}") from error
            if ready != {"ready": True}:
                self.end()
                raise HelperError(f"the helper that compares expressions answered {ready!r} instead of starting")
        return self._process

    def end(self) -> int | None:
        """Returns how it ended, as subprocess does: a signal's number is negative."""
        process = self._process
        if process is None:
            return None
        process.kill()
        code = process.wait()
        self.forget()
        return code

    def forget(self) -> None:
        """Closes our ends of the pipes. All that a forked child may do to the helper of its parent."""
        if self._process is not None:
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None  # _start asks for both
                pipe.close()
            self._process.returncode = 0  # so that subprocess does not wait for it
        self._process = None

    def after_fork(self) -> None:
        self.forget()
        self._lock = threading.Lock()  # another thread of the parent may have held it


def _start() -> subprocess.Popen:
    """Same interpreter, same import path (a Ray worker's differs from its environment), no API keys, no Ctrl-C."""
    path = [str(Path(__file__).parents[1]), *sys.path]
    code = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); import ekipl_reward.symbolic_helper as h; h.main()"
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LD_LIBRARY_PATH") if name in os.environ}
    return subprocess.Popen(
        [sys.executable, "-I", "-c", code, json.dumps(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,  # nothing of ours may sit in a buffer that a fork copies
        env=environment,
        start_new_session=True,
    )


def _write(process: subprocess.Popen, data: bytes) -> None:
    assert process.stdin is not None  # _start asks for it
    view = memoryview(data)
    while view:
        view = view[process.stdin.write(view) :]


def _read(process: subprocess.Popen, seconds: float) -> dict:
    """One line. Raises TimeoutError when the helper is late, OSError when it is gone."""
    assert process.stdout is not None  # _start asks for it
    poll = select.poll()  # select() cannot watch descriptors from 1024 on, which a Ray worker can have
    poll.register(process.stdout, select.POLLIN)
    deadline, data = time.monotonic() + seconds, b""
    while not data.endswith(b"\n"):
        if not poll.poll(1000 * max(0.0, deadline - time.monotonic())):
            raise TimeoutError(f"no reply within {seconds:g} s")
        part = os.read(process.stdout.fileno(), 65536)
        if not part:
            raise OSError("it ended")
        data += part
    return json.loads(data)


_helper = _Helper()
atexit.register(_helper.end)
os.register_at_fork(after_in_child=_helper.after_fork)
