"""Whom a group asks, what a failure costs, and rows that were asked ahead. Time limits: test_ask_late.py."""

import asyncio
import time

import pytest

from ekipl_rollout.ask import ask_everyone
from ekipl_rollout.errands import Errands
from ekipl_rollout.errors import ExpertError, Failure
from tests.rollout.ask_helpers import QUESTION, ScriptedExpert, ask, policy, question


async def test_policy_and_experts_are_asked_at_the_same_time():
    start = time.monotonic()
    result, asked = await ask(policy(0.2), [ScriptedExpert("a", 0.2), ScriptedExpert("b", 0.2)], 4)
    assert time.monotonic() - start < 0.35
    assert result == "policy answers"
    assert sorted(a.source for a in asked.answers) == ["a"] * 4 + ["b"] * 4
    assert asked.wanted == {"a": 4, "b": 4}


async def test_each_expert_gives_as_many_answers_as_it_is_asked_for():
    experts = [(ScriptedExpert("a"), 2), (ScriptedExpert("b"), 5)]
    _, asked = await ask_everyone(policy(), experts, QUESTION, Errands(5))
    assert sorted(a.source for a in asked.answers) == ["a"] * 2 + ["b"] * 5


async def test_waiting_beyond_the_policy_is_measured():
    _, hidden = await ask(policy(0.2), [ScriptedExpert("a", 0.05)], 1)
    _, exposed = await ask(policy(0.0), [ScriptedExpert("a", 0.2)], 1)
    assert hidden.exposed_wait_s < 0.05 < 0.15 < exposed.exposed_wait_s


@pytest.mark.parametrize("failure", list(Failure))
async def test_an_expert_that_fails_costs_only_its_own_answers(failure):
    experts = [ScriptedExpert("bad", error=ExpertError(failure, "no")), ScriptedExpert("good")]
    _, asked = await ask(policy(), experts, 3)
    assert [a.source for a in asked.answers] == ["good"] * 3
    assert asked.failures == [("bad", failure)] * 3


async def test_answers_that_a_reply_lacks_are_counted():
    _, asked = await ask(policy(), [ScriptedExpert("a", count=1)], 3)
    assert (len(asked.answers), asked.failures) == (1, [("a", Failure.BAD_REPLY)] * 2)


async def test_an_error_of_the_policy_is_raised_and_the_experts_are_told_to_stop():
    expert = ScriptedExpert("a", seconds=60)
    with pytest.raises(RuntimeError, match="vllm died"):
        await ask(policy(0.05, RuntimeError("vllm died")), [expert], 2, 100)
    await asyncio.sleep(0.01)
    assert expert.cancelled


async def test_a_bug_of_ours_is_not_swallowed():
    with pytest.raises(ZeroDivisionError):
        await ask(policy(), [ScriptedExpert("a", error=ZeroDivisionError())], 2)


async def test_without_experts_there_is_nothing_to_wait_for():
    result, asked = await ask(policy(), [], 2)
    assert (result, asked.answers, asked.exposed_wait_s, asked.wanted) == ("policy answers", [], 0.0, {})


# --- ahead -----------------------------------------------------------------------------------------------------------------


async def test_a_row_that_was_asked_ahead_is_there_at_once_and_was_asked_once():
    errands, slow = Errands(5), ScriptedExpert("slow", 0.1)
    errands.start_ahead(slow, errands.timed(QUESTION), 2)
    errands.start_ahead(slow, errands.timed(QUESTION), 2)
    await asyncio.sleep(0.15)
    start = time.monotonic()
    _, asked = await ask(policy(), [slow], 2, errands=errands)
    assert time.monotonic() - start < 0.05
    assert (slow.asked, len(asked.answers)) == (1, 2)


async def test_a_row_that_was_asked_ahead_and_never_came_is_forgotten():
    errands, quick, slow = Errands(5), ScriptedExpert("quick"), ScriptedExpert("slow", 0.1)
    for expert in (quick, slow):
        errands.start_ahead(expert, errands.timed(question("other", step=2)), 1)
    await asyncio.sleep(0.01)
    errands.forget_before(2)
    assert len(errands._running) == 2
    errands.forget_before(3)
    assert len(errands._running) == 1
    await asyncio.wait_for(next(iter(errands._running.values())).task, 10)
    await asyncio.sleep(0)  # what is done about a task that has ended is done in the next turn of the loop
    assert (slow.answered, len(errands._running)) == (1, 0)
