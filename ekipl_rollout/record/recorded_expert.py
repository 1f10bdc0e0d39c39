"""An expert behind its record."""

import asyncio
import contextlib
import logging
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

from ekipl_rollout.answer import Answer, Question
from ekipl_rollout.errors import ExpertError, Failure, RecordError
from ekipl_rollout.experts.base import Expert
from ekipl_rollout.record.key import OFFLINE, Key
from ekipl_rollout.record.store import Record
from ekipl_rollout.settings import ExpertSettings, RecordSettings

logger = logging.getLogger(__name__)


def behind_record(
    experts: Sequence[ExpertSettings], record: RecordSettings, build: Callable[[ExpertSettings], Expert]
) -> list[Expert]:
    """The experts of a run behind one record; `build` makes those that may really be asked. Raises RecordError."""
    if record.path is None:
        raise RecordError("ekipl.record.path is not set and there is no run folder to keep records in")
    replay = record.mode == "replay"
    kept = Record(record.path, must_exist=replay)
    return [
        RecordedExpert(
            settings,
            kept,
            live=None if replay or settings.kind == OFFLINE else build(settings),
            refresh=record.mode == "refresh",
            missing=record.missing if replay else "shorter",
        )
        for settings in experts
    ]


class RecordedExpert:
    """An expert whose answers are kept before they are used.

    live: who is asked for what is missing; None is a replay, in which nobody is asked.
    refresh: everything is asked again.
    missing: what a replay does about a missing answer, `shorter` or `error`.
    """

    def __init__(
        self,
        settings: ExpertSettings,
        record: Record,
        live: Expert | None,
        refresh: bool = False,
        missing: str = "shorter",
    ):
        self.name, self._settings, self._record, self._live = settings.name, settings, record.share(), live
        self._refresh, self._missing = refresh, missing
        self._asking: weakref.WeakValueDictionary[bytes, asyncio.Lock] = weakref.WeakValueDictionary()

    async def answer(self, question: Question, num_answers: int) -> list[Answer]:
        """Recorded answers, and new ones for what is missing. Raises ExpertError when there is none, and RecordError in
        a replay that may not lack any."""
        key, found = await self._find(question, num_answers)
        if self._live is None:
            return self._replayed(found, num_answers)
        if self._refresh:
            return list((await self._ask(self._live, key, question, list(range(num_answers)))).values())
        if len(found) < num_answers:
            async with self._alone(key) as others_asked:
                if others_asked:  # the same question a moment ago: what they paid for is there now
                    key, found = await self._find(question, num_answers)
                found = await self._complete(self._live, key, question, num_answers, found)
        return [found[index] for index in sorted(found)]

    async def _find(self, question: Question, num_answers: int) -> tuple[Key, dict[int, Answer]]:
        try:
            key, found = await self._record.find(self._settings, question, num_answers)
        except RecordError as error:  # asking would mean to pay for what may be there
            raise ExpertError(Failure.RECORD_UNUSABLE, str(error)) from None
        return key, {
            index: replace(answer, source=self.name, recorded=True, seconds=0.0, dollars=0.0)
            for index, answer in found.items()
        }

    async def _complete(
        self, live: Expert, key: Key, question: Question, num_answers: int, found: dict[int, Answer]
    ) -> dict[int, Answer]:
        """`found` and what `live` adds to it. A failure of `live` costs only what was missing."""
        missing = [index for index in range(num_answers) if index not in found]
        if not missing:
            return found
        try:
            return found | await self._ask(live, key, question, missing)
        except ExpertError as error:
            if not found:
                raise
            logger.warning(
                "expert %s, question %s: %d answers missing: %s", self.name, question.id, len(missing), error
            )
            return found

    async def _ask(self, live: Expert, key: Key, question: Question, indexes: list[int]) -> dict[int, Answer]:
        """Asks for the answers at `indexes`, and keeps them before anybody uses them."""
        if self._record.is_failing:
            try:
                await self._record.recover()
            except RecordError as error:  # nobody is paid for an answer that cannot be kept
                raise ExpertError(Failure.RECORD_UNUSABLE, str(error)) from None
        answers = await live.answer(question, len(indexes))
        fresh = {index: replace(answer, index=index) for index, answer in zip(indexes, answers, strict=False)}
        try:
            standing = await self._record.keep(key, fresh, replace=self._refresh)
        except RecordError as error:
            logger.error(
                "%s. %d answers of %s are used and wait to be written; nobody else is asked.",
                error,
                len(fresh),
                self.name,
            )
            return fresh
        return {
            index: replace(answer, source=self.name, dollars=fresh[index].dollars, seconds=fresh[index].seconds)
            for index, answer in standing.items()
        }

    def _replayed(self, found: dict[int, Answer], num_answers: int) -> list[Answer]:
        if len(found) < num_answers and self._missing == "error":
            raise RecordError(
                f"{self._record.path} holds {len(found)} of {num_answers} answers of {self.name} to a question, and "
                "ekipl.record.missing=error. Set it to shorter, or record the rest with ekipl.record.mode=record."
            )
        if not found:
            raise ExpertError(Failure.NOT_RECORDED, f"no answer of {self.name} to this question in {self._record.path}")
        return [found[index] for index in sorted(found)]

    @contextlib.asynccontextmanager
    async def _alone(self, key: Key) -> AsyncIterator[bool]:
        """One task at a time asks one question. True when another one was asking it."""
        lock = self._asking.setdefault(key.digest, asyncio.Lock())
        others_asked = lock.locked()
        async with lock:
            yield others_asked

    async def close(self) -> None:
        if self._live is not None:
            await self._live.close()
        self._record.release()
