"""Two Ray nodes on one machine: the bounds of a run hold for the workers of both, measured at the server."""

import asyncio
import json
import os
import time

import pytest

from ekipl_rollout.errors import ExpertError
from tests.contracts.bounds_helpers import PRICE, Counting, expert, run_settings

pytestmark = pytest.mark.contract

RATE, DOLLARS = 10, 1.0


def patiently(start, tries=4):
    """Ray gives a node a fixed time to come up, whatever else the machine does."""
    for left in reversed(range(tries)):
        try:
            return start()
        except Exception as error:
            if not left or "timed out" not in str(error).lower():
                raise


@pytest.fixture(scope="module")
def two_nodes():
    patience = {"RAY_raylet_start_wait_time_s": "120", "RAY_gcs_server_request_timeout_seconds": "120"}
    os.environ.update(patience)  # read when Ray is imported and by the processes that it starts
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    for name in ("first", "second"):
        patiently(lambda name=name: cluster.add_node(num_cpus=4, resources={name: 4}))
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    cluster.wait_for_nodes()
    yield ray
    ray.shutdown()
    cluster.shutdown()
    for name in patience:
        del os.environ[name]


def workers_on_both(ray, settings, each):
    """Workers that ask a server on loopback, half of them on either node."""

    @ray.remote(num_cpus=0)
    class Asker:
        def __init__(self):
            from ekipl_rollout.on_verl.shared_bounds import connect_bounds

            self.bounds = connect_bounds(settings)

        def node(self):
            return ray.get_runtime_context().get_node_id()

        async def ask(self, port, requests):
            """[(outcome, seconds from the permit to the server's answer)]"""
            answers = await asyncio.gather(*(self._one(port) for _ in range(requests)))
            await self.bounds.close()
            return answers

        async def fail(self, error):
            permit = await self.bounds.admit("gpt", tokens=1, dollars=0.0)
            await self.bounds.settle(permit, error=error)

        async def refused(self):
            """Why no request may go out now; empty when it may."""
            try:
                permit = await self.bounds.admit("gpt", tokens=1, dollars=0.0)
            except ExpertError as error:
                return error.failure.value
            await self.bounds.settle(permit)
            return ""

        async def _one(self, port):
            try:
                permit = await self.bounds.admit("gpt", tokens=1, dollars=0.06)
            except ExpertError as error:
                return error.failure.value, 0.0
            started = time.monotonic()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"ask")
            paid = json.loads(await reader.read())["dollars"]
            writer.close()
            await self.bounds.settle(permit, tokens=1, dollars=paid)
            return "answered", time.monotonic() - started

    return [Asker.options(resources={node: 1}).remote() for node in ("first", "second") for _ in range(each)]


def test_four_workers_on_two_nodes_exceed_neither_ten_requests_a_second_nor_one_dollar(two_nodes, tmp_path):
    from ekipl_rollout.on_verl.shared_bounds import start_bounds

    settings = run_settings(tmp_path, expert(requests_per_minute=60 * RATE), max_dollars=DOLLARS, burst_s=1.0)
    server, bounds = Counting(), start_bounds(settings)
    workers = workers_on_both(two_nodes, settings, each=2)
    assert len(set(two_nodes.get([worker.node.remote() for worker in workers]))) == 2
    began = time.monotonic()
    parts = two_nodes.get([worker.ask.remote(server.port, 20) for worker in workers])
    outcomes = [outcome for part in parts for outcome, _ in part]
    answered = outcomes.count("answered")
    for node in (parts[:2], parts[2:]):  # 40 requests of one node cost less than the limit
        assert any(outcome == "answered" for part in node for outcome, _ in part)
    assert set(outcomes) == {"answered", "over_budget"}
    assert answered == len(server.times)
    assert answered * PRICE <= DOLLARS < (answered + 1) * PRICE + 0.06  # all but what a last reservation has no room in
    times = sorted(server.times)
    # what a busy machine delays can only come later than its permit, never sooner: no window from the start is too full
    assert all(count <= RATE + RATE * (at - began) for count, at in enumerate(times, start=1))
    late = max(seconds for part in parts for outcome, seconds in part if outcome == "answered")
    width = 0.9 - late
    assert max(sum(start <= at < start + width for at in times) for start in times) <= RATE
    seen = two_nodes.get(bounds.snapshot.remote())
    assert (round(seen["spent"], 9), seen["reserved"]) == (round(answered * PRICE, 9), 0.0)
    server.socket.close()
    two_nodes.kill(bounds)


def test_an_expert_that_fails_on_one_node_rests_on_the_other(two_nodes, tmp_path):
    from ekipl_rollout.errors import Failure
    from ekipl_rollout.on_verl.shared_bounds import start_bounds

    settings = run_settings(tmp_path, expert())
    bounds = start_bounds(settings)
    here, there = workers_on_both(two_nodes, settings, each=1)
    assert two_nodes.get(there.refused.remote()) == ""
    two_nodes.get(here.fail.remote(ExpertError(Failure.UNAUTHORIZED, "401")))
    until = time.monotonic() + 10
    while not (why := two_nodes.get(there.refused.remote())) and time.monotonic() < until:
        time.sleep(0.1)  # what was settled is on its way to the governor
    assert why == "resting"
    two_nodes.kill(bounds)
