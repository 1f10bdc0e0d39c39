"""A tiny world with a model and experts, for real runs."""

import contextlib
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recipe.ekipl.data.reason_rft import convert
from recipe.ekipl.data.synthetic.write import write_world


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """A world, its rows and a random model."""
    from recipe.ekipl.tiny.model import build

    root = tmp_path_factory.mktemp("e2e")
    write_world(root / "world", ["visual_counting"], train=64, base=0, test=8, seed=1)
    convert(root / "world", root / "rows", ["visual_counting"], "plain")
    build(root / "model", seed=0)
    return root


@contextlib.contextmanager
def serving(module: str, ready: Path, *arguments: str):
    """A server process of ours, and its address once it answers."""
    ready.unlink(missing_ok=True)  # of the test before, in the same workshop
    server = subprocess.Popen([sys.executable, "-m", module, "--ready", str(ready), *arguments])
    try:
        while not ready.exists() or not ready.read_text():
            assert server.poll() is None
            time.sleep(0.2)
        yield server, ready.read_text()
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture
def demo_experts(workshop):
    world = ("--data", str(workshop / "world"), "--expert", "demo-b:failures=0.2")
    with serving("recipe.ekipl.tiny.demo_experts", workshop / "demo.url", *world) as server:
        yield server


@pytest.fixture
def vllm_expert(workshop):
    """A real vLLM OpenAI server; the model behind it is as untrained as the policy."""
    with serving("recipe.ekipl.tiny.serve", workshop / "vllm.url", "--model", str(workshop / "model")) as (_, url):
        yield url
