"""Many rows explained: a JSON Lines file (or one JSON array, as Reason-RFT's evaluation leaves it), judged row by row."""

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ekipl_reward.errors import RewardError
from ekipl_reward.explain import Explanation, explain

RESPONSE_KEYS = ("response", "solution_str", "pred", "text")
TRUTH_KEYS = ("ground_truth", "truth", "solution", "answer")
SOURCE_KEYS = ("data_source", "task")
NUMBERS = ("score", "format", "accuracy", "evaluation")
BAD_ROWS_SHOWN = 20


class RowError(Exception):
    """A row of the file cannot be judged; the message says why."""


def explain_row(row: Any, truth: str | None, source: str | None, rules: list[dict[str, Any]]) -> list[Explanation]:
    """The row under each set of options. `truth` and `source` stand in for what it lacks. Raises RowError, RewardError."""
    if isinstance(row, RowError):
        raise row
    if not isinstance(row, dict):
        raise RowError(f"not an object but {type(row).__name__}")
    truth, source = _first(row, TRUTH_KEYS, truth), _first(row, SOURCE_KEYS, source)
    if truth is None:
        raise RowError(f"it has no ground truth ({', '.join(TRUTH_KEYS)}) and there is no --truth")
    if source is None:
        raise RowError(f"it has no task ({', '.join(SOURCE_KEYS)}) and there is no --task")
    return [explain(source, _first(row, RESPONSE_KEYS, None), truth, **options) for options in rules]


def _first(row: dict[str, Any], keys: tuple[str, ...], default: Any) -> Any:
    return next((row[key] for key in keys if row.get(key) is not None), default)


def explain_file(path: Path, truth: str | None, source: str | None, rules: list[dict[str, Any]], as_json: bool) -> int:
    """Prints a line a row, the means a task, and one line of JSON last. Returns how many rows could not be judged."""
    sums: dict[tuple[str, str], Counter] = defaultdict(Counter)
    bad = total = 0
    for place, row in read_rows(path):
        total += 1
        try:
            found = explain_row(row, truth, source, rules)
        except (RewardError, RowError) as error:
            bad += 1
            if bad <= BAD_ROWS_SHOWN:
                print(f"{path}: {place}: cannot be judged: {error}", file=sys.stderr)
            continue
        numbers = [e.as_dict() for e in found]
        for one in numbers:
            sums[one["task"], one["rules"]].update(rows=1, **{name: one[name] for name in NUMBERS})
        print(json.dumps({"row": place, "judged": numbers}) if as_json else _line(place, numbers))
    means = [
        {"task": task, "rules": kind, "rows": sum_["rows"], **{n: round(sum_[n] / sum_["rows"], 4) for n in NUMBERS}}
        for (task, kind), sum_ in sorted(sums.items())
    ]
    if not as_json:
        print("\n".join(_mean_line(mean) for mean in means))
    print(json.dumps({"rows": total, "not_judged": bad, "means": means}))
    return bad


def _line(place: str, numbers: list[dict]) -> str:
    parts = [f"{one['score']:7.4f} = {one['format']:g} + {one['accuracy']:.4f} {one['rule']:20}" for one in numbers]
    differs = "*" if len({one["score"] for one in numbers}) > 1 else " "
    return f"{place:>10} {differs} " + " | ".join(parts) + f" {numbers[0]['parsed'][:40]!r}"


def _mean_line(mean: dict) -> str:
    return f"{mean['task']:24} {mean['rules']:9} {mean['rows']:7} rows   " + "  ".join(
        f"{name} {mean[name]:.4f}" for name in NUMBERS
    )


def read_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """(where it stands, the row or the RowError that it is)."""
    from tqdm import tqdm

    with open(path, encoding="utf-8", errors="replace") as file:
        if file.read(1) == "[":
            file.seek(0)
            try:
                yield from ((f"row {i}", row) for i, row in enumerate(json.load(file)))
            except ValueError as error:
                yield "the file", RowError(f"not JSON: {error}")
            return
        file.seek(0)
        for number, line in enumerate(tqdm(file, desc=path.name, unit="row", disable=None, leave=False), start=1):
            if line.strip():
                try:
                    yield f"line {number}", json.loads(line)
                except ValueError as error:
                    yield f"line {number}", RowError(f"not JSON: {error}")
