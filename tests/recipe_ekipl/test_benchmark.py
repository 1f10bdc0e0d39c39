"""The benchmark's bookkeeping: who takes turns, what counts, and what the table says."""

import json

import pytest

from ekipl_rollout.errors import SettingsError
from recipe.ekipl.benchmark.__main__ import repeat_rows
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
