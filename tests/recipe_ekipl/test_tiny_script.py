"""scripts/run_ekipl_tiny.sh says what it cannot do before it sets anything up."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"METHOD": "grop"}, ["METHOD=grop", "reason_rft"]),
        ({"EXPERTS": "gpt"}, ["EXPERTS=gpt", "recorded"]),
        ({"METHOD": "ekipl", "EXPERTS": "none"}, ["METHOD=ekipl", "METHOD=grpo"]),
        ({"EXPERTS": "recorded", "RECORD": "nowhere.sqlite"}, ["RECORD=nowhere.sqlite", "EXPERTS=demo"]),
        ({"STEPS": "many"}, ["STEPS=many"]),
        ({"STEPS": "0"}, ["STEPS=0"]),
        ({"SFT_STEPS": "1.5"}, ["SFT_STEPS=1.5"]),
        ({"SEED": "-1"}, ["SEED=-1"]),
        ({"TASK": "counting"}, ["TASK=counting", "visual_counting"]),
    ],
)
def test_a_setting_that_cannot_be_is_refused_with_the_way_out_before_anything_is_made(tmp_path, settings, words):
    """In an empty environment: it cannot have looked for Python, data or a model."""
    script = ROOT / "scripts" / "run_ekipl_tiny.sh"
    ended = subprocess.run(
        ["bash", str(script)], env={"PATH": "/usr/bin:/bin", **settings}, capture_output=True, text=True, timeout=20
    )
    assert ended.returncode == 2
    assert all(word in ended.stderr for word in words), ended.stderr
    assert ended.stdout == ""
