"""Reading and writing answers on an open connection. Callers bring the transaction."""

import sqlite3
import time
import zlib
from collections.abc import Mapping, Sequence

from ekipl_rollout.record.key import Key
from ekipl_rollout.record.row import Row, is_damaged

FIELDS = ", ".join(Row._fields)
PLACES = ", ".join("?" * len(Row._fields))


def find_rows(db: sqlite3.Connection, digest: bytes, below: int) -> dict[int, Row]:
    """Index -> row of the answers with an index below `below`."""
    rows = db.execute(
        f"SELECT idx, {FIELDS} FROM answers WHERE question = (SELECT id FROM questions WHERE digest = ?) AND idx < ?",
        (digest, below),
    )
    return {index: Row(*row) for index, *row in rows}


def question_id(db: sqlite3.Connection, key: Key) -> int:
    """Number of the question in this file; it is added when it is new."""
    found = db.execute("SELECT id FROM questions WHERE digest = ?", (key.digest,)).fetchone()
    if found is None:
        asked = zlib.compress(key.asked.encode("ascii"), 1)
        db.execute("INSERT INTO questions (digest, asked) VALUES (?, ?)", (key.digest, asked))
        found = db.execute("SELECT last_insert_rowid()").fetchone()
    return found[0]


def keep_rows(db: sqlite3.Connection, key: Key, rows: Mapping[int, Row], replace: bool = False) -> dict[int, Row]:
    """Keeps answers at their indexes; returns those of others that stood there already.

    A place that is taken (another process asked the same at the same time) keeps its answer, so that a replay gives what
    was used first; ours was paid for as well and goes to the next free index. With `replace`, and where the old answer is
    damaged, ours takes the place and the old one becomes history.
    """
    question, others = question_id(db, key), {}
    for index, row in rows.items():
        standing = _at(db, question, index)
        if standing is not None and (replace or is_damaged(standing)):
            _supersede(db, question, index)
            standing = None
        if standing is None:
            _add(db, question, index, row)
        else:
            others[index] = standing
    for index in others:  # only now: the next free index must not be one of ours
        _append(db, question, rows[index])
    return others


def add_rows(
    db: sqlite3.Connection, key: Key, rows: Sequence[tuple[int, Row]], old: Sequence[tuple[int, Row, float]] = ()
) -> int:
    """Brings in answers of elsewhere; returns how many were new. Doing it twice changes nothing.

    rows: (index, row); an index that is taken by another answer is exchanged for the next free one.
    old: (index, row, replaced_at) of superseded answers.
    """
    question = question_id(db, key)
    known = {Row(*row).content for row in db.execute(f"SELECT {FIELDS} FROM answers WHERE question = ?", (question,))}
    known |= {
        Row(*row).content for row in db.execute(f"SELECT {FIELDS} FROM superseded WHERE question = ?", (question,))
    }
    new = [(index, row) for index, row in rows if row.content not in known]
    displaced = [row for index, row in new if not _add(db, question, index, row)]
    for row in displaced:  # only now: the next free index must not be one of theirs
        _append(db, question, row)
    known |= {row.content for _, row in new}
    history = [(index, row, at) for index, row, at in old if row.content not in known]
    db.executemany(
        f"INSERT INTO superseded (question, idx, {FIELDS}, replaced_at) VALUES (?, ?, {PLACES}, ?)",
        [(question, index, *row, at) for index, row, at in history],
    )
    return len(new) + len(history)


def _add(db: sqlite3.Connection, question: int, index: int, row: Row) -> bool:
    """False when the place is taken."""
    statement = f"INSERT OR IGNORE INTO answers (question, idx, {FIELDS}) VALUES (?, ?, {PLACES})"
    return db.execute(statement, (question, index, *row)).rowcount == 1


def _append(db: sqlite3.Connection, question: int, row: Row) -> None:
    (free,) = db.execute("SELECT coalesce(max(idx), -1) + 1 FROM answers WHERE question = ?", (question,)).fetchone()
    _add(db, question, free, row)


def _at(db: sqlite3.Connection, question: int, index: int) -> Row | None:
    statement = f"SELECT {FIELDS} FROM answers WHERE question = ? AND idx = ?"
    found = db.execute(statement, (question, index)).fetchone()
    return None if found is None else Row(*found)


def _supersede(db: sqlite3.Connection, question: int, index: int) -> None:
    place, now = (question, index), round(time.time(), 3)
    copy = f"SELECT question, idx, {FIELDS}, ? FROM answers WHERE question = ? AND idx = ?"
    db.execute(f"INSERT INTO superseded {copy}", (now, *place))
    db.execute("DELETE FROM answers WHERE question = ? AND idx = ?", place)
