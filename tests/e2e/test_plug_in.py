"""Somebody's own `python -m verl.trainer.main_ppo`, with the plug-in's words at its end: verl's main, task runner, trainer."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ekipl_rollout.group_files import group_paths, read_groups
from recipe.ekipl import cpu
from recipe.ekipl.compose import CONFIG_DIR
from recipe.ekipl.processes import MARK, end_processes

pytestmark = pytest.mark.e2e

PLUG_IN = ["hydra.searchpath=[pkg://recipe.ekipl.config]", "+plugin=ekipl", "experts=demo"]


def their_reward(data_source, solution_str, ground_truth, extra_info=None, **_):
    """A reward function that is not ours: the truth is among the words."""
    return float(str(ground_truth) in solution_str.split())


def words(settings, at=""):
    """A nested config as the words of a command."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from words(value, f"{at}{key}.")
        else:
            shown = f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value).lower()
            yield f"++{at}{key}={shown if not isinstance(value, str) else value}"


def small_machine():
    """What verl needs on a CPU and for a tiny model: verl's own keys of config/ekipl_tiny.yaml."""
    tiny = OmegaConf.to_container(OmegaConf.load(CONFIG_DIR / "ekipl_tiny.yaml"))
    del tiny["defaults"], tiny["ekipl"]
    return list(words(tiny))


def stock_command(workshop, out):
    rows, batch = workshop / "rows" / "visual_counting", 4
    return [
        *(sys.executable, "-m", "verl.trainer.main_ppo", *small_machine()),
        "algorithm.adv_estimator=grpo",
        f"data.train_files={rows}/train.rl.parquet",
        f"data.val_files={rows}/clevr_math.rl.parquet",
        f"data.train_batch_size={batch}",
        f"actor_rollout_ref.model.path={workshop}/model",
        f"actor_rollout_ref.actor.ppo_mini_batch_size={batch}",
        "actor_rollout_ref.actor.use_dynamic_bsz=true",
        "actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=true",
        "actor_rollout_ref.rollout.name=vllm",
        "actor_rollout_ref.rollout.n=4",
        f"reward.custom_reward_function.path={__file__}",
        "reward.custom_reward_function.name=their_reward",
        f"trainer.default_local_dir={out}",
        *("trainer.total_training_steps=2", "trainer.save_freq=-1", "trainer.test_freq=-1"),
        *("trainer.val_before_train=false", "trainer.logger=[console,file]"),
    ]


def run_stock(workshop, name, *more, **environment):
    """(metrics by step, everything that was printed)."""
    out = workshop / name
    out.mkdir()
    metrics = out / "metrics.jsonl"
    environment = {**os.environ, **cpu.environment(), "VERL_FILE_LOGGER_PATH": str(metrics), **environment}
    environment[MARK] = str(out)
    log = out / "log"
    with open(log, "wb") as file:
        command = [*stock_command(workshop, out), *more]
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment, cwd=out)
        try:
            status = process.wait(15 * 60)
        finally:
            end_processes(out)
    printed = log.read_text(errors="replace")
    assert status == 0, printed[-6000:]
    return {row["step"]: row["data"] for row in map(json.loads, metrics.read_text().splitlines())}, printed


def test_three_words_bring_experts_into_the_groups_of_stock_main_ppo(workshop, demo_experts):
    _, url = demo_experts
    steps, printed = run_stock(workshop, "plugged", *PLUG_IN, EKIPL_DEMO_URL=url)
    assert "ekipl: demo-a (openai: demo-a), demo-b (gemini: demo-b); of 12 candidates a row the best 4" in printed
    assert "(TaskRunnerV1 pid=" in printed, "verl's own task runner"
    assert set(steps) == {1, 2}
    for step in steps.values():
        assert step["ekipl/groups/count"] == 4
        assert step["ekipl/expert1/answered"] == 16
        assert 0 < step["ekipl/expert_share"] <= 1
        assert step["actor/grad_norm"] >= 0
    groups = [group for _, path in group_paths(workshop / "plugged" / "ekipl") for group in read_groups(path)]
    assert len(groups) == 8
    assert all(sum(answer["kept"] for answer in group["answers"]) == 4 for group in groups)
    assert (workshop / "plugged" / "ekipl" / "records.sqlite").is_file()


def test_without_them_it_is_the_stock_run(workshop):
    steps, printed = run_stock(workshop, "stock")
    assert set(steps) == {1, 2}
    assert not [name for step in steps.values() for name in step if name.startswith("ekipl")]
    assert "ekipl_rollout" not in printed
    assert not Path(workshop, "stock", "ekipl").exists()
