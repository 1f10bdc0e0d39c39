"""`python -m ekipl_rollout.record ...`, through its main."""

import asyncio
import gzip
import json
import sqlite3
import stat
import subprocess
import sys
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ekipl_rollout.answer import AnswerStatus, Message, Question
from ekipl_rollout.experts.build import build_experts
from ekipl_rollout.record import Record
from ekipl_rollout.record.__main__ import main
from ekipl_rollout.record.database import open_to_read, open_to_write, transaction
from ekipl_rollout.record.key import key_of
from ekipl_rollout.record.lines import to_line
from ekipl_rollout.record.row import to_row
from ekipl_rollout.record.scan import scan
from ekipl_rollout.record.tables import keep_rows
from ekipl_rollout.settings import ExpertSettings, RecordSettings
from tests.rollout.record_helpers import EXPERT, answer, key, question


def fill(path, questions=3, answers=2, source="gpt", kept_at=1000.0, settings=EXPERT, replace=False, **changes):
    db = open_to_write(path)
    with transaction(db):
        for number in range(questions):
            rows = {
                i: to_row(answer(f"{source} {number} {i}", source=source, dollars=0.25, **changes), kept_at)
                for i in range(answers)
            }
            keep_rows(db, key_of(settings, question(number)), rows, replace)
    db.close()
    return path


def content(path):
    """Everything in a record, numbers of questions apart."""
    db = open_to_read(path)
    found = {e.digest: (e.asked, e.answers, e.superseded) for e in scan(db)}
    db.close()
    return found


def texts(path):
    db = open_to_read(path)
    found = sorted(json.loads(zlib.decompress(row.value))["text"] for e in scan(db) for _, row in e.answers)
    db.close()
    return found


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


# --- verify -------------------------------------------------------------------------------------------------------


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
    assert 3_000 < len(texts(new)) < 4_000


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


# --- export and import --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lines.jsonl", "lines.jsonl.gz"])
def test_an_export_can_be_imported_again_and_gives_an_equal_record(path, tmp_path, name):
    fill(path, questions=2, kept_at=2000.0, source="new", replace=True)
    lines, new = tmp_path / name, tmp_path / "new.sqlite"
    assert main(["export", str(path), str(lines), "--history"]) == 0
    assert stat.S_IMODE(lines.stat().st_mode) == 0o600
    for _ in range(2):  # twice changes nothing
        assert main(["import", str(new), str(lines)]) == 0
        assert content(new) == content(path)


anything = st.text(max_size=30) | st.text(st.characters(categories=["Cs", "Cc", "Lu"]), max_size=5)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(anything, anything, st.sampled_from(AnswerStatus), st.floats(0, 1e6), st.integers(0, 10**9)),
        max_size=6,
    )
)
def test_any_text_survives_the_way_out_and_in(tmp_path_factory, entries):
    folder = tmp_path_factory.mktemp("x")
    db = open_to_write(folder / "a")
    with transaction(db):
        for index, (asked, said, status, dollars, tokens) in enumerate(entries):
            row = to_row(answer(said, status=status, dollars=dollars, output_tokens=tokens), 5.0)
            keep_rows(db, key_of(EXPERT, Question("q", (Message("user", (asked,)),))), {index: row})
    db.close()
    assert main(["export", str(folder / "a"), str(folder / "lines")]) == 0
    assert main(["import", str(folder / "b"), str(folder / "lines")]) == 0
    assert content(folder / "a") == content(folder / "b")


def test_an_answer_that_another_zlib_packed_is_the_same_answer(path, tmp_path):
    assert main(["export", str(path), str(tmp_path / "lines")]) == 0
    with sqlite3.connect(path) as db:
        db.create_function("repack", 1, lambda value: zlib.compress(zlib.decompress(value), 9))
        db.execute("UPDATE answers SET value = repack(value)")
    assert main(["import", str(path), str(tmp_path / "lines")]) == 0
    assert len(texts(path)) == 6


def test_an_export_to_stdout_is_lines_of_json_and_nothing_else(path, capfd):
    assert main(["export", str(path), "-"]) == 0
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [len(line["answers"]) for line in lines] == [2, 2, 2]
    assert lines[0]["asked"]["messages"][0]["parts"][1] == {"text": "question 0?"}


def test_an_export_that_fails_leaves_no_half_file(path, tmp_path, monkeypatch):
    def broken(line):
        raise OSError("no space left")

    monkeypatch.setattr("ekipl_rollout.record.__main__.to_line", broken)
    assert main(["export", str(path), str(tmp_path / "lines.jsonl")]) == 2
    assert [p.name for p in tmp_path.iterdir() if "lines" in p.name] == []


BAD_LINES = {
    "{half": "no JSON",
    "[1]": "must be an object",
    "[" * 100_000: "no JSON",
    '{"asked": {"version": 1}, "answers": []}': "version",
    '{"model": "m", "question": "q"}': "`text`",
    '{"text": "t", "question": "q"}': "`model`",
    '{"model": "m", "text": 3, "question": "q"}': "must hold texts",
    '{"model": "m", "text": "t", "question": "<image>q"}': "no `images`",
    '{"model": "m", "text": "t", "question": "<image><image>q", "images": ["a.png"]}': "more <image> markers",
    '{"model": "m", "text": "t", "question": "q", "images": ["a.png"]}': "no <image> marker",
    '{"model": "m", "text": "t", "question": "<image>q", "images": ["none.png"]}': "none.png",
    '{"model": "m", "text": "t", "messages": [{"role": "user", "content": 3}]}': "`content`",
    '{"model": "m", "answers": [{"text": "t", "status": "odd"}], "question": "q"}': "status",
    '{"model": "m", "answers": [{"text": "t", "dollars": "2"}], "question": "q"}': "numbers",
    '{"model": "m", "answers": [{"text": "t", "dollars": Infinity}], "question": "q"}': "numbers",
}


def test_lines_that_cannot_be_used_are_refused_by_number_and_reason_and_the_others_come_in(tmp_path, capsys):
    good = '{"model": "m", "question": "q", "text": "fine"}'
    (tmp_path / "a.png").write_bytes(b"picture")
    (tmp_path / "lines").write_text("\n".join([*BAD_LINES, good, ""]))
    assert main(["import", str(tmp_path / "r"), str(tmp_path / "lines")]) == 1
    said = capsys.readouterr().out.splitlines()
    for number, reason in enumerate(BAD_LINES.values(), start=1):
        assert said[number - 1].startswith(f"  line {number}: ")
        assert reason in said[number - 1]
    assert texts(tmp_path / "r") == ["fine"]


def test_an_export_that_was_changed_by_hand_is_refused(path, tmp_path, capsys):
    assert main(["export", str(path), str(tmp_path / "lines")]) == 0
    (tmp_path / "lines").write_text((tmp_path / "lines").read_text().replace("question 1?", "question 2?"))
    assert main(["import", str(tmp_path / "new"), str(tmp_path / "lines")]) == 1
    assert "`digest` does not belong to `asked`" in capsys.readouterr().out


def test_what_a_later_version_added_to_an_answer_survives_export_and_import(path, tmp_path):
    assert main(["export", str(path), str(tmp_path / "lines")]) == 0
    line = json.loads((tmp_path / "lines").read_text().splitlines()[0])
    line["answers"][0]["invented_in_2031"] = {"a": [1, None]}
    (tmp_path / "lines").write_text(to_line(line))
    assert main(["import", str(tmp_path / "new"), str(tmp_path / "lines")]) == 0
    assert main(["export", str(tmp_path / "new"), str(tmp_path / "again")]) == 0
    assert json.loads((tmp_path / "again").read_text())["answers"][0]["invented_in_2031"] == {"a": [1, None]}


# --- traces of offline experts ------------------------------------------------------------------------------------


async def replayed(record, model, asked, count=4):
    """What a run gets from an expert of kind offline."""
    (expert,) = build_experts([ExpertSettings("teacher", "offline", model)], RecordSettings("record", str(record)))
    try:
        return [(a.source, a.text, a.status.value) for a in await expert.answer(asked, count)]
    finally:
        await expert.close()


def test_traces_are_found_by_the_question_that_training_asks(tmp_path):
    (tmp_path / "a.png").write_bytes(b"picture a")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.png").write_bytes(b"picture b")
    lines = [
        {"model": "r1", "question": "<image><image>Which is larger?", "images": ["a.png", "sub/b.png"], "text": "<think> a </think>"},
        {"model": "r1", "messages": [{"role": "system", "content": "Think."}, {"role": "user", "content": "1 + 1?"}],
         "source": "luffy", "answers": ["two", {"text": "2", "status": "cut_at_length", "output_tokens": 3}]},
    ]  # fmt: skip
    with gzip.open(tmp_path / "traces.jsonl.gz", "wt") as file:
        file.write("".join(to_line(line) for line in lines))
    for _ in range(2):
        assert main(["import", str(tmp_path / "r"), str(tmp_path / "traces.jsonl.gz")]) == 0
    seen = Question("u1", (Message("user", (b"picture a", b"picture b", "Which is larger?")),))
    said = Question("u2", (Message("system", ("Think.",)), Message("user", ("1 + 1?",))))
    assert asyncio.run(replayed(tmp_path / "r", "r1", seen)) == [("teacher", "<think> a </think>", "finished")]
    assert asyncio.run(replayed(tmp_path / "r", "r1", said)) == [
        ("teacher", "two", "finished"),
        ("teacher", "2", "cut_at_length"),
    ]


def test_pictures_of_traces_may_lie_in_another_folder(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"picture a")
    (tmp_path / "lines").write_text('{"model": "m", "question": "<image>q", "images": "a.png", "text": "t"}')
    assert main(["import", str(tmp_path / "r"), str(tmp_path / "lines"), "--pictures", str(tmp_path / "pictures")]) == 0


# --- merge --------------------------------------------------------------------------------------------------------


def test_records_of_several_nodes_become_one_with_every_answer(tmp_path):
    one, two = fill(tmp_path / "one", 3), fill(tmp_path / "two", 5, source="two")
    for _ in range(2):  # twice changes nothing
        assert main(["merge", str(tmp_path / "all"), str(one), str(two)]) == 0
        assert texts(tmp_path / "all") == sorted(texts(one) + texts(two))
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
    assert "fresh" in texts(tmp_path / "copy")
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
    assert texts(tmp_path / "near") == texts(path)
    path.with_name("r.sqlite-wal").write_bytes(b"log")
    assert main(["stats", str(path)]) == 2
    assert "far away It has a log beside it" in capsys.readouterr().err


# --- prune --------------------------------------------------------------------------------------------------------


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
    assert {text.split()[0] for text in texts(mixed)} == {"a", "b", "c"}
    assert main(["prune", str(mixed), *filters]) == 0
    assert {text.split()[0] for text in texts(mixed)} == left
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
    assert all(text.startswith("new") for text in texts(path))


@pytest.mark.parametrize("arguments", [[], ["--older-than", "yesterday"], ["--older-than", "d"], ["--status", "odd"]])
def test_prune_refuses_to_take_everything_or_something_it_does_not_know(path, arguments):
    try:
        status = main(["prune", str(path), *arguments])
    except SystemExit as ended:
        status = ended.code
    assert status == 2
    assert len(texts(path)) == 6


def test_it_runs_as_a_program(path):
    done = subprocess.run(
        [sys.executable, "-m", "ekipl_rollout.record", "verify", str(path)], capture_output=True, text=True
    )
    assert (done.returncode, "no problems" in done.stdout) == (0, True)


def test_looking_after_a_record_needs_neither_torch_nor_an_sdk():
    code = "import ekipl_rollout.record.__main__, sys; assert not {'torch', 'openai', 'google.genai', 'verl'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
