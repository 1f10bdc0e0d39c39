"""Ask: one question -> N answers of the policy and N of each expert, all requested at the same time.

The policy's answers are the ones verl's rollout makes; they are passed in as a coroutine so that this file, the heart
of the method, needs neither verl nor torch. Who is asked at all is decided in when.py; what becomes of an answer that
comes after its group has gone on, in errands.py.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from ekipl_rollout.answer import Answer, Question
from ekipl_rollout.errands import Errand, Errands
from ekipl_rollout.errors import ExpertError, Failure
from ekipl_rollout.experts.base import Expert

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass
class Asked:
    """What came of asking the experts for one question."""

    answers: list[Answer] = field(default_factory=list)
    failures: list[tuple[str, Failure]] = field(default_factory=list)
    """(expert, how) for each answer that did not come."""

    wanted: Counter[str] = field(default_factory=Counter)
    """Answers that each expert was asked for; empty for a row that no expert is asked for."""

    retries: Counter[str] = field(default_factory=Counter)
    """Requests to each expert that failed and were sent again."""

    ahead: bool = False
    """An expert had been asked before the row came."""

    exposed_wait_s: float = 0.0
    """Seconds that the group waited for experts after the policy was done: what is not hidden behind the rollout."""


async def ask_everyone(
    policy: Awaitable[T], experts: Sequence[tuple[Expert, int]], question: Question, errands: Errands
) -> tuple[T, Asked]:
    """Runs `policy` and all experts (with the N of each) together.

    Once the policy is done the group waits for experts `ask.wait_s` longer, and not beyond `timeout_s` from the asking.
    An expert that fails or is late costs its own answers and nothing else. An error of the policy is raised, after the
    experts have been told to stop.
    """
    started = time.monotonic()
    question = errands.timed(question)
    running = [errands.start(expert, question, num_answers) for expert, num_answers in experts]
    done: set[asyncio.Task] = set()
    policy_is_done = False
    try:
        policy_result = await policy
        policy_is_done, policy_done = True, time.monotonic()
        wait_s, late_as = _patience(errands, started, policy_done)
        if running:
            done, _ = await asyncio.wait({errand.task for errand in running}, timeout=wait_s)
        exposed_wait_s = time.monotonic() - policy_done if running else 0.0
    finally:
        for errand in running:
            errands.leave(errand, wanted=policy_is_done)
    asked = Asked(exposed_wait_s=exposed_wait_s, ahead=any(errand.was_ahead for errand in running))
    for errand in running:
        _collect(errand, asked, question, late_as if errand.task not in done else None)
    return policy_result, asked


def _patience(errands: Errands, started: float, policy_done: float) -> tuple[float, Failure]:
    """Seconds to wait from now, and what an answer that does not come by then counts as."""
    left_s = max(started + errands.timeout_s - policy_done, 0.0)
    wait_s = errands.settings.wait_s
    return (left_s, Failure.TIMED_OUT) if wait_s is None or left_s <= wait_s else (wait_s, Failure.LATE)


def _collect(errand: Errand, asked: Asked, question: Question, late_as: Failure | None) -> None:
    """Adds what an errand brought. Raises nothing that an expert can cause."""
    answers: list[Answer] = []
    failure = late_as or Failure.BAD_REPLY  # of the answers that a reply lacked
    if late_as is None and errand.task.cancelled():  # the run is ending
        failure = Failure.LATE
    elif late_as is None:
        try:
            answers = errand.task.result()[: errand.num_answers]
        except asyncio.TimeoutError:
            failure = Failure.TIMED_OUT
        except ExpertError as error:
            logger.warning("expert %s, question %s: %s", errand.expert, question.id, error)
            failure = error.failure
            asked.retries[errand.expert] += error.retries
    asked.wanted[errand.expert] += errand.num_answers
    asked.retries[errand.expert] += sum(answer.retries for answer in answers)
    asked.answers += answers
    asked.failures += [(errand.expert, failure)] * (errand.num_answers - len(answers))
