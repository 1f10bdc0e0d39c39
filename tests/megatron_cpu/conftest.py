"""Megatron's tests run in processes of their own: stand-ins for CUDA and TransformerEngine stay out of pytest's."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from recipe.ekipl import cpu

PACKAGES = Path(sys.prefix, "megatron-packages")
MINUTES = 60


def environment() -> dict[str, str]:
    if not PACKAGES.is_dir():
        pytest.fail(f"{PACKAGES} is missing. `bash scripts/run_tests.sh contract` installs Megatron there.")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    paths = [str(Path(__file__).parents[2]), str(PACKAGES), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        **cpu.environment(),
        "VERL_USE_EXTERNAL_MODULES": f"tests.megatron_cpu.plugin,{cpu.PLUGIN_MODULE}",
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "TORCHDYNAMO_DISABLE": "1",  # Megatron-Core compiles small functions, and the compiler looks for a GPU
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def run(module: str, *arguments: str, seconds: float = 5 * MINUTES) -> None:
    """`python -m module arguments`, to its end; its last words when it fails."""
    command = [sys.executable, "-m", f"tests.megatron_cpu.{module}", *arguments]
    ended = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=seconds)
    assert ended.returncode == 0, (ended.stdout + ended.stderr)[-6000:]


@pytest.fixture(scope="session")
def megatron_folder(tmp_path_factory) -> Path:
    """What world_of_one left: models, and numbers in found.json."""
    folder = tmp_path_factory.mktemp("megatron")
    run("world_of_one", str(folder))
    return folder


@pytest.fixture(scope="session")
def alone(megatron_folder) -> dict:
    """What was found in a world of one process."""
    return json.loads((megatron_folder / "found.json").read_text())
