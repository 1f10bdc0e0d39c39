"""The helper process of symbolic.py: one JSON request a line in, one JSON reply a line out.

Requests: ["verify", prediction, truth] as Reason-RFT compares, or ["compare", answer, truth] for our own rules. A request
has a limit of CPU time, not of wall time, so that the verdict does not depend on what else the machine does: an exception
after CPU_SECONDS, and the end of this process by the kernel a little later, should one long C call not let it through.
"""

import contextlib
import json
import logging
import math
import resource
import signal
import sys
from collections.abc import Iterator
from typing import Any

MEMORY_BYTES = 2 * 1024**3
CPU_SECONDS = 2.0  # for one request; a usual one takes 1 to 20 ms
GAVE_UP = {"gave_up": True}


class TooLong(BaseException):
    """Not an Exception: sympy and math-verify catch those."""


@contextlib.contextmanager
def cpu_limit(seconds: float) -> Iterator[None]:
    """Raises TooLong when the block has used `seconds` of CPU time; again a moment later, should it be swallowed."""
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used + seconds + 1), hard))
    signal.setitimer(signal.ITIMER_PROF, seconds, 0.25)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _too_long(*_: object) -> None:
    raise TooLong


def verify_like_reason_rft(prediction: str, truth: str) -> dict:
    """verify(parse(prediction), parse(truth)): in this order, with math-verify's default extraction."""
    from math_verify import parse, verify

    # timeouts off: they need SIGALRM; ours is on
    parsed = [parse(text, parsing_timeout=None, raise_on_error=True) for text in (prediction, truth)]
    return {"equal": bool(verify(*parsed, timeout_seconds=None))}


def compare_expressions(answer: str, truth: str) -> dict:
    """Two LaTeX expressions, each read as a whole: equality, and their values where they are real numbers."""
    from math_verify import LatexExtractionConfig, parse, verify

    read = [
        parse(f"${text}$", [LatexExtractionConfig()], fallback_mode="no_fallback", parsing_timeout=None)
        for text in (answer, truth)
    ]
    if not all(read):
        return {"equal": False}
    return {
        "equal": bool(verify(read[1], read[0], timeout_seconds=None)),
        "answer_value": _value(read[0][0]),
        "truth_value": _value(read[1][0]),
    }


def _value(expression: Any) -> float | None:
    """The real number behind `expression`, or behind the right side of an equation; None when there is none."""
    from sympy import Eq

    if isinstance(expression, Eq):
        expression = expression.rhs
    try:
        value = complex(expression.evalf(15))
    except Exception:  # symbols, sets, matrices: no number
        return None
    return value.real if value.imag == 0 and math.isfinite(value.real) else None


REQUESTS = {"verify": verify_like_reason_rft, "compare": compare_expressions}


def answer(line: str) -> dict:
    kind, first, second = json.loads(line)
    try:
        with cpu_limit(CPU_SECONDS):
            return REQUESTS[kind](first, second)
    except (TooLong, MemoryError, RecursionError):
        return GAVE_UP
    except Exception:  # sympy raises all kinds on odd input; all mean that the two are not known to be equal
        return {"failed": True}


def main() -> None:
    with contextlib.suppress(ValueError, OSError):  # macOS has no such limit; a lower one may be set already
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    signal.signal(signal.SIGPROF, _too_long)
    logging.disable(logging.CRITICAL)
    import math_verify  # noqa: F401  a second of sympy, before the first question

    out = sys.stdout
    print(json.dumps({"ready": True}), file=out, flush=True)
    with contextlib.redirect_stdout(sys.stderr):
        for line in sys.stdin:
            try:
                reply = answer(line)
            except TooLong:  # it came in just after the limit was lifted
                reply = GAVE_UP
            print(json.dumps(reply), file=out, flush=True)
