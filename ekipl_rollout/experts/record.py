"""Expert answers kept on disk: an answer that arrives is written before it is used, and is not asked for again.

One SQLite file in WAL mode, shared by the processes of one machine. A row is found by its content: provider, model,
messages, picture bytes, sampling settings, index of the answer. Neither key nor user name is part of it.
"""

import hashlib
import json
import os
import sqlite3
import zlib
from dataclasses import asdict, replace
from pathlib import Path

from ekipl_rollout.answer import Answer, AnswerStatus, Question
from ekipl_rollout.errors import ExpertError, Failure, RecordError
from ekipl_rollout.experts.base import Expert
from ekipl_rollout.settings import ExpertSettings

VERSION = 1  # of the key and the row; part of the key
BUSY_SECONDS = 60.0


class Record:
    """The file. One object a process."""

    def __init__(self, path: str | Path, must_exist: bool = False):
        self.path = Path(path)
        if must_exist and not self.path.exists():
            raise RecordError(f"the record {self.path} does not exist")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.path.exists():
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        self._db = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")  # answers cost money
        self._db.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")

    def get(self, key: str) -> Answer | None:
        row = self._db.execute("SELECT value FROM answers WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        value = json.loads(zlib.decompress(row[0]))
        return Answer(**{**value, "status": AnswerStatus(value["status"])})

    def put(self, answers: dict[str, Answer]) -> None:
        """All or none of them: one transaction, one write to the disk."""
        rows = [
            (k, zlib.compress(json.dumps(asdict(a), ensure_ascii=True).encode("ascii"), 1)) for k, a in answers.items()
        ]
        self._db.execute("BEGIN IMMEDIATE")  # a deferred one can fail with "database is locked" in spite of the timeout
        try:
            self._db.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?)", rows)
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def __len__(self) -> int:
        return self._db.execute("SELECT count(*) FROM answers").fetchone()[0]

    def close(self) -> None:
        self._db.close()


def question_digest(settings: ExpertSettings, question: Question) -> str:
    """sha256 of everything that decides what an expert is asked, the answer's index apart."""
    messages = [
        [turn.role, [hashlib.sha256(p).hexdigest() if isinstance(p, bytes) else f"text:{p}" for p in turn.parts]]
        for turn in question.messages
    ]
    asked = {
        "version": VERSION,
        "kind": settings.kind,
        "model": settings.model,
        "instruction": settings.instruction,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "max_tokens": settings.max_tokens,
        "messages": messages,
    }
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


class RecordedExpert:
    """An expert whose answers are kept. Without `live` it is a replay: nobody is asked."""

    def __init__(self, settings: ExpertSettings, record: Record, live: Expert | None):
        self.name, self._settings, self._record, self._live = settings.name, settings, record, live

    async def answer(self, question: Question, num_answers: int) -> list[Answer]:
        digest = question_digest(self._settings, question)
        keys = [f"{digest}-{index}" for index in range(num_answers)]
        found = {i: answer for i, key in enumerate(keys) if (answer := self._record.get(key)) is not None}
        missing = [i for i in range(num_answers) if i not in found]
        if missing and self._live is None:
            if not found:
                raise ExpertError(
                    Failure.NOT_RECORDED, f"no answer of {self.name} to this question in {self._record.path}"
                )
        elif missing:
            answers = await self._live.answer(question, len(missing))
            fresh = {index: replace(answer, index=index) for index, answer in zip(missing, answers, strict=False)}
            self._record.put({keys[index]: answer for index, answer in fresh.items()})
            found |= fresh
        recorded = {
            i: replace(a, source=self.name, index=i, recorded=True, seconds=0.0, dollars=0.0)
            for i, a in found.items()
            if i not in missing
        }
        return [recorded.get(i, found[i]) for i in sorted(found)]

    async def close(self) -> None:
        if self._live is not None:
            await self._live.close()
        self._record.close()
