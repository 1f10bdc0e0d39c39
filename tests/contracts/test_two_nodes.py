"""Two Ray nodes on one machine, each with a record of its own: the bounds of a run hold for the workers of both, measured at
the server, and the nodes' records come together afterwards."""

import asyncio
import json
import math
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace

import pytest

from ekipl_rollout.errors import Failure
from ekipl_rollout.settings import BoundsSettings, EkiplSettings, ExpertSettings, RecordSettings
from tests.rollout.fault_server import FaultServer

pytestmark = pytest.mark.contract

RATE, DOLLARS = 10, 1.0
ANSWERS, PRICE, RESERVED = 2, 0.008, 0.024
"""Answers of a request, its dollars by the server's count (provider.py: 10 tokens an answer), and what is put aside for it."""

NODES = ("first", "second")


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
    for name in NODES:
        patiently(lambda name=name: cluster.add_node(num_cpus=4, resources={name: 4}))
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    cluster.wait_for_nodes()
    yield ray
    ray.shutdown()
    cluster.shutdown()
    for name in patience:
        del os.environ[name]


class Provider(FaultServer):
    """Speaks both protocols, and notes when each request that it answers has come and what it said."""

    def __init__(self):
        super().__init__(latency_s=0.05)
        self.times, self.told = {}, Counter()

    async def _healthy(self, call, wire):
        self.times.setdefault(call.model, []).append(time.monotonic())
        self.told.update((call.model, call.text(index)) for index in range(call.answers))
        await super()._healthy(call, wire)

    @property
    def dollars(self):
        return self.billed["output"] * PRICE / (10 * ANSWERS)


def expert(name, kind, server, **settings):
    return ExpertSettings(
        name=name,
        kind=kind,
        model=settings.pop("model", name),
        base_url=f"{server.url}/v1" if kind == "openai" else server.url,
        max_tokens=30,
        dollars_per_million_output=PRICE / (10 * ANSWERS) * 1e6,
        **settings,
    )


def run_of(folder, *experts, **bounds):
    return EkiplSettings(
        experts=experts, run_dir=str(folder), bounds=BoundsSettings(**bounds), expert_timeout_s=300.0, keep_groups=False
    )


def record_of(folder, node):
    return folder / f"{node}.sqlite"


def workers_on_both(ray, settings, folder, each):
    """Processes that ask as a rollout worker does, half of them on either node, whose disks are apart."""

    @ray.remote(num_cpus=0)
    class Worker:
        def __init__(self, node):
            from ekipl_rollout.on_verl.asking import Asking

            record = RecordSettings(path=str(record_of(folder, node)))
            self.asking = Asking(replace(settings, record=record))

        def node(self):
            return ray.get_runtime_context().get_node_id()

        async def ask(self, rows):
            """[(answers, [(expert, failure)])] of each row; an answer is (expert, text, seconds)."""
            self.asking.start()
            return await asyncio.gather(*(self._one(row) for row in rows))

        async def close(self):
            await self.asking.close()

        async def _one(self, row):
            async def policy(): ...

            prompt = {"raw_prompt": [{"role": "user", "content": row}], "uid": row, "data_source": "clevr_math"}
            _, asked = await self.asking.ask(policy(), prompt, 1, ANSWERS, list)
            return [(a.source, a.text, a.seconds) for a in asked.answers], asked.failures

    return [Worker.options(resources={node: 1}).remote(node) for node in NODES for _ in range(each)]


def record_command(*words):
    """`python -m ekipl_rollout.record`, as a person types it."""
    command = [sys.executable, "-m", "ekipl_rollout.record", *map(str, words)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def answers_in(record):
    """(expert, text) of every answer in a record."""
    lines = [json.loads(line) for line in record_command("export", record, "-").splitlines()]
    return Counter((answer["source"], answer["text"]) for line in lines for answer in line["answers"])


def most_within(times, seconds):
    return max(sum(start <= at < start + seconds for at in times) for start in times)


def test_four_workers_on_two_nodes_exceed_neither_ten_requests_a_second_nor_one_dollar(two_nodes, tmp_path):
    from ekipl_rollout.on_verl.shared_bounds import start_bounds

    with Provider() as server:
        experts = [
            expert(name, kind, server, requests_per_minute=60 * RATE)
            for name, kind in (("gpt", "openai"), ("gem", "gemini"))
        ]
        settings = run_of(tmp_path, *experts, max_dollars=DOLLARS, burst_s=1.0)
        bounds = start_bounds(settings)
        workers = workers_on_both(two_nodes, settings, tmp_path, each=2)
        assert len(set(two_nodes.get([worker.node.remote() for worker in workers]))) == 2
        began = time.monotonic()
        asking = [worker.ask.remote([f"How many in {w}-{i}?" for i in range(20)]) for w, worker in enumerate(workers)]
        parts = two_nodes.get(asking)
        two_nodes.get([worker.close.remote() for worker in workers])
        seen = two_nodes.get(bounds.snapshot.remote())
        two_nodes.kill(bounds)

    answers = [answer for part in parts for found, _ in part for answer in found]
    assert {failure for part in parts for _, failures in part for _, failure in failures} == {Failure.OVER_BUDGET}
    for node in (parts[:2], parts[2:]):  # 40 rows of one node cost less than the limit
        assert any(found for part in node for found, _ in part)

    requests = sum(map(len, server.times.values()))
    assert server.dollars == pytest.approx(requests * PRICE)
    # all but what a last reservation has no room in
    assert server.dollars <= DOLLARS < server.dollars + PRICE + RESERVED
    assert (round(seen["spent"], 9), seen["reserved"]) == (round(server.dollars, 9), 0.0)

    late = max(seconds for _, _, seconds in answers) + 0.25  # from a permit to its request's arrival, and then some
    assert set(server.times) == {"gpt", "gem"}
    for times in map(sorted, server.times.values()):
        # what a busy machine delays can only come later than its permit, never sooner: no window from the start is too full
        assert all(count <= RATE + RATE * (at - began) for count, at in enumerate(times, start=1))
        for seconds in (0.5, 1.0, 2.0):
            assert most_within(times, seconds) <= RATE * math.ceil(seconds + late)

    told = Counter((source, text) for source, text, _ in answers)
    assert told == server.told, "what was paid for was used"
    merge_and_compare(tmp_path, told)


def merge_and_compare(folder, told):
    """The product's own command over both nodes' records; twice, as it may be after a Ctrl-C."""
    records = [record_of(folder, node) for node in NODES]
    both = [answers_in(record) for record in records]
    assert all(both) and sum(both, Counter()) == told, "a node keeps what its own workers were told"
    merged = folder / "all.sqlite"
    for _ in range(2):
        record_command("merge", merged, *records)
        assert answers_in(merged) == told
        assert set(told.values()) == {1}
    assert "no problems" in record_command("verify", merged)


def test_an_expert_that_fails_on_one_node_rests_on_the_other(two_nodes, tmp_path):
    from ekipl_rollout.on_verl.shared_bounds import start_bounds

    with Provider() as server:
        settings = run_of(tmp_path, expert("gpt", "openai", server, model="401"), expert("other", "openai", server))
        bounds = start_bounds(settings)
        here, there = workers_on_both(two_nodes, settings, tmp_path, each=1)
        ((_, failures),) = two_nodes.get(here.ask.remote(["How many?"]))
        assert failures == [("gpt", Failure.UNAUTHORIZED)] * ANSWERS
        until = time.monotonic() + 10  # what was settled is on its way to the governor
        while two_nodes.get(bounds.snapshot.remote())["experts"]["gpt"]["breaker"] != "open":
            assert time.monotonic() < until
            time.sleep(0.1)
        ((answers, failures),) = two_nodes.get(there.ask.remote(["And how many here?"]))
        assert failures == [("gpt", Failure.RESTING)] * ANSWERS
        assert [source for source, _, _ in answers] == ["other"] * ANSWERS
        assert server.hits["401"] == 1
        two_nodes.get([worker.close.remote() for worker in (here, there)])
        two_nodes.kill(bounds)
