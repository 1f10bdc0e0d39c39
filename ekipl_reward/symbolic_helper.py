"""The helper process of symbolic.py: a JSON pair a line in, 1 or 0 a line out. Limited in memory; killed when late."""

import contextlib
import json
import logging
import resource
import sys

MEMORY_BYTES = 2 * 1024**3


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)
    out = sys.stdout
    print("ready", file=out, flush=True)
    with contextlib.redirect_stdout(sys.stderr):
        for line in sys.stdin:
            gold, target = json.loads(line)
            try:
                # timeouts off: they need SIGALRM and the main thread; the asking process has its own
                parsed = [parse(text, parsing_timeout=None) for text in (gold, target)]
                same = verify(*parsed, timeout_seconds=None)
            except (
                Exception,
                RecursionError,
                MemoryError,
            ):  # sympy raises all kinds on odd input; all mean "not equal"
                same = False
            print(int(bool(same)), file=out, flush=True)


if __name__ == "__main__":
    main()
