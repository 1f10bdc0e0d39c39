"""`python -m ekipl_rollout.experts`: ask and doctor, against real servers."""

import json
import os
import subprocess
import sys

import pytest

from ekipl_rollout.errors import SettingsError
from ekipl_rollout.experts.__main__ import main
from ekipl_rollout.experts.config import load_experts
from ekipl_rollout.experts.rows import read_row
from ekipl_rollout.inert import printable
from tests.rollout.expert_helpers import KEY, KINDS, picture
from tests.rollout.faults import FAULTS, changed

pytestmark = pytest.mark.usefixtures("key")


@pytest.fixture
def rows(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    def row(i: int) -> dict:
        prompt = [{"role": "user", "content": f"<image>Look.<image>\nHow many in row {i}?"}]
        return {"prompt": prompt, "images": [{"bytes": picture("red")}, {"bytes": picture("blue", (9, 5))}]}

    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist([row(i) for i in range(5)]), path, row_group_size=2)
    return path


@pytest.fixture
def config(tmp_path, server):
    """config(model, ...) -> a YAML file with one expert of each kind at the server."""

    def write(model: str, **changes) -> str:
        entries = [
            {
                "name": f"by-{kind}",
                "kind": kind,
                "model": f"{model}@{kind}",
                "base_url": server.url + ("/v1" if kind == "openai" else ""),
                "api_key_env": "TEST_KEY",
                "retry": {"attempts": 1},
                "max_tokens": 200,
                "dollars_per_million_input": 1.0,
                "dollars_per_million_output": 2.0,
                **changes,
            }
            for kind in KINDS
        ]
        path = tmp_path / "experts.yaml"
        path.write_text(json.dumps({"ekipl": {"num_answers": 3, "experts": entries}}))  # JSON is YAML
        return str(path)

    return write


# --- ask -------------------------------------------------------------------------------------------------------------


def test_ask_shows_what_is_sent_and_what_came_back(config, rows, server, capsys):
    assert main(["ask", "--config", config("m"), "--data", str(rows), "--row", "3", "--show"]) == 0
    out = capsys.readouterr().out
    assert "Look." in out and "How many in row 3?" in out and "First think about the question" in out
    assert "[picture: image/png, 9 x 5, " in out and "sha256" in out
    assert out.count("--- answer") == 6 and "10 tokens (4 hidden)" in out
    assert KEY not in out
    assert all(server.hits[f"m@{kind}"] for kind in KINDS)


def test_show_only_asks_nobody_and_needs_no_key(config, rows, server, capsys, monkeypatch):
    monkeypatch.delenv("TEST_KEY")
    path = config("silent")
    assert (
        main(["ask", "--config", path, "--data", str(rows), "--row", "0", "--expert", "by-gemini", "--show-only"]) == 0
    )
    out = capsys.readouterr().out
    assert "by-gemini" in out and "by-openai" not in out and "How many in row 0?" in out
    assert not any(model.startswith("silent") for model in server.hits)


def test_a_text_and_a_picture_of_ones_own_can_be_asked(config, tmp_path, server, capsys):
    (tmp_path / "mine.png").write_bytes(picture())
    arguments = ["ask", "--config", config("own"), "--text", "What is this?", "--picture", str(tmp_path / "mine.png")]
    assert main([*arguments, "--answers", "1"]) == 0
    assert capsys.readouterr().out.count("--- answer") == 2


def test_an_expert_that_fails_is_told_apart_and_ends_with_1(config, capsys):
    assert main(["ask", "--config", config("404"), "--text", "hi"]) == 1
    captured = capsys.readouterr()
    assert captured.err.count("not_found (HTTP 404)") == 2 and KEY not in captured.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--config", "nowhere"], "is neither a file nor one of"),
        (["--config", "demo", "--expert", "gpt"], "has no expert 'gpt'; it names demo-a, demo-b"),
        (["--config", "demo"], "--data rows.parquet"),
        (["--config", "demo", "--data", "/nowhere.parquet"], "does not exist"),
        (["--config", "openai", "--text", "hi"], "OPENAI_API_KEY"),
        (["--config", "demo", "--text", "hi", "ekipl.experts.0.temprature=1"], "Did you mean temperature?"),
        (["--config", "none", "--text", "hi"], "it names none"),
        (["--config", "demo", "--picture", "mine.png"], "--picture is shown before --text"),
    ],
)
def test_what_cannot_work_is_explained_and_ends_with_2(arguments, says, capsys):
    assert main(["ask", *arguments]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("count", ["0", "-2", "many"])
def test_a_number_of_answers_that_asks_for_none_is_refused(count, capsys):
    with pytest.raises(SystemExit):
        main(["ask", "--config", "demo", "--text", "hi", f"--answers={count}"])
    assert "must be a whole number, 1 or more" in capsys.readouterr().err


def test_a_row_that_is_not_there_is_named(rows):
    with pytest.raises(SettingsError, match="rows 0 to 4"):
        read_row(rows, 5)


def test_a_row_is_read_as_the_policy_sees_it(rows):
    question = read_row(rows, 4)
    (message,) = question.messages
    assert message.parts == (picture("red"), "Look.", picture("blue", (9, 5)), "\nHow many in row 4?")


def test_a_row_whose_markers_and_pictures_do_not_match_is_named(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    prompt = [{"role": "user", "content": "no marker"}]
    pq.write_table(pa.Table.from_pylist([{"prompt": prompt, "images": [{"bytes": picture()}]}]), tmp_path / "r.parquet")
    with pytest.raises(SettingsError, match="--row 0 of .* 1 of 1 pictures have no <image> marker"):
        read_row(tmp_path / "r.parquet", 0)


def test_an_experts_text_cannot_command_the_terminal():
    assert printable("a\x1b[2Jb\n\ud83d\x00ü") == "a\\x1b[2Jb\n\\ud83d\\x00ü"


# --- configs ---------------------------------------------------------------------------------------------------------


def test_shipped_files_and_those_below_them_are_read():
    assert [expert.name for expert in load_experts("recorded").experts] == ["demo-a", "demo-b"]
    paper = load_experts("paper", ["data.max_response_length=77"]).experts
    assert [expert.max_tokens for expert in paper] == [77, 77]


def test_values_can_be_overridden(config):
    (expert,) = load_experts(
        config("m"), ["ekipl.experts.0.model=other", "ekipl.experts.0.logprobs=true"], "by-openai"
    ).experts
    assert (expert.model, expert.logprobs) == ("other", True)


def test_a_runs_config_names_its_rows(tmp_path, rows):
    path = tmp_path / "config.yaml"
    expert = {"name": "a", "kind": "openai", "model": "m", "base_url": "http://127.0.0.1:1/v1"}
    path.write_text(json.dumps({"data": {"train_files": [str(rows)]}, "ekipl": {"experts": [expert]}}))
    assert load_experts(str(path)).train_files == (str(rows),)


# --- doctor ----------------------------------------------------------------------------------------------------------


def examined(arguments: list[str], capsys) -> tuple[int, list[dict]]:
    status = main(["doctor", "--json", *arguments])
    return status, json.loads(capsys.readouterr().out)


def checks(report: dict) -> dict[str, str]:
    return {check["name"]: check["result"] for check in report["checks"]}


def test_doctor_finds_a_healthy_expert_healthy(config, capsys):
    status, reports = examined(["--config", config("healthy")], capsys)
    assert status == 0
    for report in reports:
        wanted = ("key", "price", "reachable", "model", "picture", "several answers", "log-probabilities", "format")
        assert checks(report) == dict.fromkeys(wanted, "ok")
        # 40 tokens in for each of two requests, 10 out for each of three answers
        assert report["dollars"] == pytest.approx((2 * 40 * 1 + 3 * 10 * 2) / 1e6)


@pytest.mark.parametrize(
    ("fault", "failing", "says"),
    [
        ("401", "key", "401"),
        ("404", "model", "404"),
        ("503", "reachable", "503"),
        ("quota", "quota", "quota"),
        ("429", "rate", "429"),
        ("400", "picture", "refused too"),
        ("special-tokens", "format", "0 of 3"),
        ("filtered-prompt", "reachable", "blocked"),
    ],
)
def test_doctor_says_what_is_wrong(config, capsys, fault, failing, says):
    status, reports = examined(["--config", config(fault)], capsys)
    assert status == 1
    for report in reports:
        assert checks(report)[failing] == "FAIL"
        assert says in " ".join(check["says"] for check in report["checks"] if check["name"] == failing)
        assert KEY not in json.dumps(report)


@pytest.mark.parametrize(
    ("fault", "noted"),
    [
        ("several-refused", "several answers"),
        ("one-answer-each", "several answers"),
        ("logprobs-refused", "log-probabilities"),
    ],
)
def test_what_a_model_does_not_do_is_noted_and_no_failure(config, capsys, fault, noted):
    status, reports = examined(["--config", config(fault)], capsys)
    assert status == 0
    assert all(checks(report)[noted] == "note" for report in reports)


def test_a_provider_cannot_command_the_terminal_of_the_doctor(config, capsys, monkeypatch):
    escape = "\x1b[2J\n  ok    key"

    def named(reply):
        reply.update(model=f"gpt{escape}", modelVersion=f"gpt{escape}")

    monkeypatch.setitem(FAULTS, "loud", changed(named, named))
    assert main(["doctor", "--config", config("loud")]) == 0
    shown = capsys.readouterr().out
    assert shown.count("answered by gpt\\x1b[2J\\n  ok    key") == 2
    assert "\x1b" not in shown


def test_doctor_names_a_missing_key_and_an_unknown_price(config, capsys, monkeypatch):
    monkeypatch.delenv("TEST_KEY")
    path = config("m", dollars_per_million_input=0.0, dollars_per_million_output=0.0)
    status, reports = examined(["--config", path], capsys)
    assert status == 1
    assert all(checks(report) == {"settings": "FAIL", "price": "FAIL", "warning": "note"} for report in reports)


def test_the_table_is_for_people(config, capsys):
    assert main(["doctor", "--config", config("several-refused")]) == 0
    out = capsys.readouterr().out
    assert "by-openai (several-refused@openai): healthy" in out
    assert "  note  several answers" in out


def test_the_command_line_explains_itself_and_needs_no_sdk_for_that():
    block = "import sys; sys.modules.update(dict.fromkeys(['openai', 'google.genai', 'torch', 'verl', 'ray']))"
    code = f"{block}; from ekipl_rollout.experts.__main__ import main; main(['--help'])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ})
    assert shown.returncode == 0 and "doctor" in shown.stdout, shown.stderr
