"""Answers that experts gave earlier, by row of a data set -> a record that training can use. Nobody is asked.

    # traces.jsonl: {"id": "<extra_info.id of a row>", "text": "<think> ... </answer>", "model": "deepseek-r1"}
    python -m recipe.ekipl.data.traces --rows rows/train.rl.parquet --traces traces.jsonl --record traces.sqlite

    # LUFFY, AMPO and others keep them in a column of the rows themselves
    python -m recipe.ekipl.data.traces --rows openr1.parquet --column target --model deepseek-r1 --record traces.sqlite

In training they are the answers of an expert of kind `offline` with that model's name:

    ekipl.experts: [{name: r1, kind: offline, model: deepseek-r1}]     ekipl.record.path: traces.sqlite
"""

import argparse
import contextlib
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ekipl_rollout.errors import EkiplError, RecordError
from ekipl_rollout.inert import printable
from ekipl_rollout.record.database import open_to_write, transaction
from ekipl_rollout.record.exchange import Incoming, trace
from ekipl_rollout.record.lines import reading
from ekipl_rollout.record.tables import add_rows
from recipe.ekipl.data.questions import AskedRow, count_rows, read_questions

ROWS_AT_ONCE = 200  # a transaction
SHOWN = 20


def read_traces(lines: Iterable[str], model: str | None) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    """(row id -> its answers, what was refused) of JSON lines. All of it is held in memory."""
    found: dict[str, list[dict[str, Any]]] = {}
    refused = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
            row_id = values.pop("id")
            values.setdefault("model", model)
            found.setdefault(str(row_id), []).append(values)
        except (ValueError, RecursionError, KeyError, AttributeError, TypeError) as error:
            refused.append(f"line {number}: no object with an `id`: {error!r:.80}")
    return found, refused


def texts_of(value: Any) -> list[str]:
    """The answers in a column: a text, a chat turn, or a list of either, however deep.

    Example:
        [{"role": "assistant", "content": "<think> ..."}] -> ["<think> ..."]
    """
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return texts_of(value.get("content"))
    if isinstance(value, (list, tuple)):
        return [text for item in value for text in texts_of(item)]
    raise RecordError(f"an answer must be a text or a chat turn, not {value!r:.80}")


def incoming(
    row: AskedRow, traces: dict[str, list[dict]] | None, column: str | None, model: str | None
) -> Iterator[Incoming]:
    """What a row brings to the record. Raises RecordError when that cannot be kept."""
    if row.question is None:
        raise RecordError(row.refusal)
    if traces is None:
        texts = texts_of((row.values or {}).get(column or ""))
        if texts:
            yield trace(row.question, model, [{"text": text} for text in texts])
        return
    by_model: dict[Any, list[dict]] = {}
    for values in traces.get(row.id, ()):
        by_model.setdefault(values.get("model"), []).append(values)
    for name, answers in by_model.items():
        yield trace(row.question, name, [{k: v for k, v in a.items() if k != "model"} for a in answers])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", required=True, help="parquet files that training will read")
    answers = parser.add_mutually_exclusive_group(required=True)
    answers.add_argument("--traces", type=Path, help="JSON lines with `id` and `text`; .gz and `-` work too")
    answers.add_argument("--column", help="column of the rows with the answers")
    parser.add_argument("--model", help="who answered, where the lines do not say; needed with --column")
    parser.add_argument("--record", type=Path, required=True, help="the SQLite file; made when there is none")
    parser.add_argument(
        "--prompt-key", default="prompt", help="column of the prompt, as data.prompt_key (default: %(default)s)"
    )
    parser.add_argument(
        "--image-key", default="images", help="column of the pictures, as data.image_key (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    if args.column and not args.model:
        parser.error("--column needs --model: the rows do not say who answered")
    try:
        return bring_in(args)
    except (EkiplError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def bring_in(args: argparse.Namespace) -> int:
    traces: dict[str, list[dict[str, Any]]] | None = None
    problems: list[str] = []
    if args.traces:
        with reading(args.traces) as lines:
            traces, problems = read_traces(lines, args.model)
    added, met = 0, set()
    rows = read_questions(args.rows, args.prompt_key, args.image_key, columns=[args.column] if args.column else [])
    with contextlib.closing(open_to_write(args.record)) as db:
        batch: list[Incoming] = []
        for row in tqdm(rows, total=count_rows(args.rows), unit="row", disable=None, leave=False):
            met.add(row.id)
            try:
                batch += incoming(row, traces, args.column, args.model)
            except RecordError as error:
                problems.append(f"row {row.id}: {error}")
            if len(batch) >= ROWS_AT_ONCE:
                added, batch = added + write(db, batch), []
        added += write(db, batch)
    unknown = [row_id for row_id in traces or () if row_id not in met]
    problems += [f"no row has the id {row_id!r}" for row_id in unknown]
    for problem in problems[:SHOWN]:
        print(f"  {printable(problem)}")
    print(f"{added} new answers for {len(met)} rows, {len(problems)} problems")
    return 1 if problems else 0


def write(db: Any, batch: list[Incoming]) -> int:
    with transaction(db):
        return sum(add_rows(db, *entry) for entry in batch)


if __name__ == "__main__":
    sys.exit(main())
