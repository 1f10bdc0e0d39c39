"""scripts/run_ekipl_tiny.sh as a newcomer runs it, in a copy of the repository; only the bring-up of the base model is left
out, which takes minutes: an untaught one of the same shape lies in its place."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
RUN = "tiny-visual_counting-demo-0"


@pytest.fixture
def clone(tmp_path, workshop):
    """The files that git knows, and a base model that counts as brought up."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(lambda name: (ROOT / name).is_file(), listed.splitlines()):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tmp_path / name)
    shutil.copytree(workshop / "model", tmp_path / "models" / "tiny-visual_counting-0")
    (tmp_path / "models" / "tiny-visual_counting-0" / "lesson.json").write_text(
        json.dumps({"lesson": "base", "steps": 0, "accuracy": {"visual_counting": 0.0}})
    )
    return tmp_path


def run(clone: Path, *words: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "EKIPL_VENV": sys.prefix, "STEPS": "1", "DEMO": "demo-a:skill=1,broken=0"}
    small = (
        "data.train_batch_size=4",
        "ekipl.num_answers=4",
        "actor_rollout_ref.rollout.n=4",
        "data.val_max_samples=8",
    )
    command = ["bash", "scripts/run_ekipl_tiny.sh", *small, *words]
    ended = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, f"{ended.stdout[-3000:]}\n{ended.stderr[-6000:]}"
    return ended


def ends(url: str, seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:  # refused, or reset on its way out
            return True
        time.sleep(0.1)
    return False


def test_the_script_trains_reports_and_does_nothing_twice(clone):
    ended = run(clone)
    summary = json.loads(ended.stdout.splitlines()[-1])
    assert (summary["method"], summary["steps"]) == ("ekipl", 1)
    folder = clone / "runs" / RUN
    assert Path(summary["run_dir"]) == folder
    assert Path(summary["model"], "config.json").exists()
    assert "<svg" in (folder / "report.html").read_text()
    row = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert row["ekipl/expert1/accuracy"] == 1.0, "DEMO= made it so"
    assert row["ekipl/expert2/accuracy"] < 1.0
    assert ends(f"{(folder / 'demo.url').read_text()}/v1/models"), "the server of the experts ends with the script"

    began = time.time()
    again = json.loads(run(clone).stdout.splitlines()[-1])
    assert again["accuracy_after"] == summary["accuracy_after"]
    written = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_mtime > began]
    assert not [path for path in written if "checkpoints" in path.parts or "groups" in path.parts]
