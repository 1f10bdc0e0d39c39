"""Look after a record of expert answers.

    python -m ekipl_rollout.record stats  records.sqlite
    python -m ekipl_rollout.record verify records.sqlite
    python -m ekipl_rollout.record export records.sqlite answers.jsonl.gz
    python -m ekipl_rollout.record import records.sqlite traces.jsonl --pictures data/images
    python -m ekipl_rollout.record merge  all.sqlite node0.sqlite node1.sqlite
    python -m ekipl_rollout.record prune  records.sqlite --expert gpt-4o --status refused --dry-run

All of it works while a run uses the file. Exit status: 0 done; 1 done, and there is something to look at (damaged
answers, refused lines); 2 not possible; 130 stopped by Ctrl-C, and the same command may be given again.
"""

import argparse
import contextlib
import json
import sqlite3
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ekipl_rollout.answer import AnswerStatus
from ekipl_rollout.errors import EkiplError
from ekipl_rollout.inert import printable
from ekipl_rollout.record import exchange, upkeep
from ekipl_rollout.record.database import open_to_read, open_to_write
from ekipl_rollout.record.lines import reading, to_line, writing
from ekipl_rollout.record.scan import count_questions

SHOWN = 20  # problems that are printed; the rest is counted


def stats(args: argparse.Namespace) -> int:
    """What is in it: answers, tokens and dollars by expert and model."""
    with contextlib.closing(open_to_read(args.record)) as db:
        groups: dict[tuple[str, str, str], upkeep.Group] = {}
        for _ in bar(upkeep.count(db, groups), "counting", count_questions(db), "question"):
            pass
    rows: list[dict[str, Any]] = [
        {
            "expert": expert,
            "kind": kind,
            "model": model,
            "questions": g.questions,
            "answers": g.answers,
            **{s.value: g.statuses[s.value] for s in AnswerStatus},
            "superseded": g.superseded,
            "output_tokens": g.tokens,
            "dollars": round(g.dollars, 6),
            "first": moment(g.first),
            "last": moment(g.last),
        }
        for (expert, kind, model), g in sorted(groups.items())
    ]
    files = (args.record, Path(f"{args.record}-wal"))
    size = sum(file.stat().st_size for file in files if file.exists())
    if args.json:
        print(json.dumps({"file": str(args.record), "bytes": size, "experts": rows}))
        return 0
    print(
        f"{args.record}: {sum(r['answers'] for r in rows)} answers, {size / 1e6:.1f} MB, paid ${sum(r['dollars'] for r in rows):.2f}"
    )
    print(table(rows))
    return 0


def verify(args: argparse.Namespace) -> int:
    """Checks pages, keys and every answer."""
    with contextlib.closing(open_to_read(args.record)) as db:
        print("checking the pages of the file ...", file=sys.stderr)
        problems = upkeep.check_pages(db)
        broken = bool(problems)
        total = count_questions(db)
        questions = sum(bar(upkeep.check_entries(db, problems), "checking answers", total, "question"))
    for problem in problems[:SHOWN]:
        print(f"  {printable(problem)}")
    if len(problems) > SHOWN:
        print(f"  and {len(problems) - SHOWN} more")
    print(f"{args.record}: {questions} questions read, {len(problems) or 'no'} problems")
    if broken:
        print(
            f"Save what is left: python -m ekipl_rollout.record export {args.record} saved.jsonl, then import it into a new file."
        )
    elif problems:
        print(
            f"Damaged answers count as missing. Take them out: python -m ekipl_rollout.record prune {args.record} --damaged"
        )
    return 1 if problems else 0


def export(args: argparse.Namespace) -> int:
    """Writes JSON lines, one question each; `-` is stdout, .gz is compressed. The result can be imported again."""
    lines = answers = 0
    with contextlib.closing(open_to_read(args.record)) as db, writing(args.out) as out:
        for line in bar(exchange.export_lines(db, args.history), "exporting", count_questions(db), "question"):
            out.write(to_line(line))
            lines, answers = lines + 1, answers + len(line["answers"])
    print(f"{answers} answers to {lines} questions written to {args.out}", file=sys.stderr)
    return 0


def import_(args: argparse.Namespace) -> int:
    """Brings JSON lines in: an export, or traces of offline experts (docs/record.md). Twice adds nothing."""
    total = exchange.Imported()
    pictures = args.pictures or (Path.cwd() if str(args.lines) == "-" else args.lines.parent)
    with contextlib.closing(open_to_write(args.record)) as db, reading(args.lines) as lines:
        for _ in exchange.import_lines(db, bar(lines, "importing", None, "line"), pictures, total):
            pass
    for number, reason in total.refused[:SHOWN]:
        print(f"  line {number}: {printable(reason)}")
    print(f"{total.answers} new answers from {total.lines} lines, {len(total.refused)} lines refused")
    return 1 if total.refused else 0


def merge(args: argparse.Namespace) -> int:
    """Brings the answers of other records into one, which is made when there is none. Twice adds nothing."""
    with contextlib.closing(open_to_write(args.record)) as db:
        for path in args.sources:
            if path.resolve() == args.record.resolve():
                raise EkiplError(f"{path} cannot be merged into itself")
            with contextlib.closing(open_to_read(path)) as source:
                added = sum(bar(upkeep.merge(db, source), f"merging {path.name}", None, "batch"))
            print(f"{added} new answers from {path}")
    return 0


def prune(args: argparse.Namespace) -> int:
    """Deletes answers that fit everything that is given, and shrinks the file. They are gone and would be paid for anew."""
    which = upkeep.Filter(
        experts=frozenset(args.expert),
        models=frozenset(args.model),
        statuses=frozenset(args.status),
        before=None if args.older_than is None else time.time() - args.older_than,
        versions=frozenset(args.key_version),
        only_superseded=args.superseded,
        only_damaged=args.damaged,
    )
    if which == upkeep.Filter():
        raise EkiplError(
            "prune needs at least one of --expert, --model, --status, --older-than, --key-version, --superseded, --damaged"
        )
    found: upkeep.Doomed = {}
    groups: dict[str, upkeep.Group] = {}
    with contextlib.closing(open_to_write(args.record, must_exist=True)) as db:
        for _ in bar(upkeep.find_doomed(db, which, found, groups), "looking", count_questions(db), "question"):
            pass
        for expert, group in sorted(groups.items()):
            print(
                f"  {printable(expert)}: {group.answers} answers, {group.superseded} superseded ones, paid ${group.dollars:.2f}"
            )
        if args.dry_run:
            print(f"{sum(map(len, found.values()))} would go; nothing was changed")
            return 0
        gone = sum(bar(upkeep.prune(db, found), "deleting", None, "batch"))
        if gone:
            shrink(db)
    print(f"{gone} deleted")
    return 0


def shrink(db: sqlite3.Connection) -> None:
    try:
        db.execute("VACUUM")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.OperationalError as error:  # a run is using the file, or the disk has no room for a copy
        print(f"the file keeps its size for now ({error}); its free pages are used for new answers", file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m ekipl_rollout.record", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, act) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=act.__doc__, description=act.__doc__)
        sub.set_defaults(act=act)
        sub.add_argument("record", type=Path, help="the SQLite file")
        return sub

    command("stats", stats).add_argument("--json", action="store_true", help="one JSON object instead of a table")
    command("verify", verify)
    sub = command("export", export)
    sub.add_argument("out", type=Path, help="file for the lines")
    sub.add_argument("--history", action="store_true", help="with the answers that `refresh` replaced")
    sub = command("import", import_)
    sub.add_argument("lines", type=Path, help="file with the lines; `-` is stdin")
    sub.add_argument(
        "--pictures", type=Path, help="folder of the pictures of traces (default: the folder of the lines)"
    )
    sub = command("merge", merge)
    sub.add_argument("sources", type=Path, nargs="+", help="files to read")
    sub = command("prune", prune)
    sub.add_argument(
        "--expert", action="append", default=[], metavar="NAME", help="name of the expert; may be given again"
    )
    sub.add_argument("--model", action="append", default=[], metavar="MODEL", help="the provider's name of the model")
    sub.add_argument("--status", action="append", default=[], choices=[s.value for s in AnswerStatus])
    sub.add_argument("--older-than", type=age, metavar="AGE", help="like 12h, 30d or 8w")
    sub.add_argument("--key-version", type=int, action="append", default=[], metavar="N", help="version of the key")
    sub.add_argument("--superseded", action="store_true", help="only what `refresh` replaced")
    sub.add_argument("--damaged", action="store_true", help="only what can no longer be read")
    sub.add_argument("--dry-run", action="store_true", help="say what would go")
    return top


def age(text: str) -> float:
    """`30d` -> seconds."""
    units = {"h": 3600.0, "d": 86400.0, "w": 604800.0}
    with contextlib.suppress(ValueError, KeyError, IndexError):
        seconds = float(text[:-1]) * units[text[-1]]
        if seconds >= 0:
            return seconds
    raise argparse.ArgumentTypeError(f"{text!r} is no age. Write it like 12h, 30d or 8w.")


def bar(items: Iterable, what: str, total: int | None, unit: str) -> Iterator[Any]:
    """A progress bar on a terminal, nothing elsewhere."""
    return tqdm(items, desc=what, total=total or None, unit=unit, unit_scale=True, disable=None, leave=False)


def moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M") if 0 < seconds < 1e11 else "unknown"


def table(rows: list[dict[str, Any]]) -> str:
    """Rows under their names, without columns that are zero everywhere."""
    names = [n for n in (rows[0] if rows else []) if any(row[n] for row in rows)]
    texts = [
        names,
        *([f"{row[n]:.2f}" if n == "dollars" else printable(str(row[n]), "") for n in names] for row in rows),
    ]
    widths = [max(len(line[i]) for line in texts) for i in range(len(names))]
    return "\n".join("  " + "  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)) for line in texts)


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        return args.act(args)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    except (EkiplError, OSError, UnicodeDecodeError, sqlite3.Error) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
