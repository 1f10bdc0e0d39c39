"""One real update beside a plain statement of the paper's Eq. 3, with weights, on rows from several sources."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from recipe.ekipl import cpu

pytestmark = pytest.mark.contract


@pytest.fixture(scope="module", params=["all weights", "lora"])
def update(request, tmp_path_factory) -> dict:
    """What one_update.py found, in a process of its own: it is a world of one for torch.distributed."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    environment = {
        **os.environ,
        **cpu.environment(),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    command = [sys.executable, "-m", "tests.contracts.one_update", str(tmp_path_factory.mktemp("model"))]
    command += ["--lora"] * (request.param == "lora")
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert ended.returncode == 0, (ended.stdout + ended.stderr)[-6000:]
    return json.loads(ended.stdout.splitlines()[-1])


@pytest.mark.parametrize("loss", ["papers", "every term of ours"])
def test_loss_and_gradient_are_those_of_the_paper_written_down_plainly(update, loss):
    found = update[loss]
    assert found["loss"] < 1e-6
    assert found["gradient"] < 1e-6
    assert found["largest gradient"] > 1e-2  # the comparison is not between zeros
    assert found["parameters"] > 50
    assert found["spread of weights"] > 2
