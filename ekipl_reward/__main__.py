"""Explains a score: what was extracted, which rule fired, what each part gave.

    python -m ekipl_reward "<think>5-2</think><answer>3</answer>" --truth 3 --task clevr_math
    python -m ekipl_reward --rows answers.jsonl --compare
    cat answer.txt | python -m ekipl_reward - --truth B --task geomath

A row of --rows is a JSON object with `response`, `ground_truth` and `data_source` (or `solution_str`, `pred`, `text`;
`truth`, `solution`, `answer`; `task`). What a row lacks is taken from --truth and --task.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ekipl_reward.errors import OptionError, RewardError
from ekipl_reward.explain import Explanation
from ekipl_reward.explain_rows import RowError, explain_file, explain_row
from ekipl_reward.options import CHOICES, read_options
from ekipl_reward.tasks import DATA_SOURCES, TASKS

COLUMN = 56  # characters of one set of rules with --compare


def build_parser() -> argparse.ArgumentParser:
    sources = ", ".join([*TASKS, *DATA_SOURCES])
    parser = argparse.ArgumentParser(
        prog="python -m ekipl_reward",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Exit status: 0 everything was judged, 1 some rows could not be, 2 the command line is wrong.",
    )
    parser.add_argument("response", nargs="?", help="the response to judge; - reads it from standard input")
    parser.add_argument("--rows", type=Path, metavar="FILE", help="judge a JSON Lines file (or a JSON array) instead")
    parser.add_argument("--truth", help="ground truth")
    parser.add_argument("--task", metavar="NAME", help=f"task or data source: {sources}, or one you registered")
    parser.add_argument(
        "--compare", action="store_true", help="show rules=paper beside rules=released, differences marked *"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a row instead of text")
    how = parser.add_argument_group("how to judge (the defaults are those of training)")
    for name, values in CHOICES.items():
        how.add_argument(f"--{name}", choices=values)
    how.add_argument(
        "--set", action="append", default=[], metavar="OPTION=VALUE", help="any other option: format_weight=0.5"
    )
    how.add_argument(
        "--task-module", action="append", default=[], metavar="MODULE", help="import it first: it registers tasks"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    if (args.response is None) == (args.rows is None):
        parser.error("give either a response or --rows FILE")
    try:
        options = options_of(args)
        rules = [{**options, "rules": name} for name in CHOICES["rules"]] if args.compare else [options]
        for each in rules:
            read_options(**each)
        if args.rows is not None:
            return 1 if explain_file(args.rows, args.truth, args.task, rules, args.json) else 0
        response = sys.stdin.read() if args.response == "-" else args.response
        found = explain_row({"response": response}, args.truth, args.task, rules)
    except BrokenPipeError:  # `| head` has seen enough
        sys.stdout = None
        return 0
    except (OptionError, OSError) as error:
        parser.error(str(error))
    except (RewardError, RowError) as error:
        print(f"cannot be judged: {error}", file=sys.stderr)
        return 1
    print(json.dumps([e.as_dict() for e in found]) if args.json else text_of(found, args.truth))
    return 0


def options_of(args: argparse.Namespace) -> dict[str, Any]:
    """Options as compute_score takes them. Raises OptionError for a --set that is none."""
    options: dict[str, Any] = {name: getattr(args, name) for name in CHOICES if getattr(args, name) is not None}
    for setting in args.set:
        name, equals, value = setting.partition("=")
        if not equals:
            raise OptionError(f"--set {setting}: write it as option=value, for example --set format_weight=0.5")
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    if args.task_module:
        options["task_modules"] = args.task_module
    return options


def text_of(found: list[Explanation], truth: str) -> str:
    """One explanation as lines, or several as columns."""
    lines = [f"{'task':12} {found[0].judged.task}", f"{'truth':12} {truth!r}"]
    if len(found) == 1:
        return "\n".join([*lines, *(f"{what:12} {text}" for what, text in found[0].rows())])
    columns = [dict(reversed(e.rows())) for e in found]  # of several `read as` lines the first
    for what in dict(found[0].rows()):
        texts = [column.get(what, "") for column in columns]
        mark = "*" if len(set(texts)) > 1 and what != "rules" else " "
        lines.append(f"{what:10} {mark} " + " | ".join(f"{text[:COLUMN]:{COLUMN}}" for text in texts).rstrip())
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
