"""`python -m recipe.ekipl.record_ahead`: the experts are asked before training, and training finds their answers."""

import asyncio
import json
import os
import signal
import threading
import time

import pytest

from ekipl_rollout.bounds.ledger import read_spent
from ekipl_rollout.experts.build import build_experts
from ekipl_rollout.settings import EkiplSettings
from recipe.ekipl.data.questions import read_questions
from recipe.ekipl.data.reason_rft import convert
from recipe.ekipl.record_ahead import main
from tests.rollout.fault_server import FaultServer

ROWS, N = 12, 2


@pytest.fixture(scope="module")
def rows(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("rows")
    convert(world, out, ["visual_counting"], "reason_rft")
    return str(out / "visual_counting" / "train.rl.parquet")


@pytest.fixture
def server():
    with FaultServer() as running:
        yield running


def expert(server, name, model, **changes):
    values = {"name": name, "kind": "openai", "model": model, "base_url": f"{server.url}/v1", "max_tokens": 100}
    return {**values, "max_in_flight": 3, "retry": {"attempts": 1}, **changes}


@pytest.fixture
def job(rows, tmp_path, monkeypatch, capsys):
    """job(experts, ...) -> (exit status, the last line as JSON, everything that was printed)."""
    monkeypatch.setattr("recipe.ekipl.record_rows.LOOK_SECONDS", 0.05)

    def run(experts, *arguments):
        listed = json.dumps(experts).replace('"', "")
        given = [f"ekipl.experts={listed}", f"data.train_files={rows}", f"ekipl.run_dir={tmp_path}"]
        status = main([*given, f"ekipl.num_answers={N}", *arguments])
        captured = capsys.readouterr()
        lines = captured.out.splitlines()
        last = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else None
        return status, last, captured.out + captured.err

    return run


PRICED = {"dollars_per_million_input": 1.0, "dollars_per_million_output": 1000.0}


def test_every_row_is_asked_once_and_the_same_command_asks_nobody_again(job, server):
    experts = [expert(server, "a", "first"), expert(server, "b", "second")]
    status, last, _ = job(experts)
    assert status == 0
    assert last["experts"]["a"] == {"rows": ROWS, "asked": ROWS * N, "recorded": 0, "failed": 0, "ended": ""}
    assert (server.hits["first"], server.hits["second"]) == (ROWS, ROWS)
    status, last, _ = job(experts)
    assert (status, last["experts"]["b"]["recorded"], server.hits["second"]) == (0, ROWS * N, ROWS)


def test_a_replay_finds_every_answer_without_asking(job, server, rows, tmp_path):
    entry = expert(server, "a", "m")
    job([entry])
    record = {"mode": "replay", "missing": "error", "path": str(tmp_path / "records.sqlite")}
    settings = EkiplSettings.from_config({"experts": [entry], "record": record})

    async def replay():
        (recorded,) = build_experts(settings.experts, settings.record)
        answers = [await recorded.answer(row.question, N) for row in read_questions([rows])]
        await recorded.close()
        return answers

    assert [len(answers) for answers in asyncio.run(replay())] == [N] * ROWS
    assert server.hits["m"] == ROWS


def test_it_stops_at_the_budget_and_goes_on_with_a_larger_one(job, server, tmp_path):
    experts = [expert(server, "a", "m", **PRICED)]
    status, last, text = job(experts, "--budget", "0.3")
    assert status == 1
    assert "over_budget" in last["experts"]["a"]["ended"]
    assert "The same command asks for what is missing." in text
    assert 0 < last["experts"]["a"]["rows"] < ROWS
    assert 0 < read_spent(tmp_path / "records.sqlite.ledger") <= 300_000_000
    asked = server.hits["m"]
    status, last, _ = job(experts, "--budget", "1000")
    assert (status, last["experts"]["a"]["rows"], server.hits["m"]) == (0, ROWS, ROWS)
    assert asked < ROWS


def test_an_expert_that_can_never_answer_is_given_up_and_the_other_goes_on(job, server):
    status, last, _ = job([expert(server, "wrong", "401@x"), expert(server, "right", "m")])
    assert status == 1
    assert "unauthorized" in last["experts"]["wrong"]["ended"]
    assert server.hits["401@x"] <= 3  # those that were out together
    assert last["experts"]["right"]["rows"] == ROWS


def test_rows_that_fail_are_named_and_asked_again_the_next_time(job, server):
    experts = [expert(server, "a", "413.once")]
    status, last, text = job(experts)
    assert (status, last["experts"]["a"]["failed"]) == (1, 1)
    assert "row visual_counting-train-" in text and "bad_request" in text
    status, last, _ = job(experts)
    assert (status, last["experts"]["a"]["rows"], last["experts"]["a"]["asked"]) == (0, ROWS, N)


def test_an_expert_that_is_down_is_waited_for_until_patience_ends(job, server):
    resting = ["ekipl.bounds.failures_to_rest=1", "ekipl.bounds.rest_s=0.05"]
    experts = [expert(server, "a", "500.once", max_in_flight=1)]
    status, last, _ = job(experts, *resting)
    assert (status, last["experts"]["a"]["rows"], last["experts"]["a"]["failed"]) == (1, ROWS - 1, 1)
    status, last, text = job([expert(server, "b", "500@x")], "--patience", "0.2", *resting)
    assert status == 1
    assert "--patience" in last["experts"]["b"]["ended"]


def test_ctrl_c_sends_nothing_more_and_keeps_what_is_out(job):
    with FaultServer(latency_s=0.2) as slow:

        def press():
            while slow.hits["m"] < 2:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=press).start()
        status, last, text = job([expert(slow, "a", "m", max_in_flight=1)])
        assert (status, last["experts"]["a"]["ended"]) == (130, "stopped")
        assert "stopping: waiting for the requests that are out" in text
        assert last["experts"]["a"]["asked"] == N * slow.hits["m"] < N * ROWS
        status, last, _ = job([expert(slow, "a", "m")])
        assert (status, slow.hits["m"]) == (0, ROWS)


def test_rows_of_which_training_asks_nobody_are_left_out(job, server):
    status, last, _ = job([expert(server, "a", "m")], "+ekipl.ask.tasks={clevr_math: never}")
    assert (status, last["experts"]["a"]["rows"], server.hits["m"]) == (0, 0, 0)


def test_a_dry_run_says_what_it_can_cost_and_asks_nobody(job, server):
    status, last, text = job([expert(server, "a", "m", **PRICED)], "--dry-run", "--budget", "5")
    assert (status, last, server.hits["m"]) == (0, None, 0)
    assert f"{ROWS} requests for {N} answers each: at most $2.43" in text  # 24 answers of 10 cents, and a picture each
    assert "$5.00" in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["ekipl.record.mode=replay"], "ekipl.record.mode=replay keeps nothing"),
        (["data.train_files=/nowhere.parquet"], "/nowhere.parquet does not exist"),
        (["ekipl.experts=[]"], "Add experts=<name>"),
        (["--budget", "5"], "has no price, so that no budget could hold"),
        (["--budget", "-1"], "must be 0 or more dollars"),
    ],
)
def test_what_cannot_work_is_said_before_anybody_is_asked(job, server, monkeypatch, arguments, says):
    monkeypatch.setenv("TEST_KEY", "sk-canary-0123456789")
    status, _, text = job([expert(server, "a", "m", api_key_env="TEST_KEY")], *arguments)
    assert status == 2
    assert says in text
    assert not server.hits["m"]
