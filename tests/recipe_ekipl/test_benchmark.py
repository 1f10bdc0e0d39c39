"""The benchmark's bookkeeping: who takes turns, what counts, and what the table says."""

import json
import subprocess
import sys

import pytest

from ekipl_rollout.errors import SettingsError
from recipe.ekipl.benchmark.__main__ import build_parser, configure, repeat_rows
from recipe.ekipl.benchmark.arms import ARMS, make_schedule
from recipe.ekipl.benchmark.table import complete_blocks, read_steps, render, summarize
from recipe.ekipl.simulate.calibrate import from_benchmark

NAMES = [arm.name for arm in ARMS]
STEP = {"stock": 4.0, "fast": 4.2, "recorded": 4.0, "slow": 9.0}


def test_every_block_has_every_arm_and_recorded_answers_are_asked_for_first():
    schedule = make_schedule(50, seed=0)
    blocks = [schedule[i : i + 4] for i in range(0, 200, 4)]
    assert all(sorted(block) == sorted(NAMES) for block in blocks)
    assert all(block.index("fast") < block.index("recorded") for block in blocks)
    assert len({tuple(block) for block in blocks}) > 6, "in many orders"


def write_attempt(folder, number, blocks, cut=0):
    """An attempt of whole blocks, as the worker and verl leave it; its last `cut` steps never came."""
    schedule = make_schedule(blocks, number)
    at = folder / f"attempt-{number:04d}"
    (folder / f"{at.name}.schedule.json").write_text(json.dumps(schedule))
    metrics, counts = [], []
    for step, arm in list(enumerate(schedule, start=1))[: len(schedule) - cut]:
        data = {"timing_s/step": STEP[arm], "timing_s/gen": STEP[arm] - 2.0, "perf/total_num_tokens": 100}
        metrics.append({"step": step, "data": data})
        live = arm in ("fast", "slow")
        expert_s = {"fast": 0.5, "slow": 7.0}.get(arm, 0.0)
        group = {"group_s": 2.0, "policy_s": 2.0, "expert_s": expert_s, "exposed_s": max(expert_s - 2.0, 0.0) * live}
        for _ in range(2):  # two workers
            row = {"step": step, "arm": arm, "rows": 8, "bytes": 1000, "preprocessings": 4, "groups": [group] * 2}
            counts.append(row)
    at.with_suffix(".metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics) + '{"torn')
    at.with_suffix(".counts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in counts))


def test_warm_up_and_torn_blocks_do_not_count_and_attempts_add_up(tmp_path):
    write_attempt(tmp_path, 1, blocks=3, cut=2)
    write_attempt(tmp_path, 2, blocks=3)
    assert len(complete_blocks(read_steps(tmp_path))) == 1 + 2


def test_the_table_says_the_ratios_and_what_holds(tmp_path):
    write_attempt(tmp_path, 1, blocks=4)
    summary = summarize(read_steps(tmp_path))
    arms = summary["arms"]
    assert summary["blocks"] == 3
    assert (arms["fast"]["ratio"], arms["recorded"]["ratio"]) == (pytest.approx(1.05), 1.0)
    assert arms["slow"]["exposed_s"] == arms["slow"]["longer_s"] == 5.0
    assert (arms["stock"]["bytes_per_prompt"], arms["stock"]["preprocessings_per_prompt"]) == (500, 2)
    checks = summary["checks"]
    assert checks["slow: exposed wait / (L - R)"] == {"most": 1.1, "seen": 1.0, "holds": True}
    text = render(summary)
    assert "seconds a step" in text and "holds  recorded: step / stock: 1.000, at most 1.02" in text


def test_the_model_predicts_a_benchmark_whose_steps_it_has_not_seen(tmp_path):
    write_attempt(tmp_path, 1, blocks=4)
    world, checks = from_benchmark(tmp_path)
    assert (world.prompts, world.rest_s) == (4, 2.0)
    assert {check.arm: check.predicted_s for check in checks} == {
        "fast": pytest.approx(4.0),
        "slow": pytest.approx(9.0),
    }
    assert checks[1].error == pytest.approx(0.0, abs=1e-6)


def test_an_empty_folder_is_no_benchmark(tmp_path):
    with pytest.raises(SettingsError, match="no finished block"):
        from_benchmark(tmp_path)


def test_each_block_has_rows_of_its_own_once_for_each_arm(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"row": list(range(10))}), tmp_path / "rows.parquet")
    repeat_rows(tmp_path / "rows.parquet", tmp_path / "out.parquet", batch=3, blocks=2)
    assert pq.read_table(tmp_path / "out.parquet")["row"].to_pylist() == [0, 1, 2] * 4 + [3, 4, 5] * 4
    with pytest.raises(SettingsError, match="more than the 10 drawn rows"):
        repeat_rows(tmp_path / "rows.parquet", tmp_path / "out.parquet", batch=6, blocks=2)


@pytest.fixture
def prepared(world, tmp_path):
    """A benchmark's folder whose rows are drawn, and a model that need not be one to be refused."""
    from recipe.ekipl.data.reason_rft import convert

    (tmp_path / "world").symlink_to(world)
    convert(world, tmp_path / "rows", ["visual_counting"], "plain")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    return tmp_path


SMALL = ("data.train_batch_size=2", "actor_rollout_ref.rollout.n=2", "ekipl.num_answers=2")


def words(folder, *more):
    """Of the command."""
    return ["--out", str(folder), "--blocks", "1", "--model", str(folder / "model"), *SMALL, *more]


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("actor_rollout_ref.rollout.n=1", "actor_rollout_ref.rollout.n=1 is G"),
        ("ekipl.select.rule=best", "ekipl.select.rule='best'"),
        ("trainer.v1.trainer_mode=separate_async", "is not supported"),
        ("data.train_batch_size=100", "more than the 12 drawn rows"),
        ("ekipl.num_answer=8", "Did you mean ekipl.num_answers?"),
    ],
)
def test_what_cannot_work_is_refused(prepared, word, says):
    with pytest.raises(SettingsError) as refused:
        configure(build_parser().parse_args(words(prepared, word)), prepared / "at", NAMES * 2, "http://127.0.0.1:9")
    assert says in str(refused.value)


def test_what_works_is_measured_with_the_benchmarks_own_worker_and_sampler(prepared):
    config = configure(build_parser().parse_args(words(prepared)), prepared / "at", NAMES * 2, "http://127.0.0.1:9")
    assert config.actor_rollout_ref.rollout.agent.agent_loop_manager_class.endswith("BenchmarkManager")
    assert config.trainer.v1.sampler.custom_sampler.name == "BenchmarkBuffer"
    assert config.trainer.v1.sampler.sampler_kwargs.schedule == NAMES * 2


def test_a_refusal_ends_the_command_before_anything_is_trained(prepared):
    bad = "actor_rollout_ref.rollout.calculate_log_probs=true"
    command = [sys.executable, "-m", "recipe.ekipl.benchmark", *words(prepared, bad)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.startswith("error: ") and "no rollout log-probability" in ended.stderr
    assert not list(prepared.glob("attempt-*.json*")), "no step was begun"
    assert "ray init kwargs" not in (prepared / "train.log").read_text(), "which verl prints before it starts Ray"
