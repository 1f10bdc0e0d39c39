"""Ask: one question -> N answers of the policy and N of each expert, all requested at the same time.

The policy's answers are the ones verl's rollout makes; they are passed in as a coroutine so that this file, the heart
of the method, needs neither verl nor torch.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from ekipl_rollout.answer import Answer, Question
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

    exposed_wait_s: float = 0.0
    """Seconds that the group waited for experts after the policy was done: what is not hidden behind the rollout."""


async def ask_everyone(
    policy: Awaitable[T], experts: Sequence[Expert], question: Question, num_answers: int, timeout_s: float
) -> tuple[T, Asked]:
    """Runs `policy` and all experts together; waits for the slowest, but for no expert longer than `timeout_s`.

    An expert that fails costs its own answers and nothing else. An error of the policy is raised, after the experts
    have been told to stop.
    """
    asked = Asked()
    requests = [asyncio.ensure_future(ask_expert(expert, question, num_answers, timeout_s)) for expert in experts]
    try:
        policy_result = await policy
    except BaseException:
        for request in requests:
            request.cancel()
        raise
    policy_done = time.monotonic()
    for answers, failures in await asyncio.gather(*requests):
        asked.answers += answers
        asked.failures += failures
    asked.exposed_wait_s = time.monotonic() - policy_done if requests else 0.0
    return policy_result, asked


async def ask_expert(
    expert: Expert, question: Question, num_answers: int, timeout_s: float
) -> tuple[list[Answer], list[tuple[str, Failure]]]:
    """N answers of one expert, fewer when it fails. Raises nothing that an expert can cause."""
    try:
        answers = await asyncio.wait_for(expert.answer(question, num_answers), timeout_s)
        failure = Failure.BAD_REPLY  # of the answers that a reply lacked
    except asyncio.TimeoutError:
        answers, failure = [], Failure.TIMED_OUT
    except ExpertError as error:
        logger.warning("expert %s, question %s: %s", expert.name, question.id, error)
        answers, failure = [], error.failure
    return answers, [(expert.name, failure)] * (num_answers - len(answers))
