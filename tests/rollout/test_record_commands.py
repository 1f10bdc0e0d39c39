"""`python -m ekipl_rollout.record ...`, through its main: stats, verify, merge, prune."""

import json
import sqlite3
import subprocess
import sys

import pytest

from ekipl_rollout.answer import AnswerStatus
from ekipl_rollout.record import Record
from ekipl_rollout.record.__main__ import main
from ekipl_rollout.settings import ExpertSettings
from tests.rollout.record_helpers import EXPERT, answer, fill, key, question, texts_in


@pytest.fixture
def path(tmp_path):
    return fill(tmp_path / "r.sqlite")


def test_help_explains_every_command(capsys):
    for arguments in (["--help"], *([c, "--help"] for c in ("stats", "verify", "export", "import", "merge", "prune"))):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
    assert "--dry-run" in capsys.readouterr().out


def test_stats_counts_answers_and_money_by_expert_and_model(path, capsys):
    fill(
        path, questions=1, source="gemini", status=AnswerStatus.REFUSED, settings=ExpertSettings("g", "gemini", "flash")
    )
    fill(path, questions=1, kept_at=2000.0, replace=True)
    assert main(["stats", str(path)]) == 0
    assert "8 answers" in capsys.readouterr().out
    assert main(["stats", str(path), "--json"]) == 0
    gemini, gpt = json.loads(capsys.readouterr().out)["experts"]
    assert (gemini["expert"], gemini["kind"], gemini["model"], gemini["refused"]) == ("gemini", "gemini", "flash", 2)
    assert (gpt["questions"], gpt["answers"], gpt["superseded"], gpt["dollars"]) == (3, 6, 2, 2.0)


def test_an_empty_record_has_statistics_too(tmp_path, capsys):
    Record(tmp_path / "r").close()
    assert main(["stats", str(tmp_path / "r")]) == 0
    assert "0 answers" in capsys.readouterr().out


def test_verify_finds_nothing_in_a_good_record(path, capsys):
    assert main(["verify", str(path)]) == 0
    assert "no problems" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE answers SET value = x'00' WHERE question = 1 AND idx = 0", "question 1: answer 0 of gpt is damaged"),
        ("UPDATE answers SET status = 'odd' WHERE question = 1", "damaged"),
        ("UPDATE questions SET asked = x'00' WHERE id = 2", "question 2: what was asked"),
        ("UPDATE questions SET digest = x'00' WHERE id = 3", "question 3: what was asked"),
        ("DELETE FROM questions WHERE id = 1", "2 answers belong to no question"),
    ],
)
def test_verify_names_what_is_damaged(path, capsys, statement, said):
    with sqlite3.connect(path) as db:
        db.execute(statement)
    assert main(["verify", str(path)]) == 1
    assert said in capsys.readouterr().out


def damaged_in_the_middle(tmp_path):
    path = fill(tmp_path / "big.sqlite", questions=1000, answers=4)
    content = bytearray(path.read_bytes())
    for page in range(40, 43):
        content[page * 4096 : page * 4096 + 4096] = b"\xa5" * 4096
    path.write_bytes(content)
    return path


def test_what_is_left_of_a_damaged_file_can_be_saved_into_a_new_one(tmp_path, capsys):
    path, new = damaged_in_the_middle(tmp_path), tmp_path / "new.sqlite"
    assert main(["verify", str(path)]) == 1
    assert "export" in capsys.readouterr().out
    assert main(["export", str(path), str(tmp_path / "saved.jsonl")]) == 0
    assert main(["import", str(new), str(tmp_path / "saved.jsonl")]) == 0
    assert main(["verify", str(new)]) == 0
    assert 3_000 < len(texts_in(new)) < 4_000


async def test_a_damaged_answer_counts_as_missing_and_is_paid_for_once_more(path):
    with sqlite3.connect(path) as db:
        db.execute("UPDATE answers SET value = x'00' WHERE question = 1 AND idx = 0")
    record = Record(path)
    assert (await record.find(EXPERT, question(0), 2))[1].keys() == {1}
    assert (await record.keep(key(0), {0: answer("anew")}))[0].text == "anew"
    assert (await record.find(EXPERT, question(0), 2))[1][0].text == "anew"
    record.close()
    assert main(["verify", str(path)]) == 1  # the damaged one is history now
    assert main(["prune", str(path), "--damaged"]) == 0
    assert main(["verify", str(path)]) == 0


def test_a_record_of_somebody_elses_cannot_command_the_terminal(path, capsys):
    with sqlite3.connect(path) as db:
        db.execute("UPDATE answers SET source = 'gpt' || char(27) || '[2J', value = x'00' WHERE question = 1")
    for command in ("stats", "verify"):
        main([command, str(path)])
        shown = capsys.readouterr().out
        assert "gpt\\x1b[2J" in shown and "\x1b" not in shown


def test_records_of_several_nodes_become_one_with_every_answer(tmp_path):
    one, two = fill(tmp_path / "one", 3), fill(tmp_path / "two", 5, source="two")
    for _ in range(2):  # twice changes nothing
        assert main(["merge", str(tmp_path / "all"), str(one), str(two)]) == 0
        assert texts_in(tmp_path / "all") == sorted(texts_in(one) + texts_in(two))
    assert main(["verify", str(tmp_path / "all")]) == 0


async def test_a_merge_leaves_the_answers_of_the_first_where_they_stand(tmp_path):
    one, two = fill(tmp_path / "one", 3), fill(tmp_path / "two", 3, source="two")
    assert main(["merge", str(one), str(two)]) == 0
    record = Record(one)
    found = (await record.find(EXPERT, question(1), 8))[1]
    record.close()
    assert [a.text for a in found.values()] == ["gpt 1 0", "gpt 1 1", "two 1 0", "two 1 1"]


async def test_a_record_in_use_can_be_merged_exported_and_counted_without_losing_fresh_answers(path, tmp_path):
    record = Record(path)
    await record.keep(key(77), {0: answer("fresh")})  # still in the log beside the file
    assert main(["merge", str(tmp_path / "copy"), str(path)]) == 0
    assert main(["stats", str(path)]) == 0
    assert "fresh" in texts_in(tmp_path / "copy")
    await record.keep(key(78), {0: answer("later")})
    assert record.count() == 8
    record.close()


def test_a_record_cannot_be_merged_into_itself_or_from_nothing(path, tmp_path, capsys):
    assert main(["merge", str(path), str(path)]) == 2
    assert main(["merge", str(path), str(tmp_path / "none")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_a_record_on_a_network_file_system_can_be_read_when_nobody_has_it_open(path, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        "ekipl_rollout.record.database.network_problem", lambda p: "far away" if "r.sqlite" in str(p) else None
    )
    assert main(["merge", str(tmp_path / "near"), str(path)]) == 0
    assert texts_in(tmp_path / "near") == texts_in(path)
    path.with_name("r.sqlite-wal").write_bytes(b"log")
    assert main(["stats", str(path)]) == 2
    assert "far away It has a log beside it" in capsys.readouterr().err


@pytest.fixture
def mixed(tmp_path):
    path = fill(tmp_path / "r", 3, source="a", kept_at=1000.0)
    fill(path, 2, source="b", kept_at=4e9, settings=ExpertSettings("b", "gemini", "flash"))
    fill(path, 1, source="c", kept_at=4e9, status=AnswerStatus.BLOCKED, settings=ExpertSettings("c", "gemini", "pro"))
    return path


@pytest.mark.parametrize(
    ("filters", "left"),
    [
        (["--expert", "a"], {"b", "c"}),
        (["--expert", "a", "--expert", "b"], {"c"}),
        (["--model", "flash"], {"a", "c"}),
        (["--status", "blocked"], {"a", "b"}),
        (["--older-than", "1d"], {"b", "c"}),
        (["--expert", "a", "--model", "flash"], {"a", "b", "c"}),
        (["--key-version", "2"], set()),
        (["--key-version", "1"], {"a", "b", "c"}),
        (["--superseded"], {"a", "b", "c"}),
        (["--damaged"], {"a", "b", "c"}),
    ],
)
def test_prune_takes_exactly_what_fits_every_filter(mixed, filters, left):
    assert main(["prune", str(mixed), *filters, "--dry-run"]) == 0
    assert {text.split()[0] for text in texts_in(mixed)} == {"a", "b", "c"}
    assert main(["prune", str(mixed), *filters]) == 0
    assert {text.split()[0] for text in texts_in(mixed)} == left
    assert main(["verify", str(mixed)]) == 0
    with sqlite3.connect(mixed) as db:
        questions = db.execute("SELECT count(*) FROM questions").fetchone()[0]
    assert questions == sum({"a": 3, "b": 2, "c": 1}[source] for source in left)


def test_prune_gives_the_disk_its_room_back(tmp_path):
    path = fill(tmp_path / "r", 2000, 4)
    before = path.stat().st_size
    assert main(["prune", str(path), "--expert", "gpt"]) == 0
    assert path.stat().st_size < before / 5


def test_prune_of_superseded_answers_leaves_the_current_ones(path, capsys):
    fill(path, kept_at=2000.0, source="new", replace=True)
    assert main(["prune", str(path), "--superseded"]) == 0
    assert "6 deleted" in capsys.readouterr().out
    assert all(text.startswith("new") for text in texts_in(path))


@pytest.mark.parametrize("arguments", [[], ["--older-than", "yesterday"], ["--older-than", "d"], ["--status", "odd"]])
def test_prune_refuses_to_take_everything_or_something_it_does_not_know(path, arguments):
    try:
        status = main(["prune", str(path), *arguments])
    except SystemExit as ended:
        status = ended.code
    assert status == 2
    assert len(texts_in(path)) == 6


def test_it_runs_as_a_program(path):
    done = subprocess.run(
        [sys.executable, "-m", "ekipl_rollout.record", "verify", str(path)], capture_output=True, text=True
    )
    assert (done.returncode, "no problems" in done.stdout) == (0, True)


def test_looking_after_a_record_needs_neither_torch_nor_an_sdk():
    code = "import ekipl_rollout.record.__main__, sys; assert not {'torch', 'openai', 'google.genai', 'verl'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
