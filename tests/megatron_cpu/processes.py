"""Processes of their own for Megatron's tests: the stand-ins for CUDA and TransformerEngine stay out of pytest's."""

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
    """Of a process in which verl finds Megatron and the stand-ins."""
    if not PACKAGES.is_dir():
        pytest.fail(f"{PACKAGES} is missing. `bash scripts/run_tests.sh contract` installs Megatron there.")
    paths = [str(Path(__file__).parents[2]), str(PACKAGES), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        **cpu.environment(),
        "VERL_USE_EXTERNAL_MODULES": f"tests.megatron_cpu.plugin,{cpu.PLUGIN_MODULE}",
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "TORCHDYNAMO_DISABLE": "1",  # Megatron-Core compiles small functions, and the compiler looks for a GPU
    }


def run(module: str, *calls: list[str], seconds: float = 15 * MINUTES) -> None:
    """`python -m module arguments`, for all `calls` at the same time, to their end; the last words of one that fails."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    here = {**environment(), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-m", f"tests.megatron_cpu.{module}"]
    running = [
        subprocess.Popen([*command, *call], env=here, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for call in calls
    ]
    try:
        said = [process.communicate(timeout=seconds)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    for process, words in zip(running, said, strict=True):
        assert process.returncode == 0, words[-6000:]
