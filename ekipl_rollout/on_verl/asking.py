"""How one worker asks the experts: whom, within which bounds, and what becomes of what comes late.

Everything here runs in the worker's event loop. The rules are in when.py, ask.py and errands.py, which know nothing of
verl; this file knows verl's prompt.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from ekipl_rollout.answer import Candidate, Question
from ekipl_rollout.ask import Asked, ask_everyone
from ekipl_rollout.bounds import Bounds, Unbounded
from ekipl_rollout.bounds.given_up import UntilGivenUp
from ekipl_rollout.errands import Errands
from ekipl_rollout.errors import ExpertError, Failure
from ekipl_rollout.experts.base import Expert
from ekipl_rollout.experts.build import build_experts
from ekipl_rollout.on_verl.shared_bounds import SharedBounds, connect_bounds, needs_bounds
from ekipl_rollout.prompt import question_of
from ekipl_rollout.settings import EkiplSettings
from ekipl_rollout.when import Row, When, is_unsolved

logger = logging.getLogger(__name__)
T = TypeVar("T")

CLOSING_S = 30.0
"""How long requests that are out may take when the run ends."""


class Asking:
    """The experts of one worker. Made anywhere, started in the loop that asks."""

    def __init__(self, settings: EkiplSettings):
        self._settings = settings
        self._when = When(settings)
        self._num_answers = {expert.name: expert.num_answers for expert in settings.experts}
        self.errands = Errands(settings.expert_timeout_s, settings.ask, settings.record.mode != "off")
        self.experts: Sequence[Expert] | None = None
        self._bounds: SharedBounds | None = None

    def start(self) -> None:
        """Builds the clients; SDK clients belong to the loop that uses them."""
        if self.experts is None:
            if needs_bounds(self._settings):
                self._bounds = connect_bounds(self._settings)
            bounds: Bounds = self._bounds or Unbounded()
            self.experts = build_experts(self._settings.experts, self._settings.record, UntilGivenUp(bounds))

    async def ask(
        self, policy: Awaitable[T], prompt: dict, step: int, num_answers: int, judged: Callable[[], list[Candidate]]
    ) -> tuple[T, Asked]:
        """The policy, and every expert that is to be asked and can be shown this prompt. `judged` gives the policy's
        candidates once it is done. `num_answers` is N where an expert has none of its own."""
        data_source = str(prompt.get("data_source"))
        if not self.experts or self._when.rule(data_source) == "never":
            return await policy, Asked()
        try:
            question = question_of(prompt["raw_prompt"], prompt["uid"], step)
        except ExpertError as error:
            logger.error("row %s cannot be shown to experts: %s", prompt.get("index"), error)
            return await policy, self._all_failed(error.failure, num_answers)
        wanted = self._when.before(Row.of(question, data_source))
        if wanted is None:
            result = await policy
            wanted, policy = is_unsolved(judged()), _done(result)
        experts = [(expert, self._n(expert, num_answers)) for expert in self.experts if wanted]
        return await ask_everyone(policy, experts, question, self.errands)

    def ask_ahead(self, rows: Iterable[tuple[Question, str]], num_answers: int) -> None:
        """Asks for rows (question, data source) of the next step, those of which it is known that they will be asked."""
        for question, data_source in rows:
            if self._when.before(Row.of(question, data_source)):
                question = self.errands.timed(question)
                for expert in self.experts or ():
                    self.errands.start_ahead(expert, question, self._n(expert, num_answers))

    async def close(self) -> None:
        """Ends what is out, so that it is recorded and settled, and releases connections."""
        await self.errands.close(CLOSING_S)
        closing = [expert.close() for expert in self.experts or ()]
        for outcome in await asyncio.gather(*closing, return_exceptions=True):
            if isinstance(outcome, Exception):
                logger.error("closing an expert: %s", outcome)
        if self._bounds is not None:
            await self._bounds.close()

    def _n(self, expert: Expert, num_answers: int) -> int:
        own = self._num_answers.get(expert.name)
        return num_answers if own is None else own

    def _all_failed(self, failure: Failure, num_answers: int) -> Asked:
        asked = Asked()
        for expert in self.experts or ():
            asked.wanted[expert.name] = self._n(expert, num_answers)
            asked.failures += [(expert.name, failure)] * asked.wanted[expert.name]
        return asked


async def _done(result: T) -> T:
    return result
