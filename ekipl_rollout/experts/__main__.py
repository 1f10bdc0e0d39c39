"""Experts from the command line.

    python -m ekipl_rollout.experts doctor --config paper
    python -m ekipl_rollout.experts ask --config openai --data rows.parquet --row 3 --show

--config takes a YAML file, or a name in recipe/ekipl/config/experts (openai, gemini, azure, vertex, vllm, paper, ...).
`doctor` checks each expert for real: key, address, model, picture, several answers, log-probabilities, format, price.
`ask` asks about one row; --show prints what is sent, --show-only prints it and asks nobody.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from ekipl_rollout.answer import Message, Question
from ekipl_rollout.errors import EkiplError, ExpertError, SettingsError
from ekipl_rollout.experts import doctor
from ekipl_rollout.experts.build import expert_class
from ekipl_rollout.experts.config import ExpertsConfig, load_experts
from ekipl_rollout.experts.rows import read_row
from ekipl_rollout.experts.show import what_came_back, what_is_sent
from ekipl_rollout.inert import printable
from ekipl_rollout.settings import ExpertSettings


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0: all is well; 1: an expert is not usable or did not answer; 2: the settings cannot work."""
    args = _parser().parse_args(argv)
    try:
        config = load_experts(args.config, args.overrides, args.expert)
        return asyncio.run(args.run(args, config))
    except (EkiplError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m ekipl_rollout.experts", description=__doc__, formatter_class=raw)
    commands = parser.add_subparsers(required=True, metavar="doctor | ask")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", required=True, help="YAML file, or a name in recipe/ekipl/config/experts")
    common.add_argument("--expert", help="only the one of this name")
    common.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. ekipl.experts.0.model=...")
    checking = commands.add_parser("doctor", parents=[common], help="check each expert for real")
    checking.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    checking.set_defaults(run=_doctor)
    asking = commands.add_parser("ask", parents=[common], help="ask about one row, or print what would be sent")
    asking.add_argument("--data", type=Path, help="parquet file of rows; default: the first of a run's config.yaml")
    asking.add_argument("--row", type=int, default=0, help="which row, from 0 (default: %(default)s)")
    asking.add_argument("--text", help="ask this instead of a row")
    asking.add_argument(
        "--picture", type=Path, action="append", default=[], help="shown before --text; may be repeated"
    )
    asking.add_argument(
        "--answers", type=_count, help="how many; default: the expert's num_answers, or ekipl.num_answers"
    )
    asking.add_argument("--show", action="store_true", help="print what is sent, then ask")
    asking.add_argument("--show-only", action="store_true", help="print what would be sent, and ask nobody")
    asking.set_defaults(run=_ask)
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number, 1 or more")
    return int(text)


async def _doctor(args: argparse.Namespace, config: ExpertsConfig) -> int:
    reports = await doctor.examine_all(config.experts)
    print(json.dumps([report.as_dict() for report in reports], indent=1) if args.json else doctor.render(reports))
    return 0 if all(report.healthy for report in reports) else 1


async def _ask(args: argparse.Namespace, config: ExpertsConfig) -> int:
    question = _question(args, config)
    results = [await _ask_one(settings, question, args, config) for settings in config.experts]
    return 0 if all(results) else 1


async def _ask_one(
    settings: ExpertSettings, question: Question, args: argparse.Namespace, config: ExpertsConfig
) -> bool:
    count = args.answers or settings.num_answers or config.num_answers
    if args.show or args.show_only:
        print(what_is_sent(settings, question, count), flush=True)
    if args.show_only:
        return True
    if problems := settings.problems():
        raise SettingsError(*problems)
    expert = expert_class(settings.kind)(settings)
    try:
        print(what_came_back(await expert.answer(question, count)))
        return True
    except ExpertError as error:
        print(f"{settings.name}: {printable(str(error))}", file=sys.stderr)
        return False
    finally:
        await expert.close()


def _question(args: argparse.Namespace, config: ExpertsConfig) -> Question:
    if args.text is not None:
        pictures = [path.read_bytes() for path in args.picture]
        return Question("asked by hand", (Message("user", (*pictures, args.text)),))
    if args.picture:
        raise SettingsError("--picture is shown before --text, and there is none. A row brings its own pictures.")
    path = args.data or next(iter(config.train_files), None)
    if path is None:
        raise SettingsError("give the rows with --data rows.parquet, a run's config.yaml as --config, or a --text.")
    return read_row(path, args.row)


if __name__ == "__main__":
    sys.exit(main())
