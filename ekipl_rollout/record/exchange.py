"""JSON lines out of a record and into one. docs/record.md has the format with examples.

A line is one question with its answers. `export` writes what was asked as the key has it (`asked`, pictures by their
sha256). `import` takes such lines back, unchanged, and also traces: `messages` or `question` with picture files, a
`model`, and `text` or `answers`. A trace belongs to an expert of kind `offline` with that model.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ekipl_rollout.answer import Question
from ekipl_rollout.errors import RecordError
from ekipl_rollout.prompt import question_of, raw_prompt_of
from ekipl_rollout.record.database import transaction
from ekipl_rollout.record.key import OFFLINE, VERSION, Key, key_from, key_of
from ekipl_rollout.record.row import Row, is_amount, row_from_dict, row_to_dict
from ekipl_rollout.record.scan import scan
from ekipl_rollout.record.tables import add_rows
from ekipl_rollout.settings import ExpertSettings

MOST_PICTURE_BYTES = 64_000_000
LINES_AT_ONCE = 200  # a transaction: bounds how long a run that uses the file waits


class Incoming(NamedTuple):
    """Answers to one question on their way in; the arguments of `add_rows`."""

    key: Key
    rows: list[tuple[int, Row]]
    """(index, answer)"""

    old: list[tuple[int, Row, float]] = []
    """(index, superseded answer, when it was replaced)"""


@dataclass
class Imported:
    """What came of an import."""

    lines: int = 0
    answers: int = 0
    """New ones; what was there already is not counted."""

    refused: list[tuple[int, str]] = field(default_factory=list)
    """(line number, reason)"""


def export_lines(db: sqlite3.Connection, with_history: bool = False) -> Iterator[dict[str, Any]]:
    """One dictionary a question; damaged answers are left out (`verify` names them)."""
    for entry in scan(db):
        answers, old = _readable(entry.answers), _readable(entry.superseded)
        if entry.asked is None or not (answers or old):
            continue
        line = {"digest": entry.digest.hex(), "asked": json.loads(entry.asked), "answers": answers}
        if with_history and old:
            line["superseded"] = old
        yield line


def _readable(rows: Iterable[tuple]) -> list[dict[str, Any]]:
    """(index, row, ...) -> dictionaries; the third value of superseded ones is when they were replaced."""
    found = []
    for index, row, *replaced_at in rows:
        try:
            found.append({"index": index, **dict(zip(("replaced_at",), replaced_at, strict=False)), **row_to_dict(row)})
        except RecordError:
            continue
    return found


def import_lines(db: sqlite3.Connection, lines: Iterable[str], pictures: Path, total: Imported) -> Iterator[int]:
    """Brings lines in and counts in `total`; yields how many answers were new, once a transaction. A line that cannot be
    used is refused whole, with its reason, and the others come in. Importing twice adds nothing.

    pictures: folder that relative picture paths of traces start from.
    """
    batch = []
    for line in lines:
        total.lines += 1
        if line.strip():
            try:
                batch.append(read_line(line, pictures))
            except RecordError as error:
                total.refused.append((total.lines, str(error)))
        if len(batch) == LINES_AT_ONCE:
            yield _add_all(db, batch, total)
            batch = []
    yield _add_all(db, batch, total)


def _add_all(db: sqlite3.Connection, batch: list[Incoming], total: Imported) -> int:
    with transaction(db):
        added = sum(add_rows(db, *entry) for entry in batch)
    total.answers += added
    return added


def read_line(line: str, pictures: Path) -> Incoming:
    """What one line brings. Raises RecordError, saying what is wrong with it."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"no JSON: {error}") from None
    if not isinstance(values, dict):
        raise RecordError(f"a line must be an object, not {type(values).__name__}")
    try:
        return _read_export(values) if "asked" in values else _read_trace(values, pictures)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:  # NaN in `asked`, a time that is none, ...
        raise RecordError(f"it holds what no record keeps: {error}") from None


def _read_export(values: Mapping[str, Any]) -> Incoming:
    asked = values["asked"]
    if not isinstance(asked, dict) or asked.get("version") != VERSION:
        version = asked.get("version") if isinstance(asked, dict) else asked
        raise RecordError(f"`asked.version` is {version!r:.80}; this package makes keys of version {VERSION}")
    key = key_from(asked)
    if values.get("digest", key.digest.hex()) != key.digest.hex():
        raise RecordError("`digest` does not belong to `asked`: one of them was changed")
    answers = [(_index(a, i), row_from_dict(a)) for i, a in enumerate(_objects(values, "answers"))]
    old = [(_index(a, i), row_from_dict(a), _replaced_at(a)) for i, a in enumerate(_objects(values, "superseded"))]
    return Incoming(key, answers, old)


def _read_trace(values: Mapping[str, Any], pictures: Path) -> Incoming:
    said = values.get("answers", [values["text"]] if "text" in values else None)
    if not isinstance(said, list) or not said:
        raise RecordError("`text` (one answer) or `answers` (a list) is missing")
    answers = [{"text": answer} if isinstance(answer, str) else answer for answer in said]
    if not all(isinstance(answer, dict) for answer in answers):
        raise RecordError("`answers` must hold texts, or objects with a `text`")
    named = {"source": values["source"]} if "source" in values else {}
    return trace(_question(values, pictures), values.get("model"), [{**named, **a} for a in answers])


def trace(question: Question, model: Any, answers: Iterable[Mapping[str, Any]]) -> Incoming:
    """Answers that `model` gave to a question at some other time, as those of an offline expert of that model."""
    if not isinstance(model, str) or not model:
        raise RecordError("`model` must name the model that answered (or give `asked`, as an export does)")
    key = key_of(ExpertSettings(name="trace", kind=OFFLINE, model=model), question)
    return Incoming(key, [(i, row_from_dict({"source": model, **answer})) for i, answer in enumerate(answers)])


def _question(values: Mapping[str, Any], pictures: Path) -> Question:
    """`messages`, or `question` as the only one; <image> in a text stands for the next picture, as in verl's rows."""
    turns = values.get("messages", [{"role": "user", "content": values.get("question")}])
    if not isinstance(turns, list) or not turns:
        raise RecordError("`messages` must be a list of turns")
    for turn in turns:
        if not isinstance(turn, dict) or not all(isinstance(turn.get(name), str) for name in ("role", "content")):
            raise RecordError(f"a turn must be an object with the texts `role` and `content`, not {turn!r:.80}")
    names = values.get("images", [])
    names = [names] if isinstance(names, str) else names
    if not names and any("<image>" in turn["content"] for turn in turns):  # verl would take it for text
        raise RecordError("the text has an <image> marker, and there are no `images`")
    try:
        return question_of(raw_prompt_of(turns, [{"bytes": _picture(name, pictures)} for name in names]), "")
    except (ValueError, TypeError) as error:
        raise RecordError(str(error)) from None


def _picture(name: Any, pictures: Path) -> bytes:
    if not isinstance(name, str):
        raise RecordError(f"`images` must hold file names, not {name!r:.80}")
    try:
        path = pictures / name
        if not path.is_file() or path.stat().st_size > MOST_PICTURE_BYTES:  # a device never ends
            raise ValueError(f"there is no such file of at most {MOST_PICTURE_BYTES / 1e6:.0f} MB")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise RecordError(f"picture {name!r:.200}: {error}") from None


def _objects(values: Mapping[str, Any], name: str) -> list[dict]:
    found = values.get(name, [])
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise RecordError(f"`{name}` must be a list of objects")
    return found


def _replaced_at(answer: Mapping[str, Any]) -> float:
    value = answer.get("replaced_at", 0.0)
    if not is_amount(value):
        raise RecordError(f"`replaced_at` must be seconds since 1970, not {value!r:.80}")
    return float(value)


def _index(answer: Mapping[str, Any], position: int) -> int:
    index = answer.get("index", position)
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < 1 << 31:
        raise RecordError(f"`index` must be 0 or more, not {index!r:.80}")
    return index
