"""Looking after a record: counting it, checking it, bringing files together, throwing answers away."""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ekipl_rollout.errors import RecordError
from ekipl_rollout.record.database import transaction
from ekipl_rollout.record.key import VERSION, key_from
from ekipl_rollout.record.row import Row, from_row, is_damaged
from ekipl_rollout.record.scan import Entry, scan
from ekipl_rollout.record.tables import add_rows

QUESTIONS_AT_ONCE = 200  # a transaction: bounds how long a run that uses the file waits


@dataclass
class Group:
    """Sums over the answers of one expert to one model's questions."""

    questions: int = 0
    answers: int = 0
    superseded: int = 0
    statuses: Counter = field(default_factory=Counter)
    tokens: int = 0
    """Output tokens that were billed."""

    dollars: float = 0.0
    """Superseded answers were paid for as well and are in it."""

    first: float = float("inf")
    last: float = 0.0
    """Seconds since 1970 of the oldest and newest answer."""

    def add(self, row: Row, superseded: bool) -> None:
        if superseded:
            self.superseded += 1
        else:
            self.answers += 1
            self.statuses[row.status] += 1
        self.tokens += row.output_tokens
        self.dollars += row.dollars
        self.first, self.last = min(self.first, row.kept_at), max(self.last, row.kept_at)


def count(db: sqlite3.Connection, groups: dict[tuple[str, str, str], Group]) -> Iterator[int]:
    """Fills `groups`: (expert, kind, model) -> sums. Yields once a question, for a progress bar."""
    for entry in scan(db):
        asked = asked_of(entry)
        who = str(asked.get("kind", "?")), str(asked.get("model", "?"))
        seen = set()
        for _, row, superseded in entry.all():
            groups.setdefault((row.source, *who), Group()).add(row, superseded)
            seen.add(row.source)
        for source in seen:
            key = (source, *who)
            groups[key].questions += 1
        yield 1


def asked_of(entry: Entry) -> dict[str, Any]:
    """What was asked; empty when it is damaged."""
    try:
        asked = json.loads(entry.asked or "{}")
    except (ValueError, RecursionError):
        return {}
    return asked if isinstance(asked, dict) else {}


def check_pages(db: sqlite3.Connection) -> list[str]:
    """What SQLite finds wrong with its own pages and indexes; nothing when all is well. Reads the whole file."""
    try:
        found = [line for (line,) in db.execute("PRAGMA integrity_check(20)")]
    except sqlite3.DatabaseError as error:
        return [str(error)]
    return [] if found == ["ok"] else found


def check_entries(db: sqlite3.Connection, problems: list[str]) -> Iterator[int]:
    """Appends a sentence for each question whose key or answers are damaged. Yields once a question."""
    for entry in scan(db):
        asked = asked_of(entry)
        if not asked or key_from(asked).digest != entry.digest:
            problems.append(f"question {entry.id}: what was asked does not belong to its key")
        if asked.get("version", VERSION) != VERSION:
            problems.append(
                f"question {entry.id}: its key is of version {asked['version']}, this package makes {VERSION}"
            )
        for index, row, _ in entry.all():
            try:
                from_row(row, index)
            except RecordError as error:
                problems.append(f"question {entry.id}: {error}")
        yield 1
    try:
        orphans = db.execute(
            "SELECT count(*) FROM answers WHERE question NOT IN (SELECT id FROM questions)"
        ).fetchone()[0]
    except sqlite3.DatabaseError:
        return  # check_pages has said so
    if orphans:
        problems.append(f"{orphans} answers belong to no question")


def merge(db: sqlite3.Connection, source: sqlite3.Connection) -> Iterator[int]:
    """Brings the answers of `source` in; yields how many were new, once a transaction. Doing it twice adds nothing.

    Where both have an answer at the same index, that of `db` stays and the other goes to the next free index.
    """
    batch: list[Entry] = []
    for entry in scan(source):
        batch.append(entry)
        if len(batch) == QUESTIONS_AT_ONCE:
            yield _merge(db, batch)
            batch = []
    yield _merge(db, batch)


def _merge(db: sqlite3.Connection, batch: list[Entry]) -> int:
    added = 0
    with transaction(db):
        for entry in batch:
            asked = asked_of(entry)
            if asked and key_from(asked).digest == entry.digest:
                added += add_rows(db, key_from(asked), entry.answers, entry.superseded)
    return added


@dataclass(frozen=True)
class Filter:
    """Which answers to throw away: those that fit everything that is set."""

    experts: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()
    statuses: frozenset[str] = frozenset()
    before: float | None = None
    """Kept before this moment, in seconds since 1970."""

    versions: frozenset[int] = frozenset()
    """Versions of the key."""

    only_superseded: bool = False
    only_damaged: bool = False

    def fits(self, asked: dict[str, Any], row: Row, superseded: bool) -> bool:
        return (
            (not self.experts or row.source in self.experts)
            and (not self.models or asked.get("model") in self.models)
            and (not self.statuses or row.status in self.statuses)
            and (self.before is None or row.kept_at < self.before)
            and (not self.versions or asked.get("version") in self.versions)
            and (superseded or not self.only_superseded)
            and (not self.only_damaged or is_damaged(row))
        )


Doomed = dict[int, list[tuple[str, int, float]]]
"""question -> [(table, index, kept_at)]"""


def find_doomed(db: sqlite3.Connection, which: Filter, found: Doomed, groups: dict[str, Group]) -> Iterator[int]:
    """Fills `found`, and `groups` (expert -> sums) for a look beforehand. Yields once a question."""
    for entry in scan(db):
        asked = asked_of(entry)
        for index, row, superseded in entry.all():
            if which.fits(asked, row, superseded):
                table = "superseded" if superseded else "answers"
                found.setdefault(entry.id, []).append((table, index, row.kept_at))
                groups.setdefault(row.source, Group()).add(row, superseded)
        yield 1


def prune(db: sqlite3.Connection, found: Doomed) -> Iterator[int]:
    """Deletes them, and questions that have no answer left; yields how many answers went, once a transaction."""
    numbers = list(found)
    for start in range(0, len(numbers), QUESTIONS_AT_ONCE):
        gone = 0
        with transaction(db):
            for question in numbers[start : start + QUESTIONS_AT_ONCE]:
                for table, index, kept_at in found[question]:
                    statement = f"DELETE FROM {table} WHERE question = ? AND idx = ? AND kept_at = ?"
                    gone += db.execute(statement, (question, index, kept_at)).rowcount
                db.execute(
                    "DELETE FROM questions WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM answers WHERE question = ?1) "
                    "AND NOT EXISTS (SELECT 1 FROM superseded WHERE question = ?1)",
                    (question,),
                )
        yield gone
