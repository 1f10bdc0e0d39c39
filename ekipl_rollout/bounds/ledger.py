"""The ledger: money is written down before it is spent, so that a run that is killed still knows what it may have cost.

One SQLite file with one writer. `reserved` holds the requests that are out; when the file is opened, those that a
killed process left there are charged in full, because the provider may have answered them.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ekipl_rollout.errors import EkiplError

VERSION = 1
NO_STEP = -1
BUSY_SECONDS = 15.0  # the processes of a run that was just killed may take a moment to let go

_TABLES = """
CREATE TABLE IF NOT EXISTS spent (expert TEXT, step INTEGER, nano INTEGER NOT NULL, PRIMARY KEY (expert, step)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reserved (request INTEGER PRIMARY KEY, expert TEXT, step INTEGER, nano INTEGER NOT NULL);
"""
_SPEND = "INSERT INTO spent VALUES (?, ?, ?) ON CONFLICT (expert, step) DO UPDATE SET nano = nano + excluded.nano"


class LedgerError(EkiplError):
    """The ledger cannot be used; without it no money is spent."""


@dataclass(frozen=True)
class Reserve:
    """A request is about to go out."""

    request: int
    expert: str
    step: int | None
    nano: int


@dataclass(frozen=True)
class Settle:
    """A request ended and has cost `nano`."""

    request: int
    expert: str
    step: int | None
    nano: int


Entry = Reserve | Settle


class Ledger:
    """The file. It belongs to one process at a time; a second one is refused."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.path.exists():
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        # the governor writes from a thread, one write at a time
        self._db = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            self._prepare()
        except sqlite3.OperationalError as error:
            self._db.close()
            raise LedgerError(
                f"the ledger {self.path} cannot be opened ({error}). If another process is training in this folder, wait "
                "for it; else choose a file on a disk of this machine with ekipl.bounds.ledger."
            ) from None
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise LedgerError(
                f"the ledger {self.path} is damaged ({error}). It says what the run has spent: look that up with the "
                "provider, move the file away, and lower ekipl.bounds.max_dollars by it."
            ) from None

    def _prepare(self) -> None:
        # exclusive: one writer for sure, and no shared memory, so that it also works on a network file system
        self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, VERSION):
            raise sqlite3.DatabaseError(f"it is of version {version}, this program writes {VERSION}")
        self._db.execute("BEGIN EXCLUSIVE")
        for statement in _TABLES.strip().splitlines():
            self._db.execute(statement)
        self._db.execute(f"PRAGMA user_version={VERSION}")
        self.abandoned, self.abandoned_nano = self._db.execute(
            "SELECT count(*), coalesce(sum(nano), 0) FROM reserved"
        ).fetchone()
        rows = self._db.execute("SELECT expert, step, sum(nano) FROM reserved GROUP BY expert, step").fetchall()
        self._db.executemany(_SPEND, rows)
        self._db.execute("DELETE FROM reserved")
        self._db.execute("COMMIT")

    def spent(self) -> list[tuple[str, int | None, int]]:
        """(expert, step, nano-dollars) of everything so far."""
        rows = self._db.execute("SELECT expert, step, nano FROM spent").fetchall()
        return [(expert, None if step == NO_STEP else step, amount) for expert, step, amount in rows]

    def write(self, entries: Iterable[Entry]) -> None:
        """All of them in one transaction; on the disk when this returns. Raises LedgerError when that is not possible."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for entry in entries:
                step = NO_STEP if entry.step is None else entry.step
                if isinstance(entry, Reserve):
                    row = (entry.request, entry.expert, step, entry.nano)
                    self._db.execute("INSERT INTO reserved VALUES (?, ?, ?, ?)", row)
                else:
                    self._db.execute("DELETE FROM reserved WHERE request = ?", (entry.request,))
                    self._db.execute(_SPEND, (entry.expert, step, entry.nano))
            self._db.execute("COMMIT")
        except (sqlite3.Error, OverflowError) as error:  # SQLite's numbers have 64 bits
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise LedgerError(f"the ledger {self.path} cannot be written: {error}") from None

    def close(self) -> None:
        self._db.close()


def read_spent(path: str | Path) -> int | None:
    """Nano-dollars that a ledger which nobody has open says are gone; None when it is open, absent or unreadable."""
    if not Path(path).is_file():
        return None
    log = Path(f"{path}-wal")
    # without a log nobody has it open, and a plain reader would leave shared memory beside it, which no network has
    how = "mode=ro" if log.exists() and log.stat().st_size else "immutable=1"
    try:
        with contextlib.closing(sqlite3.connect(f"{Path(path).resolve().as_uri()}?{how}", uri=True, timeout=0.2)) as db:
            return db.execute(
                "SELECT (SELECT coalesce(sum(nano), 0) FROM spent) + (SELECT coalesce(sum(nano), 0) FROM reserved)"
            ).fetchone()[0]
    except sqlite3.Error:
        return None
