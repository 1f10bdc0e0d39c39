"""scripts/benchmark.sh at its smallest: stock steps and ours in one training, and what was counted. Its times mean nothing here."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from recipe.ekipl.benchmark.arms import ARMS, STOCK
from recipe.ekipl.benchmark.table import read_steps

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
ROWS = 2


def long_and_short_by_turns(path: Path) -> None:
    """verl 0.9.1 fails on a batch whose rows all have one length (ekipl_rollout/on_verl/outputs.py). A random model's answers
    all have the most tokens allowed, so that two questions of one length are such a batch for the stock arm."""
    table = pq.read_table(path)
    words = [len(prompt[-1]["content"].split()) for prompt in table["prompt"].to_pylist()]
    order = sorted(range(len(words)), key=words.__getitem__)
    assert words[order[0]] < words[order[-1]]
    turns = [row for pair in zip(order, reversed(order), strict=True) for row in pair][: len(order)]
    pq.write_table(table.take(turns), path)


def test_the_benchmark_makes_stock_steps_and_ours_and_counts_their_work(workshop):
    out = workshop / "benchmark"
    out.mkdir()
    (out / "world").symlink_to(workshop / "world")  # of the e2e tests, in place of a thousand drawn rows
    shutil.copytree(workshop / "rows", out / "rows")
    long_and_short_by_turns(out / "rows" / "visual_counting" / "train.rl.parquet")
    small = [f"data.train_batch_size={ROWS}", "ekipl.num_answers=4", "actor_rollout_ref.rollout.n=4"]
    command = ["bash", "scripts/benchmark.sh", "--out", out, "--blocks", "1", "--model", workshop / "model"]
    command += ["--fast-s", "0.05", "--slow-s", "1", *small]
    environment = {**os.environ, "EKIPL_VENV": sys.prefix}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    log = out / "train.log"
    assert ended.returncode == 0, f"{ended.stderr[-3000:]}\n{log.exists() and log.read_text(errors='replace')[-6000:]}"

    line = ended.stdout.splitlines()[-1]
    found = json.loads(line)
    assert (out / "benchmark.json").read_text().strip() == line
    about = {"commit", "cores", "busy_cores_before", "seconds", "peak_memory_gib", "fast_s", "slow_s", "overrides"}
    assert set(found) == about | {"blocks", "arms", "checks"}
    assert (found["blocks"], found["slow_s"], found["overrides"]) == (1, 1.0, small)

    steps = read_steps(out)
    assert sorted(step["arm"] for step in steps) == sorted(2 * [arm.name for arm in ARMS]), "a warm-up and one block"
    for step in steps:
        assert (step["rows"], len(step["groups"])) == (4 * ROWS, ROWS)
        assert ("ekipl/groups/count" in step) is (step["arm"] != STOCK), "verl's own sampler knows no groups"
        asked = step.get("ekipl/expert1/answered", 0) + step.get("ekipl/expert3/answered", 0)
        assert (asked > 0) is (step["arm"] != STOCK)

    stock = found["arms"].pop(STOCK)
    assert stock["preprocessings_per_prompt"] == 3 * 4, "verl: for the prompt, the score and the row of each answer"
    assert set(found["arms"]) == {"fast", "recorded", "slow"}
    for name, arm in found["arms"].items():
        assert arm["preprocessings_per_prompt"] == 2
        assert arm["bytes_per_prompt"] == pytest.approx(stock["bytes_per_prompt"], rel=0.05), name
        assert arm["skipped"] == 0, "every arm does the same work"
        assert arm["step_s"] > 0 and arm["ratio_least"] <= arm["ratio"] <= arm["ratio_most"]
    assert found["checks"]["recorded: preprocessings a prompt"] == {"most": 2.0, "seen": 2.0, "holds": True}
