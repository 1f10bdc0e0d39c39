"""Look at runs and evaluations in a browser, also while a run is still writing.

    python -m recipe.ekipl.view runs                                   # every run and evaluation below runs/
    python -m recipe.ekipl.view runs/ekipl runs/grpo --port 0      # these two, on any free port
    python -m recipe.ekipl.view runs/ekipl --export tiny.html           # one file that needs no server

The server listens on this machine only; from elsewhere: ssh -L 8642:127.0.0.1:8642 <machine>. Pictures come from the
parquet files that a run was trained on; --data says where others lie.
"""

import argparse
import errno
import sys
from pathlib import Path

from ekipl_rollout.errors import EkiplError
from recipe.ekipl.view.answers import Answers

PORT = 8642


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m recipe.ekipl.view", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", help="runs, folders of runs, evaluations")
    parser.add_argument("--data", type=Path, help="folder with the parquet files of rows that no run names")
    parser.add_argument("--port", type=int, default=PORT, help="default %(default)s; 0: any free one")
    parser.add_argument("--export", type=Path, metavar="FILE", help="write one HTML file instead of serving")
    parser.add_argument("--groups", type=int, default=400, help="--export: groups of each run, whole steps evenly spread (default %(default)s)")  # fmt: skip
    parser.add_argument("--rows", type=int, default=100, help="--export: rows of each two evaluations and split, different ones first (default %(default)s)")  # fmt: skip
    args = parser.parse_args(argv)
    try:
        answers = Answers(args.folders, args.data)
        if args.export:
            from recipe.ekipl.view.export import write_export

            print(write_export(answers, args.export, args.groups, args.rows))
            return 0
        from recipe.ekipl.view.server import serve

        serve(answers, args.port)
    except EkiplError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        print(f"error: --port {args.port} is in use on this machine. --port 0 takes any free one.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
