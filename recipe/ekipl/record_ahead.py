"""Asks the experts about every training row before training, and keeps the answers: training then finds them.

    python -m recipe.ekipl.record_ahead --dry-run experts=paper data.train_files=rows/train.rl.parquet
    python -m recipe.ekipl.record_ahead --budget 50 experts=paper data.train_files=rows/train.rl.parquet \\
        ekipl.record.path=records.sqlite
    python -m recipe.ekipl.train experts=paper ekipl.record.path=records.sqlite ekipl.record.mode=replay ...

Config and overrides are those of recipe.ekipl.train, because the questions must be the very ones of training. The budget
is never exceeded, over all calls with this record together: <record>.ledger remembers. The same command goes on where it
stopped, and asks again for rows that failed. Ctrl-C lets requests that are out come in; a second one ends at once.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ekipl_rollout.bounds.budget import NANO
from ekipl_rollout.bounds.ledger import read_spent
from ekipl_rollout.errors import EkiplError, SettingsError
from ekipl_rollout.inert import printable
from ekipl_rollout.record.key import OFFLINE
from ekipl_rollout.settings import EkiplSettings
from recipe.ekipl.check_rows import file_problem
from recipe.ekipl.compose import compose_config, make_consistent
from recipe.ekipl.data.questions import count_rows
from recipe.ekipl.plan import assumptions, input_tokens, pictures_per_row
from recipe.ekipl.record_rows import Rows, Tally, ask_everything

SHOWN = 20  # rows that failed are named up to so many


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m recipe.ekipl.record_ahead",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Exit status: 0 every answer is in the record; 1 some are missing, and the summary says why; 2 the settings "
        "cannot work; 130 stopped by Ctrl-C.",
    )
    parser.add_argument(
        "--config-name", default="ekipl_trainer", help="as for recipe.ekipl.train (default: %(default)s)"
    )
    parser.add_argument("--dry-run", action="store_true", help="print how much would be asked for, and ask nobody")
    parser.add_argument(
        "--budget", type=float, metavar="DOLLARS", help="the most that it may cost; default: ekipl.bounds.max_dollars"
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=600.0,
        metavar="SECONDS",
        help="how long an expert that does not answer is waited for before the others go on alone (default: %(default)g)",
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings in Hydra's syntax; experts=<name>")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_intermixed_args(argv)  # an option may stand between overrides
    try:
        config = make_consistent(compose_config(args.config_name, args.overrides))
        settings = read_settings(config, args.budget)
        rows = read_rows(config)
        print(render(settings, rows), flush=True)
        if args.dry_run:
            return 0
        tallies, stopped = asyncio.run(ask_everything(settings, rows, args.patience))
    except KeyboardInterrupt:
        print("\nended at once; what was out counts as spent. The same command goes on.", file=sys.stderr)
        return 130
    except (EkiplError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    spent = spent_so_far(settings)
    print(summary(tallies, spent))
    print(
        json.dumps({"record": settings.record.path, "spent": spent, "experts": {t.name: t.as_dict() for t in tallies}})
    )
    return 130 if stopped else 0 if all(tally.is_complete for tally in tallies) else 1


def read_settings(config: DictConfig, budget: float | None) -> EkiplSettings:
    """The `ekipl:` block for this job, with a ledger beside the record. Raises SettingsError with all problems at once."""
    block = OmegaConf.to_container(config.ekipl, resolve=True)
    settings = EkiplSettings.from_config(block, check=False)
    limit = settings.bounds.max_dollars if budget is None else budget
    bounds = replace(
        settings.bounds, max_dollars=limit, max_dollars_per_step=None, ledger=f"{settings.record.path}.ledger"
    )
    settings = replace(settings, bounds=bounds)
    problems = settings.problems()
    if settings.record.mode != "record":
        problems.append(
            f"ekipl.record.mode={settings.record.mode} keeps nothing that could be found again, or asks nobody. "
            "Leave it at record for this command; set replay for the training that follows."
        )
    if all(expert.kind == OFFLINE for expert in settings.experts):
        problems.append("ekipl.experts names nobody who could be asked. Add experts=<name>, for example experts=paper.")
    problems += [f"data.train_files: {name} {why}" for name in config.data.train_files if (why := file_problem(name))]
    if not config.data.train_files:
        problems.append("data.train_files is not set. Name the parquet files that training will read.")
    if problems:
        raise SettingsError(*problems)
    return replace(settings, experts=tuple(e for e in settings.experts if e.kind != OFFLINE))


def read_rows(config: DictConfig) -> Rows:
    files = list(config.data.train_files)
    return Rows(files, config.data.get("prompt_key", "prompt"), config.data.image_key, count_rows(files))


def spent_so_far(settings: EkiplSettings) -> float:
    return (read_spent(settings.bounds.ledger or "") or 0) / NANO


def render(settings: EkiplSettings, data: Rows) -> str:
    """What is going to be asked for, before anything comes from the record."""
    rows, pictures = data.count, pictures_per_row(list(data.files), data.image_key)
    lines: list[tuple[str, Any]] = [("rows", f"{rows}, pictures each: {pictures}")]
    total = 0.0
    for expert in settings.experts:
        count, price = settings.answers_of(expert), expert.price
        most = rows * price.of(input_tokens(expert, pictures), count * expert.max_tokens) if price else 0.0
        total += most
        lines.append((expert.name, f"{rows} requests for {count} answers each: at most ${most:.2f}"))
        lines += [("warning", text) for text in expert.warnings()]
    limit, spent = settings.bounds.max_dollars, spent_so_far(settings)
    lines.append(("money", f"at most ${total:.2f} at the configured prices, less what the record holds already"))
    if total:
        lines.append(("", assumptions(settings.experts, pictures)))
    gone = f", ${spent:.2f} of it spent by earlier calls" if spent else ""
    lines.append(("budget", "no limit" if limit is None else f"${limit:.2f}{gone}"))
    lines.append(("record", settings.record.path))
    return "\n".join(f"  {name:<11} {value}" for name, value in lines)


def summary(tallies: Sequence[Tally], spent: float) -> str:
    """What is there now, and what is missing and why."""
    lines = []
    for tally in tallies:
        lines.append(
            f"{tally.name}: {tally.rows} rows complete; {tally.asked} new answers, {tally.recorded} from the record"
        )
        if tally.ended:
            lines.append(f"  ended early: {tally.ended}")
        for row, why in list(tally.failed.items())[:SHOWN]:
            lines.append(f"  row {printable(row, '')}: {printable(why)}")
        if len(tally.failed) > SHOWN:
            lines.append(f"  and {len(tally.failed) - SHOWN} more rows")
    if not all(tally.is_complete for tally in tallies):
        lines.append("The same command asks for what is missing.")
    return "\n".join([*lines, f"${spent:.2f} spent with this record"])


if __name__ == "__main__":
    sys.exit(main())
