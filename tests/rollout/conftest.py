"""A server that fails as it is told to, a key that must not show, and a record on disk."""

import pytest

from ekipl_rollout.record import Record
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


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep" / "r.sqlite"


@pytest.fixture
def record(path):
    opened = Record(path).share()
    yield opened
    opened.close()
