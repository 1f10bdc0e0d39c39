import asyncio
import time

import pytest

from ekipl_rollout.answer import Answer, AnswerStatus, Message, Question
from ekipl_rollout.ask import ask_everyone
from ekipl_rollout.errors import ExpertError, Failure

QUESTION = Question("q", (Message("user", ("How many?",)),))


class ScriptedExpert:
    """Answers after `seconds`, with `count` answers or an error."""

    def __init__(self, name, seconds=0.0, count=None, error=None):
        self.name, self.seconds, self.count, self.error = name, seconds, count, error
        self.cancelled = False

    async def answer(self, question, num_answers):
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if self.error:
            raise self.error
        count = num_answers if self.count is None else self.count
        return [Answer(self.name, i, "3", AnswerStatus.FINISHED) for i in range(count)]

    async def close(self): ...


async def policy(seconds=0.0, error=None):
    await asyncio.sleep(seconds)
    if error:
        raise error
    return "policy answers"


async def test_policy_and_experts_are_asked_at_the_same_time():
    start = time.monotonic()
    result, asked = await ask_everyone(
        policy(0.2), [ScriptedExpert("a", 0.2), ScriptedExpert("b", 0.2)], QUESTION, 4, 5
    )
    assert time.monotonic() - start < 0.35
    assert result == "policy answers"
    assert sorted(a.source for a in asked.answers) == ["a"] * 4 + ["b"] * 4


async def test_waiting_beyond_the_policy_is_measured():
    _, hidden = await ask_everyone(policy(0.2), [ScriptedExpert("a", 0.05)], QUESTION, 1, 5)
    _, exposed = await ask_everyone(policy(0.0), [ScriptedExpert("a", 0.2)], QUESTION, 1, 5)
    assert hidden.exposed_wait_s < 0.05 < 0.15 < exposed.exposed_wait_s


@pytest.mark.parametrize("failure", list(Failure))
async def test_an_expert_that_fails_costs_only_its_own_answers(failure):
    experts = [ScriptedExpert("bad", error=ExpertError(failure, "no")), ScriptedExpert("good")]
    _, asked = await ask_everyone(policy(), experts, QUESTION, 3, 5)
    assert [a.source for a in asked.answers] == ["good"] * 3
    assert asked.failures == [("bad", failure)] * 3


async def test_a_slow_expert_is_left_behind_at_the_deadline():
    slow = ScriptedExpert("slow", seconds=60)
    start = time.monotonic()
    _, asked = await ask_everyone(policy(), [slow], QUESTION, 2, 0.1)
    assert time.monotonic() - start < 1
    assert asked.failures == [("slow", Failure.TIMED_OUT)] * 2
    assert slow.cancelled


async def test_answers_that_a_reply_lacks_are_counted():
    _, asked = await ask_everyone(policy(), [ScriptedExpert("a", count=1)], QUESTION, 3, 5)
    assert (len(asked.answers), asked.failures) == (1, [("a", Failure.BAD_REPLY)] * 2)


async def test_an_error_of_the_policy_is_raised_and_the_experts_are_told_to_stop():
    expert = ScriptedExpert("a", seconds=60)
    with pytest.raises(RuntimeError, match="vllm died"):
        await ask_everyone(policy(0.05, RuntimeError("vllm died")), [expert], QUESTION, 2, 100)
    await asyncio.sleep(0.01)
    assert expert.cancelled


async def test_a_bug_of_ours_is_not_swallowed():
    with pytest.raises(ZeroDivisionError):
        await ask_everyone(policy(), [ScriptedExpert("a", error=ZeroDivisionError())], QUESTION, 2, 5)


async def test_without_experts_there_is_nothing_to_wait_for():
    result, asked = await ask_everyone(policy(), [], QUESTION, 2, 5)
    assert (result, asked.answers, asked.exposed_wait_s) == ("policy answers", [], 0.0)
