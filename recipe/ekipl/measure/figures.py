"""The paper's Figures 3, 4 and 5 and two of ours, as PNG and SVG, each with its numbers as CSV.

    python -m recipe.ekipl.measure.figures ekipl=runs/ekipl-0 ekipl=runs/ekipl-1 grpo=runs/grpo-0

Each argument is a run folder or a folder of evaluations, with the name of its curve before it where it should not be the
folder's own. Several of one name are training seeds.

    figure_3_samples_<task>    accuracy against training rows seen, per method: validations of runs, and evaluations
    figure_4_sources           where the kept answers come from, over steps
    figure_5_pass_at_k_<task>  pass@k, from evaluations with --samples
    dollars_<task>             accuracy against what the experts have cost
    gradient_groups            share of groups that carry gradient, over steps
"""

import argparse
import json
import sys
from pathlib import Path

from tqdm import tqdm

from ekipl_rollout.errors import EkiplError, SettingsError
from recipe.ekipl.measure.figure_data import all_figures, labels_of, write_csv
from recipe.ekipl.measure.plot import draw
from recipe.ekipl.measure.runs import read_all


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", metavar="[name=]folder", help="run folders and folders of evaluations")
    parser.add_argument("--out", type=Path, default=Path("runs/figures"), help="where they go (default: %(default)s)")
    parser.add_argument(
        "--rules", default="paper", help="of the evaluations: paper (default), released, released-enhanced"
    )
    args = parser.parse_args(argv)
    try:
        runs, results = read_all(args.folders, args.rules)
        figures = all_figures(runs, results)
        if not figures:
            raise SettingsError(f"{', '.join(args.folders)}: no validation, no step and no evaluation to draw.")
    except EkiplError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    methods = labels_of([*runs, *results])
    written = []
    for figure in tqdm(figures, desc="drawing", unit="figure", disable=None, leave=False):
        data = args.out / f"{figure.name}.csv"
        write_csv(figure, data)
        written += [*draw(figure, args.out, methods), data]
        print(f"  {figure.name:<40} {figure.note}")
    if not any(figure.name.startswith("dollars_") for figure in figures):
        print("  no dollars figure: no expert of these runs has a price that was paid (dollars_per_million_*)")
    print(json.dumps([str(path) for path in written]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
