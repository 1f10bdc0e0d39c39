"""The run scripts plan themselves anywhere, in seconds, and refuse to start where something is missing."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.contract

ROOT = Path(__file__).parents[2]
SCRIPTS = ("run_ekipl_7b.sh", "run_ekipl_7b_megatron.sh", "run_ekipl_2b.sh")


def run(script, *overrides, **environment):
    venv = Path(sys.executable).parents[1]
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        ["bash", f"scripts/{script}", *overrides],
        cwd=ROOT,
        env={**kept, "EKIPL_VENV": str(venv), "CUDA_VISIBLE_DEVICES": "", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_dry_run_needs_no_gpu_and_takes_seconds(script):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = run(script, DRY_RUN="1", ROWS="nowhere")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    for word in ("steps", "requests", "money", "memory", "rollout", "update", "KV cache", "hours", "assumed"):
        assert word in done.stdout
    for absent in (
        "nowhere/train.rl.parquet, ",
        "nowhere/clevr_math.rl.parquet not found; planned with 35000 training rows",
        "OPENAI_API_KEY",
        "GEMINI_API_KEY",
        "8 GPUs are asked for and 0 found" if "7b" in script else "4 GPUs are asked for and 0 found",
        *["model_engine=megatron needs megatron-core and megatron-bridge"] * ("megatron" in script),
    ):
        assert absent in done.stderr.partition("missing:")[2]
    assert "cannot work" not in done.stderr
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 30


@pytest.mark.parametrize("model", ["Qwen/Qwen2.5-VL-7B-Instruct", "Qwen/Qwen3-VL-8B-Instruct"])
def test_other_families_are_chosen_by_their_path(model):
    done = run("run_ekipl_7b.sh", DRY_RUN="1", MODEL_PATH=model)
    assert done.returncode == 0 and model in done.stdout


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"METHOD": "grpo"}, "none: plain GRPO"),
        ({"TASK": "structure_perception"}, "5.0 epochs"),
        ({"EXPERTS": "openai"}, "8 answers x 2 sources"),
        ({"NNODES": "2"}, "16 GPUs of 80 GiB"),
        ({"GPU_GIB": "141"}, "8 GPUs of 141 GiB"),
    ],
)
def test_the_switches_change_the_plan(environment, said):
    assert said in run("run_ekipl_7b.sh", DRY_RUN="1", **environment).stdout


def test_each_experts_money_is_told_and_rows_that_are_not_known_are_not_counted():
    said = run("run_ekipl_2b.sh", DRY_RUN="1").stdout
    assert "= gpt-4o $" in said and "+ gemini $" in said
    assert "unknown validation rows" in said
    assert "4 GPUs of 40 GiB" in said


def test_a_supervised_method_is_planned_without_its_data_and_says_what_is_missing():
    done = run("run_ekipl_2b.sh", DRY_RUN="1", METHOD="cot_sft", ROWS="nowhere")
    assert done.returncode == 0, done.stderr
    assert "2187 of 16 rows" in done.stdout
    assert "nowhere/train.sft.parquet not found" in done.stderr


@pytest.mark.parametrize(
    ("environment", "rows", "steps"),
    [({}, "1600 rows", "100 of 16 rows"), ({"COT_ROWS": "-1"}, "35000 rows", "2187 of 16 rows")],
)
def test_reinforcement_learning_begins_with_as_many_lessons_as_reason_rft(environment, rows, steps):
    done = run("run_ekipl_2b.sh", DRY_RUN="1", METHOD="reason_rft", ROWS="nowhere", **environment)
    assert done.returncode == 0, done.stderr
    lessons, _, reinforcement = done.stdout.partition("stage 2")
    assert rows in lessons and steps in lessons
    assert "35000 training rows" in reinforcement


def test_a_dry_run_of_settings_that_cannot_work_plans_them_says_so_and_fails():
    done = run("run_ekipl_2b.sh", "actor_rollout_ref.rollout.n=99", DRY_RUN="1")
    assert done.returncode == 2
    assert "rollout.n=99" in done.stderr.partition("cannot work:")[2].partition("missing:")[0]
    assert "hours" in done.stdout


def test_a_dry_run_of_two_stages_refuses_settings_of_the_first():
    bad = ("--sft", "trainer.nnodes=2")
    done = run("run_ekipl_2b.sh", *bad, DRY_RUN="1", METHOD="reason_rft", ROWS="nowhere")
    assert done.returncode == 2
    assert "trainer.nnodes=2: this command starts the processes of one machine" in done.stderr


def test_a_record_that_is_not_here_is_missing_and_no_setting_that_cannot_work():
    replay = ("ekipl.record.mode=replay", "ekipl.record.path=/nowhere.sqlite")
    done = run("run_ekipl_2b.sh", *replay, DRY_RUN="1")
    assert done.returncode == 0
    assert "'/nowhere.sqlite' does not exist" in done.stderr.partition("missing:")[2]


@pytest.mark.parametrize(
    ("task", "rows", "pictures", "prompt"),
    [("visual_counting", 35_000, "1 picture of", 700), ("spatial_transformation", 60_000, "2 pictures of", 1300)],
)
def test_rows_that_are_not_here_are_priced_and_timed_as_those_of_the_task(task, rows, pictures, prompt):
    said = run("run_ekipl_2b.sh", DRY_RUN="1", TASK=task, EXPERTS="openai", ROWS="nowhere").stdout
    assert f"assumed: 400 tokens of text a question, {pictures}" in said
    assert f"{prompt} prompt tokens" in said
    dollars = float(said.partition("at most $")[2].split()[0])
    asked = (400 + int(pictures[0]) * 1445) * 2.5 + 8 * 512 * 10.0  # dollars a million tokens, as in test_plan.py
    assert dollars == pytest.approx(rows // 64 * 64 * asked / 1e6, abs=0.01)


def test_what_the_user_adds_comes_last_and_wins():
    done = run("run_ekipl_7b.sh", "actor_rollout_ref.rollout.n=4", "--verbose", DRY_RUN="1")
    assert "the best 4 kept" in done.stdout


def test_without_gpus_data_and_keys_nothing_is_started_and_all_of_it_is_said(tmp_path):
    done = run("run_ekipl_2b.sh", ROWS=str(tmp_path), RUN_DIR=str(tmp_path / "run"))
    assert done.returncode == 2
    for said in (
        "train.rl.parquet",
        "OPENAI_API_KEY",
        "GEMINI_API_KEY",
        "4 GPUs are asked for and 0 found",
    ):
        assert said in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("environment", [{"METHOD": "ppo"}, {"TASK": "chess"}, {"METHOD": "ekipl", "EXPERTS": "none"}])
def test_a_switch_that_is_not_known_says_which_are(environment):
    done = run("run_ekipl_7b.sh", DRY_RUN="1", **environment)
    assert done.returncode == 2 and ("Choose" in done.stderr or "METHOD=grpo" in done.stderr)
