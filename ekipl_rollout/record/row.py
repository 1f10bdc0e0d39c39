"""An answer as the record keeps it: five columns to count and prune by, and everything else as compressed JSON.

A later version may give `Answer` more fields. What this version does not know stays in the file and in exports and is
left out of the `Answer`; what an older version did not write takes the field's default.
"""

import json
import zlib
from collections.abc import Mapping
from dataclasses import MISSING, fields
from enum import Enum
from typing import Any, NamedTuple

from ekipl_rollout.answer import Answer, AnswerStatus
from ekipl_rollout.errors import RecordError

OF_THE_PLACE = ("index", "recorded")  # where a row stands and how it came, not what was said
COLUMNS = ("source", "status", "output_tokens", "dollars")
MOST_TOKENS = 2**62  # SQLite's integers have 64 bits; a count comes from outside
MOST_BYTES = 64_000_000  # of an answer unpacked: a record of somebody else's may hold a bomb


class Row(NamedTuple):
    """One kept answer, its index apart."""

    source: str
    """Name of the expert that was asked."""

    status: str
    output_tokens: int
    dollars: float
    """What it cost when it was asked for."""

    kept_at: float
    """Seconds since 1970 when it was written; 0 for an imported trace that did not say."""

    value: bytes
    """zlib of a JSON object with the other fields of `Answer`. zlib's checksum tells a damaged one."""

    @property
    def content(self) -> tuple:
        """Equal for equal answers, whatever version of zlib packed them."""
        try:
            return (*self[:-1], unpack(self.value))
        except zlib.error:
            return self


def to_row(answer: Answer, kept_at: float) -> Row:
    """Raises TypeError or ValueError for a field that no row can hold."""
    rest = {
        field.name: getattr(answer, field.name)
        for field in fields(answer)
        if field.name not in OF_THE_PLACE and field.name not in COLUMNS
    }
    status, tokens = AnswerStatus(answer.status).value, min(int(answer.output_tokens), MOST_TOKENS)
    return Row(str(answer.source), status, tokens, float(answer.dollars), round(kept_at, 3), pack_value(rest))


def from_row(row: Row, index: int) -> Answer:
    """The answer, as it was when it came. Raises RecordError when the row is damaged."""
    try:
        values = {
            **json.loads(unpack(row.value)),
            **dict(zip(COLUMNS, row, strict=False)),
            "index": index,
            "status": AnswerStatus(row.status),
        }
        known = {f.name: _read(f.type, values[f.name]) for f in fields(Answer) if f.name in values}
        if not all(f.name in known for f in fields(Answer) if f.default is f.default_factory is MISSING):
            raise ValueError("a field is missing")
        if not isinstance(known["text"], str) or not isinstance(row.source, str):
            raise ValueError("its text is none")
        return Answer(**known)
    except (zlib.error, ValueError, TypeError, RecursionError) as error:  # JSON errors are ValueErrors
        raise RecordError(f"answer {index} of {row.source} is damaged: {error}") from None


def is_damaged(row: Row) -> bool:
    try:
        from_row(row, 0)
    except RecordError:
        return True
    return False


def row_to_dict(row: Row) -> dict[str, Any]:
    """For an export: all fields on one level. Raises RecordError when the row is damaged."""
    try:
        rest = json.loads(unpack(row.value))
    except (zlib.error, ValueError, TypeError, RecursionError) as error:
        raise RecordError(f"an answer of {row.source} is damaged: {error}") from None
    return {**{name: getattr(row, name) for name in (*COLUMNS, "kept_at")}, **rest}


def row_from_dict(values: Mapping[str, Any]) -> Row:
    """The opposite of `row_to_dict`: equal rows come back. Raises RecordError, saying what is wrong."""
    text, source, status = values.get("text"), values.get("source"), values.get("status", "finished")
    if not isinstance(text, str):
        raise RecordError(f"an answer's `text` must be a string, not {text!r:.80}")
    if not isinstance(source, str) or not source or not source.isprintable():
        raise RecordError(f"an answer's `source` must name an expert, not {source!r:.80}")
    if status not in {known.value for known in AnswerStatus}:
        raise RecordError(f"`status` {status!r:.80} is not one of {', '.join(s.value for s in AnswerStatus)}")
    numbers = [values.get(name, 0) for name in ("output_tokens", "dollars", "kept_at")]
    if not all(is_amount(n) for n in numbers):
        raise RecordError(f"`output_tokens`, `dollars` and `kept_at` must be numbers from 0 on, not {numbers!r:.80}")
    rest = {k: v for k, v in values.items() if k not in (*COLUMNS, *OF_THE_PLACE, "kept_at", "replaced_at")}
    return Row(
        source, status, min(int(numbers[0]), MOST_TOKENS), float(numbers[1]), float(numbers[2]), pack_value(rest)
    )


def is_amount(value: Any) -> bool:
    """A finite number, 0 or more, that SQLite can hold."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < MOST_TOKENS


def unpack(value: bytes) -> bytes:
    """Raises zlib.error for what zlib did not pack, and for more than MOST_BYTES."""
    inflater = zlib.decompressobj()
    text = inflater.decompress(value, MOST_BYTES)
    if not inflater.eof:
        raise zlib.error("it is not whole, or too long")
    return text


def pack_value(rest: Mapping[str, Any]) -> bytes:
    text = json.dumps(rest, ensure_ascii=True, sort_keys=True, default=_plain)  # sorted: equal answers, equal rows
    return zlib.compress(text.encode("ascii"), 1)


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    raise TypeError(f"an answer holds a {type(value).__name__}, which the record cannot keep")


def _read(kind: Any, value: Any) -> Any:
    """JSON has no tuples; an immutable `Answer` has nothing else."""
    if isinstance(value, list) and "tuple" in str(kind):
        return tuple(_read(kind, item) for item in value)
    return value
