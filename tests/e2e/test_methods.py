"""A method with two stages, for real: supervised learning, then GRPO from where it ended (verl, Ray, vLLM)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from recipe.ekipl.data.reason_rft import convert
from recipe.ekipl.data.synthetic.write import write_world
from recipe.ekipl.evaluate.checkpoint import find_checkpoint
from recipe.ekipl.run_files import RunFiles

pytestmark = pytest.mark.e2e

SECONDS = 12 * 60


def method(root: Path, *words: str) -> str:
    """What `reason_rft` printed."""
    settings = [
        *("--model", str(root / "model"), "--rows", str(root / "rows" / "visual_counting"), "--run", str(root / "run")),
        *("--config-name", "ekipl_tiny", "--sft-config", "ekipl_sft_tiny"),
        *("--sft", "trainer.total_training_steps=2", "--sft", "data.train_batch_size=8"),
        *(
            "trainer.total_training_steps=1",
            "data.train_batch_size=4",
            "ekipl.num_answers=4",
            "actor_rollout_ref.rollout.n=4",
        ),
        *("trainer.save_freq=1", "trainer.test_freq=-1", "trainer.val_before_train=False"),
    ]
    command = [sys.executable, "-m", "recipe.ekipl.methods", "reason_rft", *settings, *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=SECONDS)
    log = root / "run" / "train.log"
    assert done.returncode == 0, done.stdout[-3000:] + (log.read_text(errors="replace")[-4000:] if log.exists() else "")
    return done.stdout


def test_the_second_stage_starts_from_the_first_and_what_is_done_is_not_done_again(tmp_path):
    from recipe.ekipl.tiny.model import build

    write_world(tmp_path / "world", ["visual_counting"], train=32, base=0, test=4, seed=1)
    convert(tmp_path / "world", tmp_path / "rows", ["visual_counting"], "plain")
    build(tmp_path / "model", seed=0)

    model = json.loads(method(tmp_path).splitlines()[-1])["model"]
    warm, run = RunFiles(tmp_path / "run-sft"), RunFiles(tmp_path / "run")
    assert (warm.last_checkpoint(), run.last_checkpoint()) == (2, 1)
    started_from = yaml.safe_load((run.root / "config.yaml").read_text())["actor_rollout_ref"]["model"]["path"]
    assert Path(started_from) == find_checkpoint(warm.root).folder
    assert Path(model) == find_checkpoint(run.root).folder
    before_and_after = {
        (folder / "model.safetensors").read_bytes() for folder in (tmp_path / "model", Path(started_from))
    }
    assert len(before_and_after) == 2, (
        "the first stage learnt something (the second has an untrained model and no reward)"
    )
    losses = [json.loads(line) for path in (warm.root / "losses").iterdir() for line in path.read_text().splitlines()]
    assert [line["step"] for line in losses] == [1, 2]

    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    again = method(tmp_path)
    assert "2 steps done" in again and "1 steps done" in again
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
