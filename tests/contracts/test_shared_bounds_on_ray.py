"""The bounds of a run behind a named Ray actor: four workers and a real server."""

import asyncio
import json
import time

import pytest

from ekipl_rollout.errors import EkiplError, ExpertError
from tests.contracts.bounds_helpers import PRICE, Counting, expert, run_settings

pytestmark = pytest.mark.contract


@pytest.fixture(scope="module")
def ray_cluster():
    import ray

    ray.init(num_cpus=8, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    yield ray
    ray.shutdown()


def asker(ray):
    @ray.remote(num_cpus=0)
    class Asker:
        """A worker: asks as fast as it may until it is refused; may be told to die with requests out."""

        def __init__(self, settings):
            from ekipl_rollout.on_verl.shared_bounds import connect_bounds

            self.bounds = connect_bounds(settings)

        async def ask(self, port, requests, dollars):
            results = await asyncio.gather(*(self._one(port, dollars) for _ in range(requests)))
            await self.bounds.close()
            return results

        async def hold(self, count, dollars):
            for _ in range(count):
                await self.bounds.admit("gpt", tokens=1, dollars=dollars)

        async def _one(self, port, dollars):
            try:
                permit = await self.bounds.admit("gpt", tokens=1, dollars=dollars)
            except ExpertError as error:
                return error.failure.value
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"ask")
            paid = json.loads(await reader.read())["dollars"]
            writer.close()
            await self.bounds.settle(permit, tokens=1, dollars=paid)
            return "answered"

    return Asker


def test_four_workers_exceed_neither_ten_requests_a_second_nor_one_dollar(ray_cluster, tmp_path):
    """Measured at the server. More than three times the price of a request is reserved for it."""
    from ekipl_rollout.on_verl.shared_bounds import start_bounds

    settings = run_settings(tmp_path, expert(requests_per_minute=600, max_in_flight=6), max_dollars=1.0, burst_s=1.0)
    server, bounds, Asker = Counting(), start_bounds(settings), asker(ray_cluster)
    workers = [Asker.remote(settings) for _ in range(4)]
    began = time.monotonic()
    outcomes = [o for part in ray_cluster.get([w.ask.remote(server.port, 20, 0.06) for w in workers]) for o in part]
    answered = outcomes.count("answered")
    assert answered == len(server.times)
    assert set(outcomes) == {"answered", "over_budget"}
    assert answered * PRICE <= 1.0
    assert (answered + 1) * PRICE > 1.0 - 0.06  # all but what a last reservation has no room in
    assert server.most <= 6
    times = sorted(server.times)
    # a busy machine can only delay a request after its permit: from the start on, no moment has seen too many
    assert all(count <= 10 + 10 * (at - began) for count, at in enumerate(times, start=1))
    seen = ray_cluster.get(bounds.snapshot.remote())
    assert (round(seen["spent"], 9), seen["reserved"]) == (round(answered * PRICE, 9), 0.0)
    server.socket.close()
    ray_cluster.get(bounds.close.remote())
    ray_cluster.kill(bounds)


def test_what_was_out_when_everything_was_killed_is_spent(ray_cluster, tmp_path):
    from ekipl_rollout.on_verl.shared_bounds import start_bounds

    settings = run_settings(tmp_path, expert(), max_dollars=1.0)
    bounds, worker = start_bounds(settings), asker(ray_cluster).remote(settings)
    ray_cluster.get(worker.hold.remote(3, 0.1))
    ray_cluster.kill(worker)
    ray_cluster.kill(bounds)
    again = start_bounds(settings)
    seen = ray_cluster.get(again.snapshot.remote())
    assert (round(seen["spent"], 9), seen["reserved"]) == (0.3, 0.0)
    ray_cluster.kill(again)


def test_a_ledger_that_cannot_be_used_is_known_at_the_start(ray_cluster, tmp_path):
    from ekipl_rollout.on_verl.shared_bounds import start_bounds

    (tmp_path / "ledger.sqlite").write_bytes(b"damaged beyond recognition, and long enough to be looked at" * 20)
    with pytest.raises(EkiplError, match="damaged"):
        start_bounds(run_settings(tmp_path))
