"""Runs the ablation on the tiny model, and makes its table and figures. See `recipe/ekipl/ablation/__init__.py`.

    python -m recipe.ekipl.ablation run --dry-run
    python -m recipe.ekipl.ablation run --regimes lacks_skill --variants grpo paper robust --seeds 0 --jobs 2
    python -m recipe.ekipl.ablation table --results docs/ablation/results.jsonl --out docs/ablation

A run that is in the results file is not run again; one that was interrupted goes on at its last checkpoint.
"""

import argparse
import sys
from pathlib import Path

from ekipl_rollout.errors import SettingsError
from recipe.ekipl.ablation.cells import CORE, REGIMES, VARIANTS, Cell, make_cells
from recipe.ekipl.ablation.results import Line, append_line, read_lines
from recipe.ekipl.lanes import Lanes, Stopped, makespan, stop_like_ctrl_c

ASSUMED_STEP_S, ASSUMED_START_S = 12.0, 180.0  # before anything was measured here: by the README's tiny run


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="train the cells that are not in the results file")
    run.add_argument("--regimes", nargs="+", default=list(REGIMES), metavar="NAME", help=", ".join(REGIMES))
    run.add_argument(
        "--variants",
        nargs="+",
        default=list(CORE),
        metavar="NAME",
        help=f"all, or some of {', '.join(VARIANTS)} (default: {' '.join(CORE)})",
    )
    run.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    run.add_argument("--steps", type=int, help="default: the regime's")
    run.add_argument("--lr", type=float, help="learning rate (default: the regime's)")
    run.add_argument(
        "--jobs", type=int, default=1, help="runs at the same time, each with its share of the cores and 5 GiB"
    )
    run.add_argument("--out", type=Path, default=Path("runs/ablation"), help="folders of the runs")
    run.add_argument(
        "--look",
        action="store_true",
        help="small world, base model of 2 steps: to see that it runs; its numbers mean nothing",
    )
    run.add_argument("--dry-run", action="store_true", help="list the runs and an estimate, and stop")
    table = commands.add_parser("table", help="table.md and figures from the results file")
    table.add_argument("--out", type=Path, default=Path("docs/ablation"))
    for command in (run, table):
        command.add_argument("--results", type=Path, default=Path("docs/ablation/results.jsonl"))
    args = parser.parse_args(argv)
    try:
        return run_cells(args) if args.command == "run" else write_table(args)
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped. The same command goes on, each run at its last checkpoint.", file=sys.stderr)
        return 130


def run_cells(args: argparse.Namespace) -> int:
    """Failures are told at the end; the others are run all the same."""
    lanes = Lanes(args.jobs)
    done = read_lines(args.results)
    cells = make_cells(args.regimes, args.variants, args.seeds, args.steps, args.lr, args.look)
    missing = [cell for cell in cells if cell.name not in done]
    print(plan(cells, missing, list(done.values()), args.jobs))
    if args.dry_run:
        return 0
    stop_like_ctrl_c()
    failed = train_all(missing, args, lanes)
    if failed:
        print(f"{failed} of {len(missing)} runs failed; the same command tries them again.", file=sys.stderr)
    return 1 if failed else 0


def train_all(cells: list[Cell], args: argparse.Namespace, lanes: Lanes) -> int:
    """How many failed."""
    from tqdm import tqdm

    from recipe.ekipl.ablation.runner import train_cell

    failures = []
    with tqdm(total=len(cells), unit="run", disable=not cells) as bar:

        def work(cell: Cell) -> None:
            try:
                append_line(args.results, train_cell(cell, args.out, lanes))
            except Stopped:
                raise
            except Exception as error:  # whatever it is, the other runs are made
                failures.append(cell)
                bar.write(f"{cell.name}: {type(error).__name__}: {error}", file=sys.stderr)
            bar.set_description(cell.name)
            bar.update()

        lanes.run_all(cells, work)
    return len(failures)


def plan(cells: list[Cell], missing: list[Cell], done: list[Line], jobs: int = 1) -> str:
    """The runs, and how long the missing ones take: by what was measured here, or else by what the README says."""
    step_s = sum(line.seconds for line in done) / max(sum(line.steps for line in done), 1) if done else ASSUMED_STEP_S
    start_s = sum(line.startup_s for line in done) / len(done) if done else ASSUMED_START_S
    hours = makespan(missing, {cell.name: cell.steps * step_s + start_s for cell in missing}, jobs) / 3600
    waiting = {cell.name for cell in missing}
    lines = [
        f"  {'' if cell.name in waiting else 'done':<5} {cell.name:<48} {VARIANTS[cell.variant].about}"
        for cell in cells
    ]
    basis = f"{len(done)} runs of the results file" if done else "the README's tiny run; nothing was measured here yet"
    lines.append(
        f"{len(missing)} of {len(cells)} runs to go, {jobs} at a time, about {hours:.1f} hours ({step_s:.1f} s a step, {start_s:.0f} s around it; by {basis})"
    )
    return "\n".join(lines)


def write_table(args: argparse.Namespace) -> int:
    from recipe.ekipl.ablation.table import draw, markdown

    lines = list(read_lines(args.results).values())
    if not lines:
        raise SettingsError(f"--results {args.results} holds no finished run. Make some with `run`.")
    args.out.mkdir(parents=True, exist_ok=True)
    text = markdown(lines)
    (args.out / "table.md").write_text(text)
    print(text)
    for path in draw(lines, args.out):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
