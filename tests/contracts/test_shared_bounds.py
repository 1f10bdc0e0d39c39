"""The bounds of a run behind a named actor: the protocol by itself, without Ray."""

import asyncio
import time

import pytest

from ekipl_rollout.errors import ExpertError, Failure
from tests.contracts.bounds_helpers import expert, run_settings

pytestmark = pytest.mark.contract


class Handle:
    """A Ray handle without Ray: every call runs in this loop. `fail` makes the next calls fail as Ray would."""

    def __init__(self, server):
        self.server, self.fail, self.calls, self.deaf = server, [], 0, False

    def __getattr__(self, name):
        method = getattr(self.server, name)

        class Method:
            @staticmethod
            def remote(*args):
                self.calls += 1
                return self._run(method, args)

        return Method

    async def _run(self, method, args):
        await asyncio.sleep(0.001)
        if self.fail:
            raise self.fail.pop()
        if self.deaf:
            await asyncio.sleep(1000)
        return await method(*args)


@pytest.fixture
def made(tmp_path):
    """made(experts, lease, **bounds) -> (server, handle, function that connects a worker)"""
    from ekipl_rollout.bounds.desk import Desk
    from ekipl_rollout.on_verl.shared_bounds import SharedBounds

    def make(*experts, lease_s=60.0, **bounds):
        server = Desk(run_settings(tmp_path, *experts, **bounds), lease_s)
        handle = Handle(server)
        return server, handle, lambda: SharedBounds(handle, lease_s)

    return make


async def snapshot(server):
    seen = await server.snapshot()
    return seen["spent"], seen["reserved"], sum(lane["in_flight"] for lane in seen["experts"].values())


async def settled(server, expected, seconds=2.0):
    until = time.monotonic() + seconds
    while await snapshot(server) != expected and time.monotonic() < until:
        await asyncio.sleep(0.01)
    assert await snapshot(server) == expected


async def test_permits_go_around_and_money_comes_back(made):
    server, _, connect = made(max_dollars=1.0)
    bounds = connect()
    permit = await bounds.admit("gpt", tokens=10, dollars=0.5, step=3)
    assert await snapshot(server) == (0.0, 0.5, 1)
    await bounds.settle(permit, tokens=5, dollars=0.25)
    await bounds.close()
    assert await snapshot(server) == (0.25, 0.0, 0)
    await server.close()


async def test_workers_share_what_there_is(made):
    server, _, connect = made(expert(max_in_flight=3))
    first, second = connect(), connect()
    permits = [await bounds.admit("gpt", tokens=1, dollars=0) for bounds in (first, second, first)]
    waiting = asyncio.create_task(second.admit("gpt", tokens=1, dollars=0))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    await first.settle(permits[0])
    await asyncio.wait_for(waiting, 1)
    await server.close()


async def test_refusals_arrive_as_errors(made):
    server, _, connect = made(max_dollars=0.1)
    with pytest.raises(ExpertError) as caught:
        await connect().admit("gpt", tokens=1, dollars=0.2)
    assert caught.value.failure is Failure.OVER_BUDGET
    await server.close()


async def test_many_requests_cost_few_calls_and_waiting_costs_none(made):
    server, handle, connect = made(expert(max_in_flight=8))
    bounds = connect()

    async def one():
        await bounds.settle(await bounds.admit("gpt", tokens=1, dollars=0))

    await asyncio.gather(*(one() for _ in range(64)))
    assert handle.calls < 64
    permits = [await bounds.admit("gpt", tokens=1, dollars=0) for _ in range(8)]
    waiting = asyncio.create_task(bounds.admit("gpt", tokens=1, dollars=0))
    await asyncio.sleep(0.05)
    calls = handle.calls
    await asyncio.sleep(0.5)
    assert handle.calls == calls
    waiting.cancel()
    for permit in permits:
        await bounds.settle(permit)
    await bounds.close()
    await server.close()


async def test_whoever_is_cancelled_leaves_nothing_behind(made):
    server, _, connect = made(expert(max_in_flight=1), max_dollars=1.0)
    bounds = connect()
    permit = await bounds.admit("gpt", tokens=1, dollars=0.1)
    for wait_s in (0.0, 0.0005, 0.001, 0.002, 0.01, 0.05):
        task = asyncio.create_task(bounds.admit("gpt", tokens=1, dollars=0.1))
        await asyncio.sleep(wait_s)
        if wait_s == 0.002:
            await bounds.settle(permit, dollars=0.1)
        task.cancel()
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        if not isinstance(outcome, asyncio.CancelledError):
            await bounds.settle(outcome)
    await settled(server, (0.1, 0.0, 0))
    await bounds.close()
    await server.close()


async def test_a_worker_that_is_gone_is_charged_in_full_and_its_places_are_free_again(made):
    server, handle, connect = made(expert(max_in_flight=2), lease_s=0.4, max_dollars=1.0)
    dead, alive = connect(), connect()
    for _ in range(2):
        await dead.admit("gpt", tokens=1, dollars=0.2)
    dead._listener.cancel()  # never heard of again
    waiting = asyncio.create_task(alive.admit("gpt", tokens=1, dollars=0.3))
    permit = await asyncio.wait_for(waiting, 3)
    assert await snapshot(server) == (0.4, 0.3, 1)
    await asyncio.sleep(1.0)  # a worker that lives keeps what it holds, however long its request takes
    assert await snapshot(server) == (0.4, 0.3, 1)
    await alive.settle(permit, dollars=0.1)
    await settled(server, (0.5, 0.0, 0))
    await alive.close()
    await server.close()


async def test_a_worker_that_was_silent_for_too_long_gets_its_requests_through_all_the_same(made):
    server, handle, connect = made(expert(max_in_flight=1), lease_s=0.4)
    other, silent = connect(), connect()
    permit = await other.admit("gpt", tokens=1, dollars=0)
    waiting = asyncio.create_task(silent.admit("gpt", tokens=1, dollars=0))
    await asyncio.sleep(0.05)
    await server._lose(silent._name)
    await asyncio.sleep(0.3)
    await other.settle(permit)
    await asyncio.wait_for(waiting, 2)
    await server.close()


async def test_saying_goodbye_gives_everything_back(made):
    server, _, connect = made(expert(max_in_flight=1), max_dollars=1.0)
    bounds = connect()
    await bounds.admit("gpt", tokens=1, dollars=0.2)
    waiting = asyncio.create_task(bounds.admit("gpt", tokens=1, dollars=0.2))
    await asyncio.sleep(0.05)
    await bounds.close()
    with pytest.raises(ExpertError, match="ending"):
        await waiting
    with pytest.raises(ExpertError, match="ending"):
        await bounds.admit("gpt", tokens=1, dollars=0.2)
    assert await snapshot(server) == (0.2, 0.0, 0)  # its end is not known
    await server.close()


async def test_a_call_that_fails_is_made_again_and_nothing_is_lost(made, monkeypatch):
    import ray

    from ekipl_rollout.on_verl import shared_bounds

    monkeypatch.setattr(shared_bounds, "RETRY_S", 0.02)
    server, handle, connect = made(expert(max_in_flight=1), max_dollars=1.0)
    bounds = connect()
    for _ in range(20):
        handle.fail = [ray.exceptions.ActorUnavailableError("away", b"x" * 16) for _ in range(2)]
        permit = await asyncio.wait_for(bounds.admit("gpt", tokens=1, dollars=0.02), 2)
        handle.fail = [ray.exceptions.ActorUnavailableError("away", b"x" * 16)]
        await bounds.settle(permit, dollars=0.01)
    await bounds.close()
    spent, reserved, flying = await snapshot(server)
    assert (round(spent, 9), reserved, flying) == (0.2, 0.0, 0)
    await server.close()


async def test_bounds_that_are_gone_for_good_are_a_rest_for_all_experts(made):
    import ray

    server, handle, connect = made(expert(max_in_flight=1))
    bounds = connect()
    permit = await bounds.admit("gpt", tokens=1, dollars=0)
    waiting = asyncio.create_task(bounds.admit("gpt", tokens=1, dollars=0))
    await asyncio.sleep(0.05)
    handle.fail = [ray.exceptions.ActorDiedError() for _ in range(9)]
    await bounds.settle(permit)
    with pytest.raises(ExpertError, match="are gone"):
        await asyncio.wait_for(waiting, 2)
    with pytest.raises(ExpertError, match="are gone"):
        await bounds.admit("gpt", tokens=1, dollars=0)
    await bounds.close()
    await server.close()
