"""The questions to experts that one process has out: started, joined, left behind, ended.

An errand outlives its group when the group goes on without it: what it brings is recorded and free the next time the row
comes round. Who asks the same while it runs joins it, so that nothing is asked and paid for twice; that is also how a
row that was asked ahead finds its answers.
"""

import asyncio
import logging
import time
from dataclasses import dataclass, field, replace

from ekipl_rollout.answer import Answer, Message, Question
from ekipl_rollout.bounds.given_up import until
from ekipl_rollout.errors import ExpertError
from ekipl_rollout.experts.base import Expert
from ekipl_rollout.settings import AskSettings

logger = logging.getLogger(__name__)

GRACE_S = 5.0
"""A client ends by itself at the question's deadline, with the answers that its other requests have brought: those are paid
for. Only one that does not is cut off, so much later."""

Key = tuple[str, int, tuple[Message, ...]]
"""(expert, N, what is asked)"""


@dataclass(eq=False)
class Errand:
    """One question to one expert, from the asking to its end."""

    key: Key
    step: int | None
    task: "asyncio.Task[list[Answer]]"
    given_up: asyncio.Event
    """Set: nothing more goes out for it."""

    listeners: int = 0
    """Groups that wait for it."""

    ahead: bool = False
    """Asked for a row that has not come yet."""

    was_ahead: bool = False

    cut: bool = False
    """Told to end; it may take a moment."""

    @property
    def expert(self) -> str:
        return self.key[0]

    @property
    def num_answers(self) -> int:
        return self.key[1]

    @property
    def failed(self) -> bool:
        return self.cut or (self.task.done() and (self.task.cancelled() or self.task.exception() is not None))


@dataclass
class Errands:
    """All of one process. Belongs to one event loop."""

    timeout_s: float
    settings: AskSettings = field(default_factory=AskSettings)

    keeps_answers: bool = True
    """There is a record: an answer that comes late is not lost."""

    _running: dict[Key, Errand] = field(default_factory=dict)
    _late: set[Errand] = field(default_factory=set)

    def timed(self, question: Question) -> Question:
        """The question with the moment at which nobody listens any more."""
        return replace(question, deadline=time.monotonic() + self.timeout_s + self._late_s)

    @property
    def _late_s(self) -> float:
        return self.settings.late_s if self.keeps_answers else 0.0

    def start(self, expert: Expert, question: Question, num_answers: int) -> Errand:
        """A group asks. Joins an errand with the same question that is under way or has just brought its answers."""
        key = (expert.name, num_answers, question.messages)
        errand = self._running.get(key)
        if errand is None or errand.failed:
            errand = self._begin(key, expert, question)
        errand.listeners += 1
        errand.ahead = False
        errand.given_up.clear()
        self._late.discard(errand)
        return errand

    def start_ahead(self, expert: Expert, question: Question, num_answers: int) -> None:
        """Asks for a row of the next batch."""
        key = (expert.name, num_answers, question.messages)
        if key not in self._running:
            errand = self._begin(key, expert, question)
            errand.ahead = errand.was_ahead = True

    def _begin(self, key: Key, expert: Expert, question: Question) -> Errand:
        given_up = asyncio.Event()
        with until(given_up):
            most_s = self.timeout_s + self._late_s + GRACE_S
            answers = asyncio.wait_for(expert.answer(question, key[1]), most_s)
            task = asyncio.get_running_loop().create_task(answers)
        errand = self._running[key] = Errand(key, question.step, task, given_up)
        task.add_done_callback(lambda _: self._ended(errand))
        return errand

    def leave(self, errand: Errand, wanted: bool = True) -> None:
        """A group stops listening. `wanted=False`: it failed, and what it asked for is not worth waiting for."""
        errand.listeners -= 1
        if errand.listeners > 0:
            return
        if errand.task.done():
            self._drop(errand)
        elif not wanted or not self.keeps_answers or len(self._late) >= self.settings.max_late:
            errand.cut = errand.task.cancel()
        else:
            self._late.add(errand)
            if self.settings.late == "drop":
                errand.given_up.set()

    def forget_before(self, step: int) -> None:
        """Rows of earlier steps that were asked ahead and never came."""
        for errand in list(self._running.values()):
            if errand.ahead and errand.step is not None and errand.step < step:
                errand.ahead, errand.listeners = False, 1
                self.leave(errand)

    async def close(self, patience_s: float) -> None:
        """Nothing more goes out; what is out may end within `patience_s`, and is cut off then."""
        tasks = [errand.task for errand in self._running.values()]
        for errand in self._running.values():
            errand.given_up.set()
        if tasks:
            await asyncio.wait(tasks, timeout=patience_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._running.clear()

    @property
    def num_running(self) -> int:
        return sum(not errand.task.done() for errand in self._running.values())

    def _ended(self, errand: Errand) -> None:
        self._late.discard(errand)
        if errand.listeners == 0 and not (errand.ahead and not errand.failed):
            self._drop(errand)
        if errand.listeners == 0 and not errand.task.cancelled() and (error := errand.task.exception()):
            known = isinstance(error, (ExpertError, asyncio.TimeoutError))
            logger.log(logging.INFO if known else logging.ERROR, "late or ahead, expert %s: %s", errand.expert, error)

    def _drop(self, errand: Errand) -> None:
        if self._running.get(errand.key) is errand:
            del self._running[errand.key]
