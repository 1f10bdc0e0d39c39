"""Rows to train and evaluate on (docs/data.md).

    python -m recipe.ekipl.data download --out data/reason_rft
    python -m recipe.ekipl.data reason_rft --data data/reason_rft --out data/rows
    python -m recipe.ekipl.data own my_rows.jsonl --out data/own
    python -m recipe.ekipl.data mix data/rows/visual_counting=1 data/rows/spatial_transformation=0.5 --out data/mixed
    python -m recipe.ekipl.data mix data/rows/*/train.rl.parquet=1 data/own/my_rows.rl.parquet=0.5 --out data/mixed.rl.parquet

Everything goes on where it stopped. Rows that cannot be used are listed in <split>.refused.jsonl, each with the reason.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ekipl_rollout.errors import EkiplError, SettingsError
from recipe.ekipl.data.prompts import TEMPLATES
from recipe.ekipl.data.row import MAX_PIXELS, MIN_PIXELS, How
from recipe.ekipl.data.splits import TASKS


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        args.run(args)
    except EkiplError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped. The same command goes on with the split that it was at.", file=sys.stderr)
        return 130
    return 0


def _download(args: argparse.Namespace) -> None:
    from recipe.ekipl.data.download import download

    print(download(args.out, args.tasks, args.revision))


def _reason_rft(args: argparse.Namespace) -> None:
    from recipe.ekipl.data.reason_rft import Converted, convert

    def report(done: Converted) -> None:
        state = "finished before" if not done.why else "" if done.why == "new" else f"converted again: {done.why}"
        _say(args.out / Path(done.name).parent, done.rows, done.refused, Path(done.name).name, state)

    convert(args.data, args.out, args.tasks, again=args.again, report=report, **asdict(how_of(args)))


def _own(args: argparse.Namespace) -> None:
    from recipe.ekipl.data.own import convert_own

    rows, refused = convert_own(args.file, args.out, how_of(args), args.task_module)
    _say(args.out, rows, refused, args.file.stem)


def _mix(args: argparse.Namespace) -> None:
    from recipe.ekipl.data.mix import link_held_out, train_files

    weights = dict(_weight(word) for word in args.files)
    folders = [path for path in weights if path.is_dir()]
    if not folders:
        _mix_files(weights, args.out, args)
        return
    if len(folders) < len(weights):
        raise SettingsError("folders and files cannot be mixed with one another. Give folders, or a file of each.")
    for name, files in train_files(weights).items():
        _mix_files(files, args.out / name, args)
    for path in link_held_out(weights, args.out):
        print(f"   a link to  {path.readlink()}")


def _mix_files(weights: dict[Path, float], out: Path, args: argparse.Namespace) -> None:
    from recipe.ekipl.data.mix import mix, plan_mix

    shares = plan_mix(weights, args.rows)
    for share in shares:
        times = f", each {share.takes / share.has:.1f} times" if share.takes > share.has else ""
        print(f"{share.takes:8d} of {share.has} rows{times}  {share.path}")
    print(f"{mix(shares, out, args.seed):8d} rows  {out}")


def _weight(word: str) -> tuple[Path, float]:
    path, equals, weight = word.rpartition("=")
    try:
        return (Path(path), float(weight)) if equals else (Path(word), 1.0)
    except ValueError:
        raise SettingsError(f"{word}: {weight!r} is no weight. Write <file>=<number>.") from None


def _say(folder: Path, rows: dict[str, int], refused: dict[str, int], split: str, state: str = "") -> None:
    for file, count in rows.items():
        print(f"{count:8d} rows  {folder / file}{f'  ({state})' if state else ''}")
    if refused:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(refused.items(), key=lambda item: -item[1]))
        print(f"{sum(refused.values()):8d} refused ({kinds}): {folder / split}.refused.jsonl")


def how_of(args: argparse.Namespace) -> How:
    """Raises SettingsError for limits that no picture can meet."""
    if not 0 < args.min_pixels <= args.max_pixels:
        raise SettingsError(
            f"--min-pixels {args.min_pixels} must be above 0 and at most --max-pixels {args.max_pixels}."
        )
    return How(args.template, args.pictures, args.min_pixels, args.max_pixels)


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    found = argparse.ArgumentParser(prog="python -m recipe.ekipl.data", description=__doc__, formatter_class=raw)
    commands = found.add_subparsers(required=True, metavar="download | reason_rft | own | mix")
    _tasks(_download_options(commands.add_parser("download", help="Reason-RFT-CoT-Dataset from the hub, unzipped")))
    _how(_tasks(_reason_rft_options(commands.add_parser("reason_rft", help="its files -> parquet, train and test"))))
    _how(_own_options(commands.add_parser("own", help="a JSONL file of your own -> parquet")))
    _mix_options(commands.add_parser("mix", help="several parquet files -> one, rows drawn by weight"))
    return found


def _download_options(found: argparse.ArgumentParser) -> argparse.ArgumentParser:
    found.set_defaults(run=_download)
    found.add_argument("--out", type=Path, required=True, help="folder for JSON files and pictures")
    found.add_argument("--revision", default="main", help="branch, tag or commit (default: %(default)s)")
    return found


def _reason_rft_options(found: argparse.ArgumentParser) -> argparse.ArgumentParser:
    found.set_defaults(run=_reason_rft)
    found.add_argument(
        "--data", type=Path, required=True, help="folder with train_jsons/, test_jsons/ and the pictures"
    )
    found.add_argument("--out", type=Path, required=True, help="folder for the parquet files")
    found.add_argument("--again", action="store_true", help="convert finished splits, too: when pictures were replaced")
    return found


def _own_options(found: argparse.ArgumentParser) -> argparse.ArgumentParser:
    found.set_defaults(run=_own)
    found.add_argument("file", type=Path, help="JSONL: problem, image or images, answer, task; id and cot if you like")
    found.add_argument("--out", type=Path, required=True, help="folder for the parquet files")
    found.add_argument(
        "--task-module", action="append", default=[], help="module with tasks of your own (ekipl_reward.register_task)"
    )
    return found


def _mix_options(found: argparse.ArgumentParser) -> None:
    found.set_defaults(run=_mix)
    found.add_argument(
        "files",
        nargs="+",
        metavar="WHAT[=WEIGHT]",
        help="parquet files for one use, or tasks' folders; weight 1 without",
    )
    found.add_argument("--out", type=Path, required=True, help="the parquet file of the mixture; of folders, a folder")
    found.add_argument("--rows", type=int, help="of each mixture; default: as many as can be drawn without repetition")
    found.add_argument("--seed", type=int, default=0)


def _tasks(found: argparse.ArgumentParser) -> argparse.ArgumentParser:
    found.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    return found


def _how(found: argparse.ArgumentParser) -> None:
    found.add_argument("--template", choices=sorted(TEMPLATES), default="reason_rft", help="how the policy is asked")
    found.add_argument(
        "--pictures",
        choices=("embed", "reference"),
        default="embed",
        help="their bytes in the parquet file (default), or their absolute paths",
    )
    found.add_argument(
        "--min-pixels", type=int, default=MIN_PIXELS, help="smaller pictures are scaled up (%(default)s)"
    )
    found.add_argument("--max-pixels", type=int, default=MAX_PIXELS, help="larger ones are scaled down (%(default)s)")


if __name__ == "__main__":
    sys.exit(main())
