"""The one thread of a process that writes: what waits together is committed together.

A commit costs a write to the disk, whether it holds one answer or fifty. So the thread takes everything that has come
while it was busy and commits it at once; many askers share one write and none of them blocks the event loop.
"""

import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field

from ekipl_rollout.answer import Answer
from ekipl_rollout.errors import RecordError
from ekipl_rollout.record.database import transaction
from ekipl_rollout.record.key import Key
from ekipl_rollout.record.row import Row, to_row
from ekipl_rollout.record.tables import keep_rows

logger = logging.getLogger(__name__)

AT_ONCE = 256  # entries a transaction; bounds how long other processes wait for the file


@dataclass
class Entry:
    """Answers to one question that are to be kept together."""

    key: Key | None = None
    """None: nothing new, only what could not be written before."""

    answers: Mapping[int, Answer] = field(default_factory=dict)
    replace: bool = False
    rows: dict[int, Row] = field(default_factory=dict)
    done: "Future[dict[int, Row]]" = field(default_factory=Future)
    """Done once the entry is on the disk, with the answers of others that stood there before (`keep_rows`); RecordError
    when it could not be written."""


class Writer(threading.Thread):
    """Owns a connection from `start()` to `stop()`.

    An entry whose write fails (a full disk) stays in `unkept` and goes out again with the next one: its answers were paid
    for, and its caller has been told.
    """

    def __init__(self, db: sqlite3.Connection, name: str):
        super().__init__(name=f"record {name}", daemon=True)
        self._db, self._file = db, name
        self._waiting: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        self.unkept: list[Entry] = []

    def submit(self, entry: Entry) -> "Future[dict[int, Row]]":
        """Returns at once. The write happens whether or not anybody waits for it: the future cannot be cancelled."""
        entry.done.set_running_or_notify_cancel()
        self._waiting.put(entry)
        return entry.done

    def stop(self) -> None:
        """Writes what waits, then ends the thread and closes the connection."""
        self._waiting.put(None)
        self.join()
        if self.unkept:
            answers = sum(len(entry.answers) for entry in self.unkept)
            logger.error("%d answers were paid for and could not be kept in %s", answers, self._file)

    def run(self) -> None:
        stopping = False
        while not stopping:
            batch = [self._waiting.get()]
            while batch[-1] is not None and len(batch) < AT_ONCE:
                try:
                    batch.append(self._waiting.get_nowait())
                except queue.Empty:
                    break
            stopping = batch[-1] is None
            self._commit([entry for entry in batch if entry is not None])
        self._db.close()

    def _commit(self, batch: list[Entry]) -> None:
        entries, others = self.unkept + [entry for entry in batch if _prepare(entry)], []
        try:
            if entries:
                with transaction(self._db):
                    others = [keep_rows(self._db, e.key, e.rows, e.replace) if e.key else {} for e in entries]
        except Exception as error:  # whatever it is, the thread lives and the answers stay
            self.unkept = [entry for entry in entries if entry.key]
            for entry in batch:
                _settle(entry.done, RecordError(f"the record {self._file} cannot be written: {error}"))
            return
        self.unkept = []
        for entry, rows in zip(entries, others, strict=True):
            _settle(entry.done, rows)


def _prepare(entry: Entry) -> bool:
    try:
        now = time.time()
        entry.rows = {index: to_row(answer, now) for index, answer in entry.answers.items()}
        return True
    except Exception as error:  # a field that no row can hold is a bug of whoever made the answer, and theirs alone
        _settle(entry.done, error)
        return False


def _settle(future: Future, result: dict[int, Row] | Exception) -> None:
    if future.done():  # it failed before, and its caller was told
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
