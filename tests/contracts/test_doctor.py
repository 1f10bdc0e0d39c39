"""The doctor on this machine, with Ray."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.contract


def test_it_looks_into_a_ray_worker_and_finds_the_seams_green(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "recipe.ekipl.doctor", "--run-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=600,
    )
    lines = {line.split()[1]: line for line in done.stdout.splitlines() if line.startswith("  ")}
    for what in ("versions", "platform", "seams", "processes"):
        assert lines[what].split()[0] == "ok", done.stdout + done.stderr
    assert "a Ray worker on each of 1 nodes" in lines["processes"] and "platform cpu" in lines["processes"]
