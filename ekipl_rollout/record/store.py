"""A record in use: answers are looked up and kept without blocking the event loop."""

import asyncio
import atexit
import contextlib
import os
import sqlite3
import weakref
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ekipl_rollout.answer import Answer, Question
from ekipl_rollout.errors import RecordError
from ekipl_rollout.record.database import open_to_write
from ekipl_rollout.record.key import Key, key_of
from ekipl_rollout.record.row import Row, from_row
from ekipl_rollout.record.tables import find_rows
from ekipl_rollout.record.writer import Entry, Writer
from ekipl_rollout.settings import ExpertSettings


class Record:
    """One file, opened once a process. Two threads of its own: one reads, one writes (WAL readers wait for nobody).

    Any number of processes of one machine may have the file open; after a fork the child opens it for itself.
    """

    def __init__(self, path: str | Path, must_exist: bool = False):
        self.path = Path(path)
        self._writer = Writer(open_to_write(self.path, must_exist), str(self.path))
        self._reading = open_to_write(self.path, must_exist=True)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix=f"record {self.path} read")
        self._writer.start()
        self._process, self._users, self._open = os.getpid(), 0, True
        atexit.register(_close, weakref.ref(self))  # what waits to be written is written when Python ends

    async def find(
        self, settings: ExpertSettings, question: Question, num_answers: int
    ) -> tuple[Key, dict[int, Answer]]:
        """The key of the question, and the answers that are there, by index. Raises RecordError.

        Hashing pictures and decoding happen in the reading thread. A damaged answer counts as missing.
        """
        self._must_be_ours()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._reader, self._find, settings, question, num_answers)

    async def keep(self, key: Key, answers: Mapping[int, Answer], replace: bool = False) -> dict[int, Answer]:
        """Returns once the answers are on the disk, with what now stands at these indexes: another process may have been
        first, and then its answers are used, here as in a replay.

        The write happens even if the caller is cancelled meanwhile. Raises RecordError when it fails; the answers then
        wait in memory for `recover`.
        """
        self._must_be_ours()
        others = await asyncio.wrap_future(self._writer.submit(Entry(key, answers, replace)))
        return {**answers, **self._whole(others)}

    @property
    def is_failing(self) -> bool:
        """True while answers wait that could not be written."""
        return bool(self._writer.unkept)

    async def recover(self) -> None:
        """Writes the answers that wait. Raises RecordError when that still fails."""
        self._must_be_ours()
        await asyncio.wrap_future(self._writer.submit(Entry()))

    def count(self) -> int:
        """Answers in the file."""
        self._must_be_ours()
        return self._reader.submit(lambda: self._reading.execute("SELECT count(*) FROM answers").fetchone()[0]).result()

    def share(self) -> "Record":
        """One more user, who calls `release`."""
        self._users += 1
        return self

    def release(self) -> None:
        """The last user closes the file."""
        self._users -= 1
        if self._users <= 0:
            self.close()

    def close(self) -> None:
        """Writes what waits. Twice does no harm."""
        if not self._open or os.getpid() != self._process:
            return
        self._open = False
        self._reader.shutdown()
        self._reading.close()
        self._writer.stop()

    def _find(self, settings: ExpertSettings, question: Question, num_answers: int) -> tuple[Key, dict[int, Answer]]:
        key = key_of(settings, question)
        try:
            rows = find_rows(self._reading, key.digest, num_answers)
        except sqlite3.Error as error:
            raise RecordError(
                f"the record {self.path} cannot be read: {error}. See `python -m ekipl_rollout.record verify {self.path}`."
            ) from None
        return key, self._whole(rows)

    def _whole(self, rows: dict[int, Row]) -> dict[int, Answer]:
        answers = {}
        for index, row in rows.items():
            with contextlib.suppress(RecordError):
                answers[index] = from_row(row, index)
        return answers

    def _must_be_ours(self) -> None:
        if os.getpid() != self._process:
            raise RecordError(f"the record {self.path} was opened before a fork. Open it in the process that uses it.")
        if not self._open:
            raise RecordError(f"the record {self.path} is closed")


def _close(reference: "weakref.ref[Record]") -> None:
    record = reference()
    if record is not None:
        record.close()
