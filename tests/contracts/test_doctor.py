"""The doctor on this machine, with Ray and vLLM."""

import subprocess
import sys

import pytest

from recipe.ekipl import cpu
from recipe.ekipl.hardware.nodes import load_vllm_plugins

pytestmark = pytest.mark.contract


def test_it_looks_into_a_ray_worker_and_a_process_of_vllm_and_finds_the_seams_green(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "recipe.ekipl.doctor", "--run-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=600,
    )
    lines = {line.split()[1]: line for line in done.stdout.splitlines() if line.startswith("  ")}
    for what in ("versions", "platform", "seams", "processes", "engines"):
        assert lines[what].split()[0] == "ok", done.stdout + done.stderr
    assert (
        "the driver and a Ray worker on each of 1 nodes" in lines["processes"] and "platform cpu" in lines["processes"]
    )
    assert "a vLLM process on each of 1 nodes loaded ekipl_cpu" in lines["engines"]


def test_a_process_of_vllm_that_is_told_to_load_other_plugins_is_found_out(monkeypatch):
    for name, value in {**cpu.environment(), "VLLM_PLUGINS": "lora_filesystem_resolver"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RuntimeError, match="without our plugin: ekipl_cpu was not loaded"):
        load_vllm_plugins()
