"""The governor in a real event loop: who goes, who waits, who is refused."""

import asyncio
import time

import pytest

from ekipl_rollout.bounds.base import Permit
from ekipl_rollout.bounds.ledger import Ledger
from ekipl_rollout.errors import ExpertError, Failure
from tests.rollout.governor_helpers import ask, expert, governor, refused, waits


async def test_a_request_goes_at_once_where_nothing_is_limited():
    bounds = governor()
    permit = await bounds.admit("gpt", tokens=10, dollars=0.5)
    assert (permit.expert, permit.tokens, permit.dollars) == ("gpt", 10, 0.5)
    await bounds.settle(permit, tokens=5, dollars=0.25)
    seen = bounds.snapshot()["experts"]["gpt"]
    assert (seen["in_flight"], seen["spent"], seen["counts"]) == (0, 0.25, {"requests": 1, "answered": 1, "tokens": 5})


async def test_no_more_are_in_flight_than_allowed_and_the_next_goes_when_one_ends():
    bounds = governor(expert(max_in_flight=2))
    first, second = [await bounds.admit("gpt", tokens=1, dollars=0) for _ in range(2)]
    third = ask(bounds)
    assert await waits(third)
    await bounds.settle(first)
    await bounds.settle(await third)
    await bounds.settle(second)


async def test_experts_do_not_wait_for_each_other():
    bounds = governor(expert("a", max_in_flight=1), expert("b", max_in_flight=1))
    await bounds.admit("a", tokens=1, dollars=0)
    await asyncio.wait_for(bounds.admit("b", tokens=1, dollars=0), 1)


async def test_the_current_step_goes_before_the_next_one():
    bounds = governor(expert(max_in_flight=1))
    out = await bounds.admit("gpt", tokens=1, dollars=0, step=5)
    ahead = [ask(bounds, step=6) for _ in range(3)]
    await asyncio.sleep(0)
    current = ask(bounds, step=5)
    await asyncio.sleep(0)
    await bounds.settle(out)
    await bounds.settle(await current)
    done = [await task for task in ahead[:1]]
    assert isinstance(done[0], Permit)
    for task in ahead[1:]:
        assert not task.done()
        task.cancel()


async def test_requests_a_minute_hold_and_nobody_polls(monkeypatch):
    bounds = governor(expert(requests_per_minute=600, max_in_flight=100), burst_s=0.1)
    looks, serve = [], bounds._serve
    monkeypatch.setattr(bounds, "_serve", lambda queue: looks.append(1) or serve(queue))
    started, times = time.monotonic(), []

    async def one():
        await bounds.settle(await bounds.admit("gpt", tokens=1, dollars=0))
        times.append(time.monotonic() - started)

    await asyncio.gather(*(one() for _ in range(11)))
    assert 1.0 <= times[-1] < 1.4
    assert len(looks) < 60


async def test_tokens_that_come_back_let_the_next_go():
    bounds = governor(expert(tokens_per_minute=2048))
    permit = await bounds.admit("gpt", tokens=2000, dollars=0)
    second = ask(bounds, tokens=1500)
    assert await waits(second)
    await bounds.settle(permit, tokens=100)
    await asyncio.wait_for(second, 1)


async def test_a_request_that_no_minute_could_hold_is_refused_at_once():
    assert "tokens_per_minute" in await refused(
        governor(expert(tokens_per_minute=2048)), Failure.BAD_REQUEST, tokens=3000
    )


async def test_a_wrong_key_rests_the_expert_and_refuses_those_who_queue():
    bounds = governor(expert(max_in_flight=1), expert("b"), rest_s=0.2)
    permit = await bounds.admit("gpt", tokens=1, dollars=0)
    queued = ask(bounds)
    await asyncio.sleep(0)
    await bounds.settle(permit, error=ExpertError(Failure.UNAUTHORIZED, "no", 401))
    with pytest.raises(ExpertError) as caught:
        await queued
    assert caught.value.failure is Failure.RESTING
    assert "unauthorized" in await refused(bounds, Failure.RESTING)
    await bounds.admit("b", tokens=1, dollars=0)  # the others are not concerned
    await asyncio.sleep(0.2)
    probe = await bounds.admit("gpt", tokens=1, dollars=0)
    await refused(bounds, Failure.RESTING)
    await bounds.settle(probe)
    await bounds.admit("gpt", tokens=1, dollars=0)


async def test_retry_after_stops_everybody_for_as_long_as_it_says():
    bounds = governor()
    permit = await bounds.admit("gpt", tokens=1, dollars=0)
    await bounds.settle(permit, error=ExpertError(Failure.RATE_LIMITED, "busy", 429, retry_after_s=0.2))
    started = time.monotonic()
    await asyncio.wait_for(bounds.admit("gpt", tokens=1, dollars=0), 2)
    assert 0.19 <= time.monotonic() - started < 0.5


@pytest.mark.parametrize("status", [429, 503, 529])
async def test_a_busy_provider_gets_fewer_requests_at_once(status):
    bounds = governor(expert(max_in_flight=8))
    failure = Failure.RATE_LIMITED if status == 429 else Failure.SERVER_ERROR
    permits = [await bounds.admit("gpt", tokens=1, dollars=0) for _ in range(8)]
    for permit in permits:
        await bounds.settle(permit, error=ExpertError(failure, "busy", status, retry_after_s=0.0))
    assert bounds.snapshot()["experts"]["gpt"]["in_flight_limit"] == 4


async def test_a_pause_that_is_too_long_to_queue_for_is_a_rest():
    bounds = governor()
    permit = await bounds.admit("gpt", tokens=1, dollars=0)
    await bounds.settle(permit, error=ExpertError(Failure.RATE_LIMITED, "tomorrow", 429, retry_after_s=3600.0))
    assert "rests for another 3600 s" in await refused(bounds, Failure.RESTING)


async def test_whoever_is_cancelled_while_waiting_leaves_nothing_behind():
    bounds = governor(expert(max_in_flight=1), max_dollars=1.0)
    permit = await bounds.admit("gpt", tokens=1, dollars=0.1)
    tasks = [ask(bounds, dollars=0.1) for _ in range(5)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await bounds.settle(permit, dollars=0.1)
    seen = bounds.snapshot()
    assert (seen["reserved"], seen["spent"], seen["experts"]["gpt"]["in_flight"]) == (0, 0.1, 0)


async def test_a_permit_that_comes_in_the_instant_of_cancelling_is_given_back(tmp_path):
    for ledger in (None, Ledger(tmp_path / "ledger.sqlite")):
        bounds = governor(expert(max_in_flight=1), ledger=ledger, max_dollars=1.0)
        permit = await bounds.admit("gpt", tokens=1, dollars=0.1)
        task = ask(bounds, dollars=0.1)
        await asyncio.sleep(0)
        await bounds.settle(permit, dollars=0.1)  # lets the task's request out
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(0.1)  # the ledger's thread
        seen = bounds.snapshot()
        assert (seen["reserved"], seen["experts"]["gpt"]["in_flight"]) == (0, 0)
        assert seen["experts"]["gpt"]["counts"]["requests"] == 1
        await bounds.close()


async def test_closing_refuses_whoever_waits():
    bounds = governor(expert(max_in_flight=1))
    await bounds.admit("gpt", tokens=1, dollars=0)
    queued = ask(bounds)
    await asyncio.sleep(0)
    await bounds.close()
    with pytest.raises(ExpertError, match="ending"):
        await queued
