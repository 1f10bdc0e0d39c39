"""Shared by all tests: no network but loopback, no keys from the developer's shell, and a tiny world on disk."""

import os
import socket
import threading
from pathlib import Path

import pytest

PROVIDER_PREFIXES = ("OPENAI_", "GOOGLE_", "GEMINI_", "AZURE_")


@pytest.fixture(autouse=True)
def _no_keys_from_outside(monkeypatch):
    for name in list(os.environ):
        if name.startswith(PROVIDER_PREFIXES):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _only_loopback(monkeypatch):
    """Both SDKs fall through to the real network when a test's server is misnamed; here that is an error."""
    connect = socket.socket.connect

    def guarded(self, address):
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test tried to reach {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    """Twelve training rows and six test rows a split of every task, in the Reason-RFT layout."""
    from recipe.ekipl.data.splits import TASKS
    from recipe.ekipl.data.synthetic.write import write_world

    folder = tmp_path_factory.mktemp("world")
    write_world(folder, list(TASKS), train=12, base=8, test=6, seed=3)
    return folder


@pytest.fixture
def forget_registered_tasks():
    """Tasks that the test registers are no longer known to the tests after it."""
    from ekipl_reward import DATA_SOURCES, TASKS, tasks

    tables = [(known, dict(known)) for known in (TASKS, DATA_SOURCES)]
    yield
    for known, before in tables:
        known.clear()
        known.update(before)
    tasks._looked_up.cache_clear()
    tasks._usable.cache_clear()


class AppServer:
    """An ASGI app on a free loopback port, in a thread."""

    def __init__(self, app):
        import uvicorn

        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]}, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.should_exit = True
        self.thread.join(timeout=10)
        self.socket.close()


@pytest.fixture
def serve():
    """serve(app) -> address; the server ends with the test."""
    running = []

    def start(app) -> str:
        server = AppServer(app).__enter__()
        running.append(server)
        return server.url

    yield start
    for server in running:
        server.__exit__()
