"""Real runs of the real trainer on this machine: verl, Ray, TransferQueue, FSDP2, vLLM, and experts over HTTP.

The policy is a tiny Qwen2-VL with random weights: it always runs to the length limit, which is the hardest case for
verl 0.9.1 (all rows of one length), and it needs no bring-up. What it learns is measured by scripts/run_ekipl_tiny.sh.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest

from ekipl_rollout.group_files import group_paths, read_groups
from recipe.ekipl.processes import processes_of

pytestmark = pytest.mark.e2e

MINUTES = 60
CANARY = "sk-canary-4f1f0c2b9a7d4e66"


class Run:
    """One `python -m recipe.ekipl.train` in a process group of its own."""

    def __init__(self, workshop: Path, name: str, experts: str, url: str, *overrides: str):
        self.root = workshop / "runs" / name
        rows = workshop / "rows" / "visual_counting"
        settings = [
            f"experts={experts}",
            f"data.train_files={rows}/train.rl.parquet",
            f"data.val_files={rows}/clevr_math.rl.parquet",
            f"actor_rollout_ref.model.path={workshop}/model",
            f"ekipl.run_dir={self.root}",
            "data.train_batch_size=4",
            "ekipl.num_answers=4",
            "actor_rollout_ref.rollout.n=4",
            *overrides,
        ]
        environment = {**os.environ, "EKIPL_DEMO_URL": url, "CANARY_KEY": CANARY}
        self.stdout = workshop / f"{name}.out"
        with open(self.stdout, "ab") as out:
            command = [sys.executable, "-m", "recipe.ekipl.train", "--config-name", "ekipl_tiny", *settings]
            self.process = subprocess.Popen(command, stdout=out, stderr=out, env=environment, start_new_session=True)

    def finish(self, seconds: float = 12 * MINUTES) -> dict:
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            status = "too slow"
        assert status == 0, f"{self.stdout.read_text()[-3000:]}\n{self.log()[-6000:]}"
        return json.loads(self.stdout.read_text().splitlines()[-1])

    def log(self) -> str:
        path = self.root / "train.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def wait_for_step(self, step: int, seconds: float = 12 * MINUTES) -> None:
        tracker = self.root / "checkpoints" / "latest_checkpointed_iteration.txt"
        deadline = time.time() + seconds
        while not (tracker.exists() and tracker.read_text() and int(tracker.read_text()) >= step):
            assert self.process.poll() is None, self.log()[-6000:]
            assert time.time() < deadline, self.log()[-6000:]
            time.sleep(0.2)

    def ctrl_c(self) -> None:
        """Ends the run as a person would; it must say how to go on, and leave no process."""
        os.kill(self.process.pid, signal.SIGINT)
        assert self.process.wait(2 * MINUTES) == 130, self.stdout.read_text()[-3000:]
        tracker = self.root / "checkpoints" / "latest_checkpointed_iteration.txt"
        assert f"The same command goes on from step {tracker.read_text()}." in self.stdout.read_text()
        assert processes_of(self.root) == []

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(10)


def answers_of(run_dir: Path) -> dict:
    """(step, row) -> every answer with its source and whether it was kept, sorted."""
    return {
        (group["step"], group["row"]): sorted((a["source"], a["text"], a["kept"]) for a in group["answers"])
        for _, path in group_paths(run_dir)
        for group in read_groups(path)
    }


def test_training_with_two_experts_survives_kill_and_ctrl_c_and_a_replay_gives_the_same_groups(workshop, demo_experts):
    server, url = demo_experts
    began = time.time()
    steps = ["trainer.total_training_steps=3", "trainer.save_freq=1", "trainer.test_freq=3"]
    keyed = "ekipl.experts.0.api_key_env=CANARY_KEY"
    first = Run(workshop, "live", "demo", url, keyed, *steps)
    first.wait_for_step(1)
    first.kill()

    stopped = Run(workshop, "live", "demo", url, keyed, *steps)
    stopped.wait_for_step(2)
    stopped.ctrl_c()

    resumed = Run(workshop, "live", "demo", url, keyed, *steps)
    summary = resumed.finish()
    assert "going on" in resumed.stdout.read_text()
    assert summary["steps"] == 3
    assert set(summary["accuracy_before"]) == set(summary["accuracy_after"]) == {"clevr_math"}

    rows = [json.loads(line) for line in (resumed.root / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    for row in rows[1:]:
        assert row["ekipl/groups/count"] == 4
        assert row["ekipl/expert1/accuracy"] > 0
        assert 0 < row["ekipl/expert_share"] <= 1
        assert row["actor/grad_norm"] > 0
        assert "ekipl/expert2/share" in row
    assert 1 < summary["peak_memory_gib"] < 16
    groups = answers_of(resumed.root)
    assert len(groups) == 12
    assert all(sum(kept for _, _, kept in answers) == 4 for answers in groups.values())
    assert "<svg" in (resumed.root / "report.html").read_text()

    server.terminate()
    server.wait(10)
    record = f"ekipl.record.path={resumed.root}/records.sqlite"
    replay = Run(workshop, "replay", "recorded", "http://127.0.0.1:9", keyed, record, *steps)
    replay.finish()
    assert answers_of(replay.root) == groups  # the policy's own answers too, at every step

    sessions = [p for p in Path(tempfile.gettempdir(), "ray").glob("session_2*") if p.stat().st_mtime >= began]
    assert sessions, "Ray's own folders are searched, too"
    assert files_that_hold(CANARY, workshop, *sessions) == []


def files_that_hold(secret: str, *folders: Path) -> list[Path]:
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if secret.encode() in path.read_bytes()]


def counted(metrics: str, name: str) -> float:
    """A counter of vLLM's /metrics, over all its labels."""
    lines = [line for line in metrics.splitlines() if line.startswith(f"{name}{{")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def prompt_tokens(workshop: Path, rows: set) -> int:
    """Tokens of these rows' prompts, pictures included, as transformers counts them."""
    import io

    import pyarrow.parquet as pq
    from PIL import Image
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(workshop / "model")
    total = 0
    for row in pq.read_table(workshop / "rows" / "visual_counting" / "train.rl.parquet").to_pylist():
        if row["extra_info"]["id"] in rows:
            pictures = [Image.open(io.BytesIO(image["bytes"])) for image in row["images"]]
            text = row["prompt"][0]["content"].replace("<image>", "")
            content = [*({"type": "image"} for _ in pictures), {"type": "text", "text": text}]
            prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
            total += len(processor(text=[prompt], images=pictures)["input_ids"][0])
    return total


def test_a_real_vllm_server_is_asked_for_n_answers_about_the_picture(workshop, vllm_expert, monkeypatch):
    monkeypatch.setenv("EKIPL_VLLM_URL", f"{vllm_expert}/v1")
    monkeypatch.setenv("EKIPL_VLLM_MODEL", "expert")
    limits = ["trainer.total_training_steps=2", "trainer.save_freq=-1", "trainer.test_freq=-1"]
    # an untaught expert talks until it is cut off; what it says must still fit once it is encoded anew
    limits += ["ekipl.experts.0.max_tokens=16"]
    run = Run(workshop, "vllm", "vllm", "", "trainer.val_before_train=False", *limits)
    assert run.finish()["steps"] == 2
    groups = answers_of(run.root)
    assert len(groups) == 8
    for answers in groups.values():
        assert [source for source, _, _ in answers].count("policy") == 4
    rows = [json.loads(line) for line in (run.root / "metrics.jsonl").read_text().splitlines()]
    assert [row["ekipl/expert1/answered"] for row in rows if row["step"]] == [16, 16]
    assert all(row["ekipl/expert1/length"] > 0 for row in rows if row["step"]), "some were short enough to be judged"

    with urllib.request.urlopen(f"{vllm_expert}/metrics", timeout=20) as reply:
        metrics = reply.read().decode()
    assert counted(metrics, "vllm:request_success_total") == 8 * 4, "four answers a row"
    tokens = prompt_tokens(workshop, {row for _, row in groups})
    assert counted(metrics, "vllm:prompt_tokens_total") in (tokens, 4 * tokens), "the picture is part of the prompt"
