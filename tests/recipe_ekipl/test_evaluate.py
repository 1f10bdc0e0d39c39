"""The evaluation as a command: which checkpoint, what it comes to, and what cannot work."""

import json
import os

import pytest

from ekipl_rollout.errors import SettingsError
from recipe.ekipl.evaluate.__main__ import main
from recipe.ekipl.evaluate.checkpoint import find_checkpoint
from recipe.ekipl.evaluate.judge import judge_row
from recipe.ekipl.evaluate.options import engine_of, read
from recipe.ekipl.evaluate.result import summarize_split, write_result
from recipe.ekipl.evaluate.rows import find_splits, read_rows
from tests.recipe_ekipl.evaluate_helpers import touch


@pytest.fixture(autouse=True)
def _same_environment_afterwards():
    """The command chooses the platform for its process."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def test_a_run_its_checkpoints_a_step_and_its_actor_all_mean_the_same_model(tmp_path):
    step = tmp_path / "run/checkpoints/global_step_40"
    touch(step / "actor/huggingface/config.json", step / "actor/huggingface/model.safetensors")
    (tmp_path / "run/checkpoints/latest_checkpointed_iteration.txt").write_text("40")
    (tmp_path / "run/plan.json").write_text(json.dumps({"batch": 16}))
    for path in (tmp_path / "run", tmp_path / "run/checkpoints", step, step / "actor", step / "actor/huggingface"):
        found = find_checkpoint(path)
        assert found.folder == step / "actor/huggingface"
        assert (found.step, found.samples_seen, found.run_dir) == (40, 640, (tmp_path / "run").resolve())


def test_a_megatron_checkpoint_with_hugging_face_weights_needs_no_merging(tmp_path):
    folder = tmp_path / "actor/model/huggingface"
    touch(folder / "config.json", folder / "model-00001-of-00002.safetensors")
    assert find_checkpoint(tmp_path).folder == folder


def test_megatron_shards_beside_hugging_face_weights_are_not_looked_at(tmp_path):
    folder = tmp_path / "actor/model/huggingface"
    touch(tmp_path / "actor/model/dist_ckpt/common.pt", folder / "config.json", folder / "model.safetensors")
    assert find_checkpoint(tmp_path).folder == folder


def test_megatron_shards_alone_are_refused_with_what_to_do(tmp_path):
    touch(tmp_path / "actor/model/dist_ckpt/common.pt")
    for path in (tmp_path, tmp_path / "actor"):
        with pytest.raises(
            SettingsError, match="Megatron shards alone.*hf_model in actor_rollout_ref.actor.checkpoint"
        ):
            find_checkpoint(path)


def test_fsdp_shards_alone_are_merged_once(tmp_path):
    touch(tmp_path / "actor/model_world_size_2_rank_0.pt", tmp_path / "actor/huggingface/config.json")
    found = find_checkpoint(tmp_path)
    assert found.shards == tmp_path / "actor"
    merged = tmp_path / "actor/huggingface-merged"
    assert found.folder == merged
    touch(merged / "config.json", merged / "model.safetensors")
    assert find_checkpoint(tmp_path).shards is None


def test_a_checkpoint_that_verl_deleted_is_explained(tmp_path):
    touch(tmp_path / "global_step_20/data.pt")
    with pytest.raises(SettingsError, match="max_actor_ckpt_to_keep"):
        find_checkpoint(tmp_path / "global_step_20")
    with pytest.raises(SettingsError, match="holds no model. Looked in"):
        find_checkpoint(tmp_path)


def test_other_rules_judge_the_same_answers(tmp_path):
    row = {"id": "r", "data_source": "clevr_math", "truth": "3"}
    answers = [{"text": "<think> a </think><answer>3</answer>"}, {"text": "3"}]  # the paper asks for tags
    paper, released = (judge_row(row, answers, rules, False) for rules in ("paper", "released"))
    assert paper.scores == [1.0, 0.0]
    assert released.scores == [1.0, 1.0]
    assert paper.formats == [1.0, 0.0]


def rows_scoring(*scores):
    return [
        judge_row({"id": "r", "data_source": "trance", "truth": "change_size(0, small)"}, a, "paper", False)
        for a in scores
    ]


def test_partial_credit_counts_for_accuracy_and_not_for_pass_at_k():
    def say(value):
        return {
            "text": f"<think> a </think><answer>change_size(0, {value})</answer>",
            "status": "finished",
            "tokens": 9,
        }

    right, nearly = say("small"), say("large")
    rows = rows_scoring([right, nearly], [nearly, nearly])
    found = summarize_split(rows, [right, nearly, nearly, nearly])
    assert found["accuracy"]["mean"] == pytest.approx((1 + 0.5 + 0.5 + 0.5) / 4)
    assert found["pass_at_k"]["1"]["mean"] == pytest.approx(0.25)
    assert found["pass_at_k"]["2"]["mean"] == pytest.approx(0.5)
    assert (found["rows"], found["samples"], found["solved"], found["tokens"]) == (2, 2, 0.25, 9.0)
    assert found["statuses"] == {"finished": 1.0}


def test_splits_of_earlier_calls_stay_in_the_result(tmp_path):
    path = tmp_path / "result.paper.json"
    write_result(path, {"name": "a"}, {"trance": {"rows": 1}, "geomath": {"rows": 2}})
    write_result(path, {"name": "a"}, {"clevr_math": {"rows": 3}}, incomplete=["geomath"])
    assert json.loads(path.read_text()) == {"name": "a", "splits": {"clevr_math": {"rows": 3}, "trance": {"rows": 1}}}


def test_everything_that_cannot_work_is_said_at_once(capsys):
    assert main(["--samples", "8", "--top-p", "0", "--enhanced"]) == 2
    printed = capsys.readouterr().err
    for word in ("either --model or --expert", "the same answer 8 times", "--top-p 0.0", "Add --rules released"):
        assert word in printed


def test_settings_of_an_experts_configuration_may_stand_anywhere():
    words = "--expert e experts=demo --splits clevr_math my=rows.parquet ekipl.seed=3 --engine a=1 --engine b=x"
    args = read("", words.split())
    assert args.splits == ["clevr_math", "my=rows.parquet"]
    assert args.overrides == ["experts=demo", "ekipl.seed=3"]
    assert engine_of(args).extra == {"a": 1, "b": "x"}


def test_a_dry_run_shows_the_plan_and_writes_nothing(parquet, tmp_path, capsys):
    model = tmp_path / "model"
    touch(model / "config.json", model / "model.safetensors")
    out = tmp_path / "out"
    command = [
        "--model",
        str(model),
        "--data",
        str(parquet),
        "--splits",
        "trance",
        "--samples",
        "4",
        "--temperature",
        "1",
    ]
    assert main([*command, "--out", str(out), "--dry-run"]) == 0
    assert "6 rows x 4 = 24 answers, 0 there" in capsys.readouterr().out
    assert not out.exists()


def test_an_expert_of_the_configuration_is_evaluated_by_its_name(serve, parquet, tmp_path, capsys):
    (split,) = find_splits(parquet, ["trance"])
    truth, asked = next(read_rows(split)).truth, []

    async def app(scope, receive, send):
        asked.append(scope["path"])
        while (await receive()).get("more_body"):
            pass
        message = {"role": "assistant", "content": f"<think> a </think><answer>{truth}</answer>"}
        reply = {"choices": [{"index": 0, "finish_reason": "stop", "message": message}], "usage": {}}
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": json.dumps(reply).encode()})

    settings = ["experts=demo", f"ekipl.experts.0.base_url={serve(app)}/v1"]
    out = str(tmp_path / "out with = in it")
    command = ["--expert", "demo-a", "--data", str(parquet), "--out", out, "--splits", "trance", *settings]
    assert main(command) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[-1])
    found = first["splits"]["trance"]
    assert (found["rows"], found["format"], first["expert"]) == (6, 1.0, "demo-a")
    assert 0 < found["accuracy"]["mean"] < 1
    before = {p: p.read_bytes() for p in tmp_path.rglob("*.json*")}
    assert main(command) == 0
    assert {p: p.read_bytes() for p in tmp_path.rglob("*.json*")} == before
    assert len(asked) == 6
    assert main(["--expert", "nobody", *command[2:]]) == 2
    assert "not among the configured experts: demo-a, demo-b" in capsys.readouterr().err
