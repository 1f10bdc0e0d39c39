"""How long a group waits for experts, and what becomes of requests that it no longer waits for."""

import asyncio
import time

import pytest

from ekipl_rollout.bounds.given_up import UntilGivenUp
from ekipl_rollout.bounds.governor import Governor
from ekipl_rollout.errands import Errands
from ekipl_rollout.errors import ExpertError, Failure
from ekipl_rollout.settings import AskSettings, BoundsSettings, ExpertSettings
from tests.rollout.ask_helpers import QUESTION, ScriptedExpert, ask, policy, question

# --- time ------------------------------------------------------------------------------------------------------------------


async def test_a_group_goes_on_without_a_slow_expert_at_the_deadline():
    start = time.monotonic()
    _, asked = await ask(policy(), [ScriptedExpert("slow", 60)], 2, timeout_s=0.1)
    assert 0.1 <= time.monotonic() - start < 1
    assert asked.failures == [("slow", Failure.TIMED_OUT)] * 2
    assert 0.09 < asked.exposed_wait_s < 1


async def test_a_group_waits_for_experts_only_so_long_after_the_policy():
    start = time.monotonic()
    _, asked = await ask(policy(0.2), [ScriptedExpert("slow", 60), ScriptedExpert("quick", 0.25)], 1, wait_s=0.15)
    assert 0.35 <= time.monotonic() - start < 0.8
    assert asked.failures == [("slow", Failure.LATE)]
    assert [a.source for a in asked.answers] == ["quick"]


async def test_an_answer_that_is_there_before_the_policy_is_done_is_never_late():
    _, asked = await ask(policy(0.3), [ScriptedExpert("a", 0.2)], 1, timeout_s=0.1, wait_s=0.0)
    assert len(asked.answers) == 1


async def test_the_question_carries_the_moment_at_which_nobody_listens_any_more():
    expert, start = ScriptedExpert("a"), time.monotonic()
    await ask(policy(), [expert], 1, timeout_s=10, late_s=5)
    assert 15 <= expert.question.deadline - start < 16


async def test_a_late_answer_is_not_lost():
    """The request runs on after its group; that is what lets its answer be recorded."""
    errands, slow = Errands(0.05, AskSettings(late_s=5)), ScriptedExpert("slow", 0.2)
    _, asked = await ask(policy(), [slow], 1, errands=errands)
    assert asked.answers == []
    assert errands.num_running == 1
    await asyncio.sleep(0.3)
    assert (slow.answered, slow.cancelled, errands.num_running) == (1, False, 0)


@pytest.mark.parametrize("late_s", [0.0, 0.05])
async def test_what_some_requests_have_brought_by_the_deadline_is_not_cut_off_with_the_others(late_s):
    class Partly(ScriptedExpert):
        async def answer(self, question, num_answers):
            self.seconds = question.deadline - time.monotonic() + 0.05  # to settle, and to close what hangs
            return await super().answer(question, num_answers)

    partly = Partly("partly", count=3)
    await ask(policy(), [partly], 4, timeout_s=0.05, late_s=late_s)
    await asyncio.sleep(0.3)
    assert (partly.answered, partly.cancelled) == (1, False)


async def test_a_late_request_is_cut_off_in_the_end(monkeypatch):
    monkeypatch.setattr("ekipl_rollout.errands.GRACE_S", 0.05)
    slow = ScriptedExpert("slow", 60)
    await ask(policy(), [slow], 1, timeout_s=0.05, late_s=0.1)
    assert not slow.cancelled
    await asyncio.sleep(0.4)
    assert slow.cancelled


async def test_without_a_record_a_late_request_is_cut_off_at_once():
    errands, slow = Errands(0.05, AskSettings(late_s=5), keeps_answers=False), ScriptedExpert("slow", 60)
    await ask(policy(), [slow], 1, errands=errands)
    await asyncio.sleep(0.01)
    assert slow.cancelled


async def test_no_more_late_requests_run_than_allowed():
    errands, experts = Errands(0.05, AskSettings(late_s=5, max_late=2)), [ScriptedExpert(f"e{i}", 60) for i in range(5)]
    await ask(policy(), experts, 1, errands=errands)
    await asyncio.sleep(0.01)
    assert sum(expert.cancelled for expert in experts) == 3
    assert errands.num_running == 2
    await errands.close(0)


async def test_whoever_asks_what_is_under_way_joins_it():
    errands, slow = Errands(0.05, AskSettings(late_s=5)), ScriptedExpert("slow", 0.2)
    await ask(policy(), [slow], 2, errands=errands)
    _, asked = await ask(policy(0.3), [slow], 2, errands=errands, asked=question("How many?", step=9))
    assert (slow.asked, len(asked.answers)) == (1, 2)


async def test_two_groups_with_one_question_ask_once_and_one_that_leaves_does_not_take_it_away():
    errands, slow = Errands(5, AskSettings(wait_s=0.05)), ScriptedExpert("slow", 0.2)
    (_, left), (_, stayed) = await asyncio.gather(
        ask(policy(), [slow], 1, errands=errands), ask(policy(0.3), [slow], 1, errands=errands)
    )
    assert (len(left.answers), len(stayed.answers), slow.asked) == (0, 1, 1)


async def test_a_failure_is_not_joined_but_asked_again():
    errands, expert = Errands(5), ScriptedExpert("a", error=ExpertError(Failure.SERVER_ERROR, "no"))
    errands.start_ahead(expert, errands.timed(QUESTION), 1)
    await asyncio.sleep(0.01)
    expert.error = None
    _, asked = await ask(policy(), [expert], 1, errands=errands)
    assert (expert.asked, len(asked.answers)) == (2, 1)


# --- giving up -------------------------------------------------------------------------------------------------------------


class BoundedExpert(ScriptedExpert):
    """Sends two requests, one after the other, through bounds."""

    def __init__(self, name, bounds, seconds):
        super().__init__(name, seconds)
        self.bounds, self.sent = bounds, 0

    async def answer(self, question, num_answers):
        for _ in range(2):
            permit = await self.bounds.admit(self.name, tokens=1, dollars=0.1, step=question.step)
            self.sent += 1
            try:
                await asyncio.sleep(self.seconds)
            finally:
                await self.bounds.settle(permit, dollars=0.1)
        return await super().answer(question, num_answers)


def bounded(seconds, **settings):
    expert = ExpertSettings("a", "openai", "m", "http://127.0.0.1:1/v1", **settings)
    governor = Governor(BoundsSettings(), [expert])
    return BoundedExpert("a", UntilGivenUp(governor), seconds), governor


@pytest.mark.parametrize(("late", "sent"), [("drop", 1), ("keep_for_next", 2)])
async def test_nothing_more_goes_out_for_a_row_that_is_given_up(late, sent):
    expert, governor = bounded(0.1)
    _, asked = await ask(policy(), [expert], 1, timeout_s=0.05, late=late)
    await asyncio.sleep(0.4)
    assert asked.failures == [("a", Failure.TIMED_OUT)]
    assert expert.sent == sent
    assert governor.snapshot()["spent"] == pytest.approx(0.1 * sent)


async def test_a_request_that_queues_when_its_row_is_given_up_leaves_the_line():
    expert, governor = bounded(0.3, max_in_flight=1)
    errands = Errands(0.05, AskSettings(late="drop"))
    await asyncio.gather(*(ask(policy(), [expert], 1, errands=errands, asked=question(str(i))) for i in range(4)))
    await asyncio.sleep(0.05)
    assert governor.snapshot()["experts"]["a"]["waiting"] == 0
    await asyncio.sleep(0.4)
    assert expert.sent == 1


async def test_whoever_joins_a_row_that_was_given_up_takes_it_up_again():
    expert, _ = bounded(0.1)
    errands = Errands(0.05, AskSettings(late="drop"))
    await ask(policy(), [expert], 1, errands=errands)
    errands.timeout_s = 5
    _, asked = await ask(policy(), [expert], 1, errands=errands)
    assert (expert.sent, len(asked.answers)) == (2, 1)


# --- the end ---------------------------------------------------------------------------------------------------------------


async def test_closing_lets_what_is_out_end_and_starts_nothing_more():
    expert, governor = bounded(0.1)
    errands = Errands(0.02, AskSettings(late="keep_for_next"))
    await ask(policy(), [expert], 1, errands=errands)
    await errands.close(5)
    assert (expert.sent, errands.num_running) == (1, 0)
    assert governor.snapshot()["reserved"] == 0


async def test_closing_cuts_off_what_does_not_end_and_everything_is_settled():
    expert, governor = bounded(60)
    errands = Errands(0.02, AskSettings(late="keep_for_next"))
    await ask(policy(), [expert], 1, errands=errands)
    await errands.close(0.05)
    assert errands.num_running == 0
    assert governor.snapshot()["reserved"] == 0
    assert governor.snapshot()["experts"]["a"]["in_flight"] == 0
