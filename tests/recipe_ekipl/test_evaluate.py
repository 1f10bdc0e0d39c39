"""Evaluation without an engine: which rows, what was asked, what survives a kill, what it comes to."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ekipl_rollout.bounds.ledger import read_spent
from ekipl_rollout.errors import SettingsError
from ekipl_rollout.settings import BoundsSettings, EkiplSettings, ExampleSettings, ExpertSettings, RecordSettings
from recipe.ekipl.data.reason_rft import convert
from recipe.ekipl.evaluate.__main__ import main
from recipe.ekipl.evaluate.answers import AnswerFile
from recipe.ekipl.evaluate.ask import Given, ask_missing, batches, seed_of
from recipe.ekipl.evaluate.asked import claim_folder, expert_identity, model_digest, row_digest
from recipe.ekipl.evaluate.checkpoint import find_checkpoint
from recipe.ekipl.evaluate.judge import judge_row
from recipe.ekipl.evaluate.on_expert import ExpertAnswerer
from recipe.ekipl.evaluate.options import engine_of, read
from recipe.ekipl.evaluate.result import summarize_split, write_result
from recipe.ekipl.evaluate.rows import EvalSplit, find_splits, read_rows


@pytest.fixture(autouse=True)
def _same_environment_afterwards():
    """The command chooses the platform for its process."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


# --- rows ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def parquet(world, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("parquet")
    convert(world, out, ["visual_counting", "spatial_transformation"], "plain")
    return out


def test_a_row_shows_its_pictures_where_the_markers_stand(parquet, world):
    (split,) = find_splits(parquet, ["trance_left"])
    row = next(read_rows(split))
    (turn,) = row.question.messages
    assert [type(part) for part in turn.parts] == [bytes, bytes, str]
    assert turn.parts[0] == (world / "images/test_images/spatial_transformation-trance_left-0-init.png").read_bytes()
    assert (row.data_source, row.id) == ("trance_left", "spatial_transformation-trance_left-0")


def test_without_names_every_test_split_of_the_folder_is_evaluated(parquet):
    names = [split.name for split in find_splits(parquet, [])]
    assert names == ["trance", "trance_left", "trance_right", "clevr_math", "super_clevr"]


def test_a_file_of_ones_own_is_a_split(parquet):
    (split,) = find_splits(None, [str(parquet / "visual_counting" / "train.rl.parquet")])
    assert split.name == "visual_counting-train"
    assert len(list(read_rows(split))) == 12


def test_two_files_of_one_name_are_refused(parquet, tmp_path):
    own = tmp_path / "visual_counting" / "train.parquet"
    own.parent.mkdir()
    own.write_bytes(b"")
    with pytest.raises(SettingsError, match="two files would be called visual_counting-train"):
        find_splits(None, [str(own), str(parquet / "visual_counting" / "train.rl.parquet")])


def test_every_missing_split_is_named_at_once(parquet, tmp_path):
    with pytest.raises(SettingsError, match=r"(?s)geomath.*does not exist.*clever_math is not known"):
        find_splits(parquet, ["geomath", "clever_math"])
    with pytest.raises(SettingsError, match="holds no test split"):
        find_splits(tmp_path, [])


def write_rows(path: Path, *changes: dict) -> EvalSplit:
    rows = [
        {
            "data_source": "clevr_math",
            "prompt": [{"role": "user", "content": "<image>How many?"}],
            "images": [{"bytes": b"PNG"}],
            "reward_model": {"ground_truth": "3"},
            "extra_info": {"id": f"r{i}", "index": i},
            **change,
        }
        for i, change in enumerate(changes)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return EvalSplit("own", path)


def test_rows_that_share_an_id_keep_apart(tmp_path):
    same = {"extra_info": {"id": "x", "index": 0}}
    rows = list(read_rows(write_rows(tmp_path / "a.parquet", same, same, same)))
    assert [row.id for row in rows] == ["x", "x#2", "x#3"]


def test_pictures_may_lie_in_files_beside_the_parquet(tmp_path):
    (tmp_path / "p.png").write_bytes(b"picture")
    rows = list(read_rows(write_rows(tmp_path / "a.parquet", {"images": [{"image": "p.png", "max_pixels": 1000}]})))
    assert rows[0].question.images == [b"picture"]
    assert rows[0].limits == ({"max_pixels": 1000},)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"reward_model": {"ground_truth": "three"}}, "a count must be a number"),
        ({"data_source": "elsewhere"}, "no reward is known"),
        ({"images": [{"bytes": b"a"}, {"bytes": b"b"}]}, "1 <image> markers in the prompt, but 2 pictures"),
        ({"images": [{"image": "http://somewhere/p.png"}]}, "must lie on this machine"),
        ({"images": [{"image": "nowhere.png"}]}, "nowhere.png"),
    ],
)
def test_a_row_that_cannot_be_asked_or_judged_is_named_before_anything_starts(tmp_path, change, why):
    with pytest.raises(SettingsError, match=f"(?s)row 0 .r0.*{why}"):
        list(read_rows(write_rows(tmp_path / "a.parquet", change)))


# --- batches and the answers on disk --------------------------------------------------------------------------------


@given(rows=st.integers(1, 40), samples=st.integers(1, 20), size=st.integers(1, 50))
@settings(max_examples=200, deadline=None)
def test_batches_hold_every_answer_once_and_none_is_too_large(rows, samples, size):
    found = list(batches(list(range(rows)), samples, size))
    wanted = [one for batch in found for one in batch]
    assert sorted(wanted) == [(row, sample) for row in range(rows) for sample in range(samples)]
    assert max(map(len, found)) <= size


class BatchDependent:
    """Answers as a batched engine does: what comes out depends on what else is in the batch."""

    def __init__(self, stop_after: int | None = None, slow: float = 0.0):
        self.calls, self.stop_after, self.slow = 0, stop_after, slow

    def answer(self, wanted):
        if self.calls == self.stop_after:
            raise KeyboardInterrupt
        self.calls += 1
        time.sleep(self.slow)
        batch = hashlib.sha256(repr([(row.id, sample) for row, sample in wanted]).encode()).hexdigest()
        return [Given(f"{batch[:8]} {row.id} {seed_of(0, row.id, s)} \u2713\ud800", "finished", 5) for row, s in wanted]

    def close(self):
        pass


def evaluate_into(folder: Path, split: EvalSplit, answerer, samples=3, size=4, **asked) -> AnswerFile:
    rows = list(read_rows(split))
    digests = {row.id: row_digest({"model": "m", **asked}, row) for row in rows}
    file = AnswerFile(folder, digests)
    ask_missing(iter(rows), digests, file, lambda: answerer, samples, size, lambda n: None)
    return file


@pytest.fixture
def split(tmp_path) -> EvalSplit:
    return write_rows(tmp_path / "rows.parquet", *[{}] * 7)


@pytest.mark.parametrize("samples", [1, 3, 9])
@pytest.mark.parametrize("stop_after", [1, 2])
def test_stopped_and_resumed_gives_the_same_file_as_one_pass(tmp_path, split, samples, stop_after):
    evaluate_into(tmp_path / "one", split, BatchDependent(), samples, size=2)
    stops = 0
    while not (tmp_path / "two/answers.jsonl").exists():
        with contextlib.suppress(KeyboardInterrupt):
            stops += 1
            evaluate_into(tmp_path / "two", split, BatchDependent(stop_after=stop_after), samples, size=2)
    assert stops > 1
    assert (tmp_path / "two/answers.jsonl").read_bytes() == (tmp_path / "one/answers.jsonl").read_bytes()
    assert len((tmp_path / "two/answers.jsonl").read_text().splitlines()) == 7 * samples
    assert not (tmp_path / "two/answers.partial.jsonl").exists()


def test_a_batch_that_a_kill_tore_is_asked_for_again_as_a_whole(tmp_path, split):
    evaluate_into(tmp_path / "one", split, BatchDependent())
    with pytest.raises(KeyboardInterrupt):
        evaluate_into(tmp_path / "two", split, BatchDependent(stop_after=3))
    partial = tmp_path / "two/answers.partial.jsonl"
    whole = partial.read_bytes()
    for cut in (1, 7, len(whole.splitlines()[-1])):  # within the last line
        partial.write_bytes(whole[:-cut])
        again = BatchDependent()
        evaluate_into(tmp_path / "two", split, again)
        assert again.calls == 7 - 2
        assert (tmp_path / "two/answers.jsonl").read_bytes() == (tmp_path / "one/answers.jsonl").read_bytes()
        (tmp_path / "two/answers.jsonl").unlink()


def test_what_is_answered_is_not_asked_for_again(tmp_path, split):
    evaluate_into(tmp_path / "a", split, BatchDependent())
    second = BatchDependent()
    evaluate_into(tmp_path / "a", split, second)
    assert second.calls == 0


def test_more_samples_keep_those_that_are_there(tmp_path, split):
    evaluate_into(tmp_path / "a", split, BatchDependent(), samples=2)
    before = (tmp_path / "a/answers.jsonl").read_text().splitlines()
    evaluate_into(tmp_path / "a", split, BatchDependent(), samples=5)
    after = (tmp_path / "a/answers.jsonl").read_text().splitlines()
    assert len(after) == 7 * 5
    assert set(before) < set(after)


def test_answers_to_a_row_that_has_changed_are_asked_for_again(tmp_path, split):
    evaluate_into(tmp_path / "a", split, BatchDependent())
    other = {"prompt": [{"role": "user", "content": "<image>How many cubes?"}]}
    changed = write_rows(split.path, *[{}] * 6, other)
    file = evaluate_into(tmp_path / "a", changed, again := BatchDependent())
    assert (again.calls, file.outdated) == (1, 3)
    assert len((tmp_path / "a/answers.jsonl").read_text().splitlines()) == 21


def test_looking_at_answers_changes_no_file(tmp_path, split):
    with pytest.raises(KeyboardInterrupt):
        evaluate_into(tmp_path / "a", split, BatchDependent(stop_after=2))
    partial = tmp_path / "a/answers.partial.jsonl"
    partial.write_bytes(partial.read_bytes() + b'[{"row": "r6", "sa')
    before = partial.read_bytes()
    AnswerFile(tmp_path / "a", {"r0": "x"})
    assert partial.read_bytes() == before


def test_a_damaged_line_is_an_error_and_not_a_loss(tmp_path, split):
    evaluate_into(tmp_path / "a", split, BatchDependent())
    answers = tmp_path / "a/answers.jsonl"
    answers.write_text("{]\n" + answers.read_text())
    with pytest.raises(SettingsError, match=r"answers.jsonl, line 1 is no JSON"):
        evaluate_into(tmp_path / "a", split, BatchDependent())


def test_answers_that_did_not_come_are_asked_for_next_time(tmp_path, split):
    class Unreliable(BatchDependent):
        def answer(self, wanted):
            return [
                None if row.id == "r3" else given
                for (row, _), given in zip(wanted, super().answer(wanted), strict=True)
            ]

    evaluate_into(tmp_path / "a", split, Unreliable())
    assert not (tmp_path / "a/answers.jsonl").exists()
    evaluate_into(tmp_path / "a", split, again := BatchDependent())
    assert again.calls == 1
    assert len((tmp_path / "a/answers.jsonl").read_text().splitlines()) == 21


KILLED = """
import sys
from pathlib import Path
from recipe.ekipl.evaluate.rows import EvalSplit
from tests.recipe_ekipl.test_evaluate import BatchDependent, evaluate_into
evaluate_into(Path(sys.argv[2]), EvalSplit("own", Path(sys.argv[1])), BatchDependent(slow=0.02), samples=20)
"""


def test_a_process_killed_with_sigkill_loses_at_most_its_last_batch(tmp_path, split):
    folder = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(split.path), str(folder)], env=os.environ)
    partial = folder / "answers.partial.jsonl"
    while not partial.exists() or partial.read_bytes().count(b"\n") < 4:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = partial.read_bytes().count(b"\n")
    evaluate_into(folder, split, again := BatchDependent(), samples=20)
    evaluate_into(tmp_path / "one", split, whole := BatchDependent(), samples=20)
    assert again.calls == whole.calls - there
    assert (folder / "answers.jsonl").read_bytes() == (tmp_path / "one/answers.jsonl").read_bytes()


def test_a_folder_with_the_answers_of_another_evaluation_is_refused(tmp_path):
    asked = {"model": "abc", "temperature": 0.0}
    claim_folder(tmp_path, asked, {})
    claim_folder(tmp_path, asked, {"batch": 7})
    with pytest.raises(SettingsError, match=r"temperature was 0.0 and is now 1.0"):
        claim_folder(tmp_path, {**asked, "temperature": 1.0}, {})


def test_a_model_is_known_by_its_content_and_not_by_its_place(tmp_path):
    for name, weights in (("a", b"123"), ("b", b"123"), ("c", b"124")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "model.safetensors").write_bytes(weights)
    same, copy, other = (model_digest(tmp_path / name) for name in "abc")
    assert same == copy != other


# --- checkpoints ----------------------------------------------------------------------------------------------------


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


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


@pytest.mark.parametrize(
    ("shard", "backend"),
    [("model_world_size_2_rank_0.pt", "fsdp"), ("model/dist_ckpt/common.pt", "megatron")],
)
def test_shards_alone_are_merged_once(tmp_path, shard, backend):
    touch(tmp_path / "actor" / shard, tmp_path / "actor/huggingface/config.json")
    found = find_checkpoint(tmp_path)
    assert (found.backend, found.shards) == (backend, tmp_path / "actor")
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


# --- judging and summing up -----------------------------------------------------------------------------------------


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


# --- an expert answers ----------------------------------------------------------------------------------------------


@pytest.fixture
def chat_server(serve):
    """A chat server that numbers its replies and fails the first request for row 2.

    With 413, not 400: a 400 that comes before any reply has taken n=2 reads as a refusal of n, and row 2 is asked again.
    """
    asked: list[dict] = []

    async def app(scope, receive, send):
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        request = json.loads(body)
        asked.append(request)
        text = json.dumps(request["messages"])
        failing = "number 2" in text and sum("number 2" in json.dumps(r["messages"]) for r in asked) == 1
        choices = [
            {
                "index": i,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": f"<answer>{len(asked)}.{i}</answer>"},
            }
            for i in range(request["n"])
        ]
        reply = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": choices}
        reply["usage"] = {"prompt_tokens": 100, "completion_tokens": 10 * request["n"], "total_tokens": 0}
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 413 if failing else 200, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps({"error": "no"} if failing else reply).encode()})

    return serve(app), asked


def test_an_expert_is_evaluated_and_only_what_it_failed_to_give_is_asked_for_again(tmp_path, chat_server):
    url, asked = chat_server
    prompts = [{"prompt": [{"role": "user", "content": f"number {i}"}], "images": []} for i in range(4)]
    split = write_rows(tmp_path / "rows.parquet", *prompts)
    expert = ExpertSettings("e", "openai", "m", base_url=f"{url}/v1", dollars_per_million_output=1e4)
    whole = EkiplSettings(record=RecordSettings(path=str(tmp_path / "records.sqlite")))

    first = ExpertAnswerer(whole, expert)
    file = evaluate_into(tmp_path / "out", split, first, samples=2, size=100)
    first.close()
    assert len(asked) == 4
    assert len(file.answers) == 6
    assert not (tmp_path / "out/answers.jsonl").exists()

    second = ExpertAnswerer(whole, expert)
    file = evaluate_into(tmp_path / "out", split, second, samples=2, size=100)
    second.close()
    assert len(asked) == 5
    lines = [json.loads(line) for line in (tmp_path / "out/answers.jsonl").read_text().splitlines()]
    assert [(line["row"], line["sample"]) for line in lines] == [(f"r{i}", s) for i in range(4) for s in range(2)]
    assert lines[0]["dollars"] == pytest.approx(10 * 1e4 / 1e6)

    third = ExpertAnswerer(whole, expert)
    evaluate_into(tmp_path / "out", split, third, samples=3, size=100)
    third.close()
    assert [request["n"] for request in asked[5:]] == [1] * 4  # the record gives the two that it has


def test_an_evaluation_of_an_expert_keeps_to_the_budget(tmp_path, chat_server):
    url, asked = chat_server
    prompts = [{"prompt": [{"role": "user", "content": f"question {i}"}], "images": []} for i in range(4)]
    split = write_rows(tmp_path / "rows.parquet", *prompts)
    price = {"dollars_per_million_output": 1e4, "max_tokens": 10}  # ten cents an answer
    expert = ExpertSettings("e", "openai", "m", base_url=f"{url}/v1", max_in_flight=1, **price)
    ledger = tmp_path / "ledger.sqlite"
    bounds = BoundsSettings(max_dollars=0.5, ledger=str(ledger))
    whole = EkiplSettings(record=RecordSettings(path=str(tmp_path / "records.sqlite")), bounds=bounds)

    answerer = ExpertAnswerer(whole, expert)
    file = evaluate_into(tmp_path / "out", split, answerer, samples=2, size=100)
    answerer.close()
    assert (len(asked), len(file.answers)) == (2, 4)
    assert read_spent(ledger) == 400_000_000


def test_what_an_expert_is_told_beside_the_question_decides_its_answers():
    plain = ExpertSettings("e", "openai", "m", base_url="http://127.0.0.1:1/v1")
    others = [{"extra": {"reasoning_effort": "low"}}, {"examples": (ExampleSettings("1 + 1?", "2"),)}, {"model": "n"}]
    identities = [expert_identity(replace(plain, **other)) for other in others]
    assert all(identity != expert_identity(plain) for identity in identities)
    assert expert_identity(replace(plain, max_in_flight=1, name="f")) == expert_identity(plain)


# --- the command ----------------------------------------------------------------------------------------------------


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
    assert (found["rows"], found["format"]) == (6, 1.0)
    assert 0 < found["accuracy"]["mean"] < 1
    before = {p: p.read_bytes() for p in tmp_path.rglob("*.json*")}
    assert main(command) == 0
    assert {p: p.read_bytes() for p in tmp_path.rglob("*.json*")} == before
    assert len(asked) == 6
    assert main(["--expert", "nobody", *command[2:]]) == 2
    assert "not among the configured experts: demo-a, demo-b" in capsys.readouterr().err
