"""For the tests of experts: a server that fails as it is told to, and a key that must not show."""

import pytest

from tests.rollout.expert_helpers import KEY, KINDS
from tests.rollout.fault_server import FaultServer


@pytest.fixture(scope="module")
def server():
    with FaultServer() as running:
        yield running


@pytest.fixture
def key(monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param
