"""The SQLite file: where it may lie, how it is opened, what is in it.

    questions   what was asked, once: id, digest (the key), asked (zlib of the key's JSON text)
    answers     (question, idx) -> the answer that is used; rows are added and never changed
    superseded  what `refresh` replaced

WAL mode: processes of one machine read while one of them writes, and a process that is killed leaves whole
transactions. synchronous=FULL: an answer that is reported as kept also survives the machine's loss of power.
"""

import contextlib
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from ekipl_rollout.errors import RecordError
from ekipl_rollout.record.filesystem import network_problem

APPLICATION_ID = 0x454B4950  # "EKIP", in the file's header
LAYOUT = 2  # of the tables, in the header's user_version
BUSY_SECONDS = 60.0
SMALLEST = 512  # bytes of the smallest page
WAL_BYTES = 64 << 20  # what a checkpoint leaves of the log

_creating = threading.Lock()  # until the new file is closed again, no other thread may connect to it

ROW = "source TEXT NOT NULL, status TEXT NOT NULL, output_tokens INTEGER NOT NULL, dollars REAL NOT NULL, kept_at REAL NOT NULL, value BLOB NOT NULL"
SCHEMA = (
    "CREATE TABLE questions (id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, asked BLOB NOT NULL)",
    f"CREATE TABLE answers (question INTEGER NOT NULL, idx INTEGER NOT NULL, {ROW}, PRIMARY KEY (question, idx))",
    f"CREATE TABLE superseded (question INTEGER NOT NULL, idx INTEGER NOT NULL, {ROW}, replaced_at REAL NOT NULL)",
    "CREATE INDEX superseded_of ON superseded (question)",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {LAYOUT}",
)


def open_to_write(path: Path, must_exist: bool = False) -> sqlite3.Connection:
    """A connection that reads and writes; makes the file when there is none. Raises RecordError, with the way out."""
    if problem := network_problem(path):
        raise RecordError(problem)
    if must_exist and not path.exists():
        raise RecordError(f"the record {path} does not exist")
    with _explained(path):
        _make_private(path)
        db = _connect(path)
        _wait_for(lambda: db.execute("PRAGMA journal_mode=WAL").fetchone())
        db.execute("PRAGMA synchronous=FULL")
        db.execute(f"PRAGMA journal_size_limit={WAL_BYTES}")
        with transaction(db):
            if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
                for statement in SCHEMA:
                    db.execute(statement)
        _check_layout(db, path)
    return db


def open_to_read(path: Path) -> sqlite3.Connection:
    """A connection for tools. A file on a network file system or in a folder that cannot be written to is read when no
    process has it open."""
    if not path.is_file():
        raise RecordError(f"the record {path} does not exist")
    with _explained(path):
        if problem := network_problem(path) or ("" if os.access(path.parent, os.W_OK) else f"{path} is read-only."):
            log = Path(f"{path}-wal")
            if log.exists() and log.stat().st_size:
                raise RecordError(f"{problem} It has a log beside it, so it is in use or was copied while in use.")
            db = sqlite3.connect(f"{path.resolve().as_uri()}?immutable=1", uri=True, isolation_level=None)
        else:
            db = _connect(path)
            db.execute("PRAGMA query_only=ON")
        _check_layout(db, path)
    return db


def opening_problem(path: Path) -> str | None:
    """Why the record at `path` could not be opened, known before a run starts; None for a good one and for none."""
    if problem := network_problem(path):
        return problem
    try:
        if path.stat().st_size:
            open_to_read(path).close()
    except RecordError as error:
        return str(error)
    except OSError:
        return None  # not there yet
    return None


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All or nothing. A deferred transaction could fail with "database is locked" in spite of the timeout."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # SQLite has rolled back by itself after some errors
            db.execute("ROLLBACK")
        raise


def _connect(path: Path) -> sqlite3.Connection:
    # isolation_level=None: transactions are ours. The connection moves to the one thread that uses it.
    with _creating:
        return sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)


def _check_layout(db: sqlite3.Connection, path: Path) -> None:
    application, layout = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if application == APPLICATION_ID and layout == LAYOUT:
        return
    if application == APPLICATION_ID:
        age, way = ("newer", "Update the package") if layout > LAYOUT else ("older", "Record again")
        raise RecordError(
            f"{path} was written by an {age} version of this package (layout {layout}, this one reads {LAYOUT}). {way}, or give another path."
        )
    if tables == {"answers"}:
        raise RecordError(
            f"{path} was written before records kept what was asked (layout 1), so its keys cannot be computed anew. "
            "Replay it with the version that wrote it, or give another path and record again."
        )
    raise RecordError(f"{path} is an SQLite file of something else (tables: {', '.join(sorted(tables)) or 'none'}).")


def _make_private(path: Path) -> None:
    """0600, from its first moment. SQLite gives the log beside it the mode of the file.

    An existing file is not opened here, not even to look: to close any descriptor of a file drops all locks that this
    process has on it (POSIX), also those of SQLite's connections, and another process would then delete a log in use
    (sqlite.org/howtocorrupt.html, section 2.2).
    """
    try:
        status = path.stat()
        if 0 < status.st_size < SMALLEST:
            raise sqlite3.DatabaseError("file is not a database")  # SQLite would take it for an empty one
        if stat.S_IMODE(status.st_mode) & 0o077:
            os.chmod(path, 0o600)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _creating, contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _wait_for(act) -> None:
    """Switching to WAL ignores the busy timeout when another process switches at the same moment."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            act()
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """What opening a file can raise, as RecordError with the way out."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise RecordError(
            f"the record {path} cannot be opened: {error}. Is its folder writable, its disk full?"
        ) from None
    except sqlite3.DatabaseError as error:
        if "not a database" in str(error):
            raise RecordError(
                f"{path} is no record: it does not begin as an SQLite file does. Give another path."
            ) from None
        raise RecordError(
            f"the record {path} is damaged: {error}. See what is left with `python -m ekipl_rollout.record verify {path}`, "
            f"and save it with `... export {path} saved.jsonl` and `... import new.sqlite saved.jsonl`."
        ) from None
    except OSError as error:
        raise RecordError(f"the record {path} cannot be opened: {error}") from None
