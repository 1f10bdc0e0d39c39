"""Somebody's own `python -m verl.trainer.main_ppo`, with the plug-in's words at its end: verl's main, task runner, trainer."""

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ekipl_rollout.group_files import group_paths, read_groups
from recipe.ekipl import cpu
from recipe.ekipl.compose import CONFIG_DIR
from recipe.ekipl.processes import MARK, end_processes
from tests.megatron_cpu.processes import environment as with_megatron

pytestmark = pytest.mark.e2e

HERE = Path(__file__).parent
PLUG_IN = ["hydra.searchpath=[pkg://recipe.ekipl.config]", "+plugin=ekipl", "experts=demo"]


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
    return tiny


def on_megatron():
    """The same for model_engine=megatron: our bridges, as docs/plug_in.md asks for them, and the tests' engine for a CPU."""
    tiny = small_machine()
    model, actor = tiny["actor_rollout_ref"]["model"], tiny["actor_rollout_ref"]["actor"]
    for block in (actor, tiny["actor_rollout_ref"]["ref"]):
        del block["fsdp_config"]
        block["strategy"] = "megatron"
    del actor["optim"]["override_optimizer_config"], actor["optim"]["min_lr_ratio"]
    actor["optim"] |= {"lr_decay_style": "constant", "lr_warmup_steps": 0}
    model["external_lib"] = ["recipe.ekipl.megatron.register", "tests.megatron_cpu.engine"]
    model["use_remove_padding"] = True
    return tiny


def stock_command(workshop, out, machine):
    rows, batch = workshop / "rows" / "visual_counting", 4
    return [
        *(sys.executable, "-m", "verl.trainer.main_ppo", *words(machine)),
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
        f"reward.custom_reward_function.path={HERE / 'their_reward.py'}",
        "reward.custom_reward_function.name=their_reward",
        f"trainer.default_local_dir={out}",
        *("trainer.total_training_steps=2", "trainer.save_freq=-1", "trainer.test_freq=-1"),
        *("trainer.val_before_train=false", "trainer.logger=[console,file]"),
    ]


def run_stock(workshop, name, *more, machine=None, **environment):
    """(metrics by step, everything that was printed)."""
    out = workshop / name
    out.mkdir()
    metrics = out / "metrics.jsonl"
    environment = {**os.environ, **cpu.environment(), "VERL_FILE_LOGGER_PATH": str(metrics), **environment}
    environment[MARK] = str(out)
    log = out / "log"
    with open(log, "wb") as file:
        command = [*stock_command(workshop, out, machine or small_machine()), *more]
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment, cwd=out)
        try:
            status = process.wait(15 * 60)
        finally:
            end_processes(out)
    printed = log.read_text(errors="replace")
    assert status == 0, printed[-6000:]
    return {row["step"]: row["data"] for row in map(json.loads, metrics.read_text().splitlines())}, printed


def check_groups(folder, steps):
    """Experts joined the groups of both steps and were learned from."""
    assert set(steps) == {1, 2}
    for step in steps.values():
        assert step["ekipl/groups/count"] == 4
        assert step["ekipl/expert1/answered"] == 16
        assert 0 < step["ekipl/expert_share"] <= 1
        assert step["actor/grad_norm"] > 0
    groups = [group for _, path in group_paths(folder / "ekipl") for group in read_groups(path)]
    assert len(groups) == 8
    assert all(sum(answer["kept"] for answer in group["answers"]) == 4 for group in groups)
    assert any(answer["kept"] and answer["source"] == "demo-a" for group in groups for answer in group["answers"])
    assert (folder / "ekipl" / "records.sqlite").is_file()


def test_three_words_bring_experts_into_the_groups_of_stock_main_ppo(workshop, demo_experts):
    _, url = demo_experts
    steps, printed = run_stock(workshop, "plugged", *PLUG_IN, EKIPL_DEMO_URL=url)
    assert "ekipl: demo-a (openai: demo-a), demo-b (gemini: demo-b); of 12 candidates a row the best 4" in printed
    assert "(TaskRunnerV1 pid=" in printed, "verl's own task runner"
    check_groups(workshop / "plugged", steps)


def test_they_bring_them_into_the_groups_of_stock_main_ppo_on_megatron(workshop, demo_experts):
    _, url = demo_experts
    environment = {**with_megatron(), "EKIPL_DEMO_URL": url}
    steps, printed = run_stock(
        workshop, "megatron", "model_engine=megatron", *PLUG_IN, machine=on_megatron(), **environment
    )
    assert "(TaskRunnerV1 pid=" in printed, "verl's own task runner"
    actor = [line for line in printed.splitlines() if "(WorkerDict" in line]
    assert any("megatron/core/models/gpt/gpt_layer_specs.py" in line for line in actor), (
        "the actor is built of its layers"
    )
    check_groups(workshop / "megatron", steps)


def seeded(folder):
    """Words and environment of a run of one step that says the same each time, whoever asks."""
    loop = folder / "loop.yaml"
    loop.write_text("- {name: seeded, _target_: tests.e2e.seeded_loop.SeededLoop}")
    at = "actor_rollout_ref.rollout.agent"
    return (
        *("trainer.total_training_steps=1", "data.shuffle=false"),
        *(f"++{at}.agent_loop_config_path={loop}", f"{at}.default_agent_loop=seeded"),
    )


def said(folder):
    """Prompt, answer and reward of each row of step 1, as verl dumps them."""
    lines = map(json.loads, (folder / "1.jsonl").read_text().splitlines())
    return sorted((line["input"], line["output"], line["score"]) for line in lines)


def watched(path):
    """By process: its command, and the modules of ours that it looked for (watched/sitecustomize.py)."""
    commands, modules = {}, defaultdict(set)
    for process, kind, text in map(json.loads, path.read_text().splitlines()):
        if kind == "command":
            commands[process] = text
        else:
            modules[process].add(text)
    return commands, modules


def test_without_them_it_is_the_stock_run_and_with_no_expert_its_first_step_is_the_same(workshop):
    folder = workshop / "said"
    path = os.pathsep.join([str(HERE / "watched"), str(HERE.parents[1])])
    environment = {"EKIPL_TEST_WATCH": str(workshop / "watched"), "PYTHONPATH": path}
    same = seeded(workshop)
    stock, printed = run_stock(workshop, "stock", *same, f"trainer.rollout_data_dir={folder}/stock", **environment)
    assert set(stock) == {1}
    assert not [name for name in stock[1] if name.startswith("ekipl")]
    assert "ekipl_rollout" not in printed
    assert not Path(workshop, "stock", "ekipl").exists()
    only_the_cpu_platform(*watched(workshop / "watched"))

    none = [*PLUG_IN[:2], "experts=none", f"trainer.rollout_data_dir={folder}/ours"]
    ours, _ = run_stock(workshop, "none", *same, *none, **environment, EKIPL_DEMO_URL="")
    assert ours[1]["ekipl/groups/count"] == 4
    _, modules = watched(workshop / "watched")
    assert "ekipl_rollout.on_verl.worker" in set().union(*modules.values()), "what is there is seen"
    assert said(folder / "ours") == said(folder / "stock")
    assert len({answer for _, answer, _ in said(folder / "stock")}) == 16, "sampled, and not greedy"
    assert stock[1]["critic/advantages/max"] > 0.5 and stock[1]["actor/grad_norm"] > 0
    # lengths are no such number: ours has a masked token behind rows of a group that all have one length (outputs.py)
    for name in ("critic/score", "critic/rewards", "critic/advantages", "critic/returns"):
        for which in ("mean", "max", "min"):
            assert ours[1][f"{name}/{which}"] == pytest.approx(stock[1][f"{name}/{which}"], abs=1e-6), name
    for name in ("actor/grad_norm", "actor/pg_loss", "actor/entropy"):  # rows may come in another order, and sums round
        # the first step's loss is a sum of advantages that is 0 but for rounding
        assert ours[1][name] == pytest.approx(stock[1][name], rel=1e-5, abs=1e-7), name


def only_the_cpu_platform(commands, modules):
    """No process has looked for anything of ours but what makes a machine without a GPU one for verl (recipe/ekipl/cpu):
    VERL_USE_EXTERNAL_MODULES and model.external_lib name it, and vLLM finds its entry point, which does nothing without
    VERL_PLATFORM=cpu. A machine with a GPU needs none of it (tests/contracts/test_plug_in.py)."""
    assert any("verl.trainer.main_ppo" in command for command in commands.values())
    workers = {pid for pid, command in commands.items() if "default_worker.py" in command}
    assert len(workers & set(modules)) >= 4, "task runner, actor, rollout worker, vLLM's server were watched"
    looked = set().union(*modules.values())
    assert "recipe.ekipl.cpu.vllm_plugin" in looked
    assert all(name in ("recipe", "recipe.ekipl") or name.startswith("recipe.ekipl.cpu") for name in looked), looked
