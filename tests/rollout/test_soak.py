"""A small soak in this process; the full one is tests/rollout/soak_experts.py."""

import pytest

from tests.rollout.fault_server import FaultServer
from tests.rollout.soak_experts import judge, work

pytestmark = pytest.mark.filterwarnings("ignore:BRAND_NEW")


async def test_every_answer_is_delivered_once_and_nothing_is_left_behind():
    with FaultServer(failures=0.2) as server:
        done = await work(server.url, "w", 250, 10**12)
        assert judge([done], server, 10**12) == []
    assert server.faulted > 20 and done.retried > 10 and len(done.delivered) > 150


async def test_a_budget_is_never_exceeded_whatever_is_in_flight():
    nano = 20_000_000  # two cents: a few dozen requests
    with FaultServer(failures=0.3) as server:
        done = await work(server.url, "w", 5000, nano)
        assert judge([done], server, nano) == []
    assert done.refused > 0 and done.requests < 5000
    assert 0 < done.spent <= done.closest <= nano
