"""What the wheel brings works by itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.contract

ROOT = Path(__file__).parents[2]


def test_the_wheel_installs_alone_into_a_clean_environment_and_imports():
    done = subprocess.run(
        ["bash", "scripts/check_wheel.sh"],
        cwd=ROOT,
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the wheel installs alone and works: ekipl-" in done.stdout
