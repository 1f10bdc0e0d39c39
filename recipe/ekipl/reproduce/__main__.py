"""The whole study in miniature: every method, all seven test splits, several seeds, on a CPU.

    python -m recipe.ekipl.reproduce --dry-run                      # the pieces, what is done, how long the rest may take
    python -m recipe.ekipl.reproduce                                # everything that is missing, then docs/results.md
    python -m recipe.ekipl.reproduce --only 'lacks/ekipl-0'         # one piece and what it needs
    python -m recipe.ekipl.reproduce --only                         # no piece: only the page, from what is there
    python -m recipe.ekipl.reproduce --size path --seeds 0          # a few steps of everything, to see that it runs

It can be stopped at any time; the same command goes on where it was. --jobs N does N pieces at the same time.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from ekipl_rollout.errors import EkiplError
from recipe.ekipl.lanes import Lanes, makespan, stop_like_ctrl_c
from recipe.ekipl.processes import only_driver
from recipe.ekipl.reproduce.page import write_page
from recipe.ekipl.reproduce.perform import is_kept, left, perform
from recipe.ekipl.reproduce.pieces import Piece, Study, all_pieces, chosen
from recipe.ekipl.reproduce.sizes import SIZES


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    out = (args.out or Path("runs") / f"reproduce-{args.size}").resolve()
    docs = args.docs or _docs(args.size, out)
    study = Study(out, docs / "results" / "pieces", SIZES[args.size], tuple(args.seeds))
    pieces = all_pieces(study)
    try:
        lanes = Lanes(args.jobs)
        wanted = [] if args.only == [] else chosen(pieces, args.only or [])
        todo = left(study, wanted)
        print(plan(study, wanted, todo, args.jobs), flush=True)
        if args.dry_run:
            return 0
        stop_like_ctrl_c()
        with only_driver(out):
            do_all(study, todo, lanes)
        print(write_page(study, pieces, docs))
    except EkiplError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped. The same command goes on where it was.", file=sys.stderr)
        return 130
    return 0


def do_all(study: Study, pieces: Sequence[Piece], lanes: Lanes) -> None:
    """Raises PieceError or ServerError for the first that fails."""
    with tqdm(total=len(pieces), desc="pieces", unit="piece") as bar:

        def work(piece: Piece) -> None:
            bar.write(f"  {piece.name}: {study.out / piece.name}/piece.log", file=sys.stderr)
            perform(study, piece, lanes)
            bar.update()

        lanes.run_all(pieces, work)


def plan(study: Study, pieces: Sequence[Piece], todo: Sequence[Piece], jobs: int) -> str:
    names, lines = {piece.name for piece in todo}, []
    for piece in pieces:
        state = (
            f"about {piece.minutes:.0f} min"
            if piece.name in names
            else "done"
            if is_kept(study, piece)
            else "not needed"
        )
        lines.append(f"  {piece.name:<26} {state}")
    hours = makespan(todo, {piece.name: piece.minutes for piece in todo}, jobs) / 60
    total = f"about {hours:.1f} hours left with {jobs} at a time (a guess); in {study.out}"
    return "\n".join([*lines, f"  {len(todo)} of {len(pieces)} pieces to do, {total}"])


def _docs(size: str, out: Path) -> Path:
    """Numbers that mean nothing do not go into the documentation."""
    return Path("docs") if size == "study" else out / "docs"


def _parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument(
        "--only", nargs="*", metavar="PATTERN", help="pieces by name (lacks/ekipl-*), with what they need"
    )
    found.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    found.add_argument(
        "--size", choices=SIZES, default="study", help="path: a few steps of everything (default: study)"
    )
    found.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="pieces at the same time (default: %(default)s)"
    )
    found.add_argument("--out", type=Path, help="where pieces go (default: runs/reproduce-<size>)")
    found.add_argument("--docs", type=Path, help="where the page goes (docs; with --size path below --out)")
    found.add_argument("--dry-run", action="store_true", help="list the pieces and exit")
    return found


if __name__ == "__main__":
    sys.exit(main())
