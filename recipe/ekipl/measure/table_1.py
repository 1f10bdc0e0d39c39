"""Table 1 of the paper, with its numbers beside ours.

    python -m recipe.ekipl.measure.table_1 zero_shot=runs/evaluations/base-greedy ekipl=runs/ekipl/evaluations/step-50-greedy --out tables
    python -m recipe.ekipl.measure.table_1                # the paper's table alone

Each argument is an evaluation folder, or one that holds several, with the method's name before it where the evaluation was
not given one. Several of one method are training seeds: they are averaged, and the interval resamples seeds and rows.
Writes table_1.md, table_1.csv and table_1.tex to --out, and prints one of them.
"""

import argparse
import sys
from pathlib import Path

from ekipl_rollout.errors import EkiplError
from recipe.ekipl.measure.results import by_label, find_results
from recipe.ekipl.measure.table_rows import LABELS, our_row, parts_of
from recipe.ekipl.measure.table_text import WRITERS


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "evaluations",
        nargs="*",
        metavar="[method=]folder",
        help=f"methods of the paper: {', '.join(LABELS)}; any other name gets a row of its own",
    )
    parser.add_argument(
        "--paper", choices=("2B", "7B"), default="2B", help="whose numbers stand beside ours (default: %(default)s)"
    )
    parser.add_argument("--rules", default="paper", help="paper (default), released or released-enhanced")
    parser.add_argument("--out", type=Path, help="folder for table_1.md, table_1.csv and table_1.tex")
    parser.add_argument("--format", choices=list(WRITERS), default="md", help="what is printed (default: %(default)s)")
    args = parser.parse_args(argv)
    try:
        groups = by_label(find_results(args.evaluations, args.rules))
        parts = parts_of([our_row(method, results) for method, results in groups.items()], args.paper)
    except EkiplError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        for ending, write in WRITERS.items():
            (args.out / f"table_1.{ending}").write_text(write(parts), encoding="utf-8")
    print(WRITERS[args.format](parts), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
