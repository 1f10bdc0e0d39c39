"""An expert behind a network: how one question becomes requests, and what becomes of each.

N answers are asked for in one request, so that pictures travel and are billed once; where a model refuses that, in
single requests at the same time. Every request, retries included, is admitted by the bounds of the run with the most
that it can cost, and settled exactly once with what it did cost. What a subclass adds is one provider's protocol.
"""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import anyio

from ekipl_rollout.answer import Answer, Message, Question
from ekipl_rollout.bounds import Bounds, Permit, Unbounded
from ekipl_rollout.errors import ExpertError, Failure, SettingsError
from ekipl_rollout.experts.failures import to_expert_error
from ekipl_rollout.experts.features import Features, Wish
from ekipl_rollout.experts.pictures import Picture, encode
from ekipl_rollout.experts.prompting import Prompting
from ekipl_rollout.experts.reply import Reply
from ekipl_rollout.experts.retry import wait_before_retry
from ekipl_rollout.experts.secret import Secret
from ekipl_rollout.settings import ExpertSettings
from ekipl_rollout.settings.expert_problems import address_problems

logger = logging.getLogger(__name__)

TOKENS_PER_MESSAGE = 32  # what a provider's chat template adds at most


@dataclass
class ExpertStats:
    """What became of everything that one client was asked. Counts since it was built."""

    asked: int = 0
    """Answers that were wanted."""

    answered: int = 0
    requests: int = 0
    """Requests that were sent, retries included."""

    retried: int = 0
    failed: Counter[Failure] = field(default_factory=Counter)
    """Requests that were given up, by kind."""


@dataclass(frozen=True)
class Prompt:
    """A question ready to be sent any number of times."""

    payload: Any
    """In the provider's shape, pictures encoded."""

    input_tokens: int
    """As many as it can be billed for, or more: one a byte of text, and `picture_tokens` a picture."""


@dataclass(frozen=True)
class _Outcome:
    """What came of one request and its retries: answers, or the error it was given up with. Neither: the model refused
    how it was asked, and the rest is asked for differently."""

    answers: Sequence[Answer] = ()
    error: ExpertError | None = None


class LiveExpert:
    """Base of the clients. One long-lived object per process and event loop; safe for any number of tasks."""

    def __init__(self, settings: ExpertSettings, bounds: Bounds | None = None):
        if problems := list(address_problems(settings)):
            raise SettingsError(*problems)  # whoever built it: a key does not leave in the clear
        self.settings, self.name = settings, settings.name
        self.features, self.stats = Features(settings), ExpertStats()
        self.prompting = Prompting(settings)
        self._example_pictures: dict[bytes, Picture] = {}
        try:
            for picture in self.prompting.example_pictures:
                encode(self._example_pictures, picture, settings.max_pixels)
        except ExpertError as error:
            raise SettingsError(f"ekipl.experts[{settings.name}].examples: {error.message}") from None
        self._bounds = bounds or Unbounded()
        self._secret = Secret.of(settings)
        self._gate = asyncio.Semaphore(settings.max_in_flight)
        self._random = random.Random()
        self._loop: asyncio.AbstractEventLoop | None = None

    # --- what a provider's client adds -------------------------------------------------------------------------------

    def _encode(self, messages: Sequence[Message], picture: Callable[[bytes], Picture]) -> Any:
        """The messages in the provider's shape."""
        raise NotImplementedError

    async def _send(self, payload: Any, wish: Wish) -> Reply:
        """One HTTP request. May raise whatever the SDK raises."""
        raise NotImplementedError

    async def _close(self) -> None:
        """Releases connections, for a client that keeps some."""

    async def look_up_model(self) -> dict[str, Any]:
        """What the provider says about the model, without asking it anything. May raise whatever the SDK raises."""
        raise NotImplementedError

    # --- what all of them do -----------------------------------------------------------------------------------------

    async def answer(self, question: Question, num_answers: int) -> list[Answer]:
        """Up to `num_answers` answers, fewer when some requests fail. Raises ExpertError when all of them do."""
        self._stay_in_one_loop()
        self.stats.asked += num_answers
        prompt = self.prepare(question)
        answers: list[Answer] = []
        error: ExpertError | None = None
        while len(answers) < num_answers and error is None:
            for outcome in await self._ask_for(num_answers - len(answers), prompt, question):
                answers += outcome.answers
                error = outcome.error or error
        self.stats.answered += len(answers)
        if error is not None and not answers:
            raise error
        return [replace(answer, index=index) for index, answer in enumerate(answers[:num_answers])]

    async def close(self) -> None:
        await self._close()

    def prepare(self, question: Question) -> Prompt:
        """The question in the provider's shape. Raises ExpertError for a picture that cannot be sent."""
        messages = self.prompting.messages(question)
        pictures = 0

        def picture(part: bytes) -> Picture:
            nonlocal pictures
            pictures += 1
            memory = self._example_pictures if part in self._example_pictures else question.encoded
            return encode(memory, part, self.settings.max_pixels)

        payload = self._encode(messages, picture)
        text = sum(len(p.encode("utf-8", "replace")) for turn in messages for p in turn.parts if isinstance(p, str))
        tokens = text + len(messages) * TOKENS_PER_MESSAGE + pictures * self.settings.reserved_picture_tokens
        return Prompt(payload, tokens)

    async def _ask_for(self, count: int, prompt: Prompt, question: Question) -> list[_Outcome]:
        """Requests for `count` answers in all, as many in each as the model is known to give, all at the same time."""
        most = self.features.wish(count).answers
        sizes = [most] * (count // most) + ([count % most] if count % most else [])
        requests = [self._request(prompt, size, question) for size in sizes]
        if len(requests) == 1:
            return [await requests[0]]
        outcomes = await asyncio.gather(*requests, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome  # a bug of ours: it keeps travelling, after all siblings have been settled
        return [outcome for outcome in outcomes if isinstance(outcome, _Outcome)]

    async def _request(self, prompt: Prompt, count: int, question: Question) -> _Outcome:
        """One request and its retries."""
        failed = 0
        while True:
            wish = self.features.wish(count)
            try:
                return _Outcome(await self._attempt(prompt, wish, question, failed))
            except ExpertError as error:
                failure = error
            if failure.failure is Failure.BAD_REQUEST:
                if self.features.learn(wish, failure.message):
                    return _Outcome()
                if failure.status in (400, 422) and wish.answers > 1 and not self.features.several_proven:
                    return await self._try_single(prompt, wish, question, failure)
            failed += 1
            left = None if question.deadline is None else question.deadline - time.monotonic()
            wait = wait_before_retry(self.settings.retry, failure, failed, left, self._random)
            if wait is None:
                return self._give_up(failure, failed - 1)
            logger.debug("expert %s, attempt %d: %s; again in %.2f s", self.name, failed, failure, wait)
            self.stats.retried += 1
            await asyncio.sleep(wait)

    async def _try_single(self, prompt: Prompt, wish: Wish, question: Question, refusal: ExpertError) -> _Outcome:
        """A refusal that names nothing may still mean "one answer a request": one single request will tell."""
        try:
            answers = await self._attempt(prompt, replace(wish, answers=1), question, 1)
        except ExpertError:
            return self._give_up(refusal, 0)
        self.features.only_one_answer(refusal.message)
        return _Outcome(answers)

    def _give_up(self, error: ExpertError, retries: int) -> _Outcome:
        self.stats.failed[error.failure] += 1
        told = (error.failure, error.message, error.status, error.retry_after_s, error.may_be_billed)
        return _Outcome(error=ExpertError(*told, retries=retries))

    async def _attempt(self, prompt: Prompt, wish: Wish, question: Question, failed: int) -> list[Answer]:
        """One request: admitted, sent, settled. Raises ExpertError."""
        async with self._gate:
            permit = await self._admit(prompt, wish, question)
            started = time.monotonic()
            # settled in full until we know better: a request that is cut off may be billed all the same
            tokens, dollars = permit.tokens, permit.dollars
            error: ExpertError | None = ExpertError(Failure.TIMED_OUT, "cut off by the asker", may_be_billed=True)
            try:
                reply = await self._timed(prompt, wish, question)
                error = reply.problem
                if reply.is_billed:
                    tokens, dollars = self._bill(reply)
            except ExpertError as failure:
                error = failure
                if not failure.may_be_billed:
                    tokens, dollars = 0, 0.0
                raise
            finally:
                settled = self._bounds.settle(permit, tokens=tokens, dollars=dollars, error=error)
                await asyncio.shield(asyncio.ensure_future(settled))
        if error is not None:
            raise error
        self.features.learn_from_reply(wish, len(reply.choices))
        seconds = time.monotonic() - started
        return reply.answers(self.name, wish.answers, dollars=dollars, seconds=seconds, retries=failed)

    async def _admit(self, prompt: Prompt, wish: Wish, question: Question) -> Permit:
        """Reserves the most that the request can cost."""
        output, price = wish.answers * self.settings.max_tokens, self.settings.price
        tokens, dollars = prompt.input_tokens + output, price.of(prompt.input_tokens, output) if price else 0.0
        permit = await self._bounds.admit(self.name, tokens=tokens, dollars=dollars, step=question.step)
        self.stats.requests += 1
        return permit

    async def _timed(self, prompt: Prompt, wish: Wish, question: Question) -> Reply:
        """One HTTP request within its time. Raises ExpertError and nothing else that a provider can cause."""
        seconds = self.settings.request_timeout_s
        if question.deadline is not None:
            seconds = min(seconds, question.deadline - time.monotonic())
        if seconds <= 0:
            raise ExpertError(Failure.LATE, "the deadline passed before it could be sent")
        try:
            with anyio.fail_after(seconds):
                return await self._send(prompt.payload, wish)
        except TimeoutError:
            failure = ExpertError(Failure.TIMED_OUT, f"no whole reply within {seconds:.1f} s", may_be_billed=True)
        except Exception as error:
            failure = to_expert_error(error, self._secret)
        raise failure  # here, so that nothing of the SDK is chained to it

    def _bill(self, reply: Reply) -> tuple[int, float]:
        """(tokens, dollars) of a reply, by the provider's count."""
        used, price = (reply.input_tokens or 0, reply.output_tokens or 0), self.settings.price
        return sum(used), price.of(*used) if price else 0.0

    def _stay_in_one_loop(self) -> None:
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if self._loop is not loop:
            raise RuntimeError(f"expert {self.name} belongs to another event loop; build one for each loop")
