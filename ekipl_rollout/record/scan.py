"""Everything in a record, question by question, in the order in which it was asked. Reads what can be read of a damaged
file."""

import contextlib
import sqlite3
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from ekipl_rollout.record.row import Row, unpack
from ekipl_rollout.record.tables import FIELDS

QUESTIONS_AT_ONCE = 500
MISSES_AT_END = 10_000  # numbers in a row without a question before a damaged file is given up


@dataclass
class Entry:
    """One question with its answers."""

    id: int
    digest: bytes
    asked: str | None
    """None when it is damaged."""

    answers: list[tuple[int, Row]] = field(default_factory=list)
    superseded: list[tuple[int, Row, float]] = field(default_factory=list)
    """(index, row, replaced_at)"""

    def all(self) -> Iterator[tuple[int, Row, bool]]:
        """(index, row, whether it was superseded)"""
        yield from ((index, row, False) for index, row in self.answers)
        yield from ((index, row, True) for index, row, _ in self.superseded)


def scan(db: sqlite3.Connection) -> Iterator[Entry]:
    """All questions. Works in short reads, so that it holds up no checkpoint of a run that uses the file."""
    last = 0
    while True:
        try:
            entries = _read(db, last, QUESTIONS_AT_ONCE)
        except sqlite3.DatabaseError:
            yield from _one_by_one(db, last)
            return
        if not entries:
            return
        yield from entries
        last = entries[-1].id


def count_questions(db: sqlite3.Connection) -> int:
    """For progress bars; 0 when a damaged file does not tell."""
    with contextlib.suppress(sqlite3.DatabaseError):
        return db.execute("SELECT count(*) FROM questions").fetchone()[0]
    return 0


def _read(db: sqlite3.Connection, after: int, at_most: int) -> list[Entry]:
    """The next questions. Raises sqlite3.DatabaseError where the file is damaged."""
    rows = db.execute("SELECT id, digest, asked FROM questions WHERE id > ? ORDER BY id LIMIT ?", (after, at_most))
    entries = {id_: Entry(id_, digest, _unpack(asked)) for id_, digest, asked in rows}
    if entries:
        span = (min(entries), max(entries))
        where = "WHERE question BETWEEN ? AND ? ORDER BY question, idx"
        for question, index, *row in db.execute(f"SELECT question, idx, {FIELDS} FROM answers {where}", span):
            if question in entries:
                entries[question].answers.append((index, Row(*row)))
        columns = f"question, idx, {FIELDS}, replaced_at"
        for question, index, *row, at in db.execute(f"SELECT {columns} FROM superseded {where}, replaced_at", span):
            if question in entries:
                entries[question].superseded.append((index, Row(*row), at))
    return list(entries.values())


def _one_by_one(db: sqlite3.Connection, last: int) -> Iterator[Entry]:
    """Past damaged pages: each question is looked up by its number."""
    misses = 0
    while misses < MISSES_AT_END:
        try:
            entries = _read(db, last, 1)
        except sqlite3.DatabaseError:
            last, misses = last + 1, misses + 1
            continue
        if not entries:
            return
        last, misses = entries[0].id, 0
        yield entries[0]


def _unpack(asked: bytes) -> str | None:
    try:
        return unpack(asked).decode("ascii")
    except (zlib.error, ValueError, TypeError):
        return None
