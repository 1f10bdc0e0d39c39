"""Answers on their way out of a record and into one, also those that nobody here has asked for."""

import asyncio
import gzip
import json
import sqlite3
import stat
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ekipl_rollout.answer import AnswerStatus, Message, Question
from ekipl_rollout.experts.build import build_experts
from ekipl_rollout.record.__main__ import main
from ekipl_rollout.record.database import open_to_write, transaction
from ekipl_rollout.record.key import key_of
from ekipl_rollout.record.lines import to_line
from ekipl_rollout.record.row import to_row
from ekipl_rollout.record.tables import keep_rows
from ekipl_rollout.settings import ExpertSettings, RecordSettings
from tests.rollout.record_helpers import EXPERT, answer, content, fill, texts_in


@pytest.fixture
def path(tmp_path):
    return fill(tmp_path / "r.sqlite")


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
    assert len(texts_in(path)) == 6


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
    '{"model": "m", "answers": [{"text": "t", "dollars": -1}], "question": "q"}': "numbers from 0 on",
    f'{{"model": "m", "answers": [{{"text": "t", "output_tokens": {"9" * 400}}}], "question": "q"}}': "numbers",
    '{"model": "m", "source": "\\ud800", "text": "t", "question": "q"}': "must name an expert",
    '{"model": "m", "source": "\\u001b[2J", "text": "t", "question": "q"}': "must name an expert",
    '{"model": "m", "text": "t", "question": "<image>q", "images": ["/dev/zero"]}': "no such file",
    '{"asked": {"version": 2, "temperature": NaN}, "answers": [{"text": "t", "source": "s"}]}': "what no record keeps",
    '{"asked": {"version": 2}, "superseded": [{"text": "t", "source": "s", "replaced_at": NaN}]}': "`replaced_at`",
}


def test_lines_that_cannot_be_used_are_refused_by_number_and_reason_and_the_others_come_in(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("ekipl_rollout.record.__main__.SHOWN", len(BAD_LINES))
    good = '{"model": "m", "question": "q", "text": "fine"}'
    (tmp_path / "a.png").write_bytes(b"picture")
    (tmp_path / "lines").write_text("\n".join([*BAD_LINES, good, ""]))
    assert main(["import", str(tmp_path / "r"), str(tmp_path / "lines")]) == 1
    said = capsys.readouterr().out.splitlines()
    for number, reason in enumerate(BAD_LINES.values(), start=1):
        assert said[number - 1].startswith(f"  line {number}: ")
        assert reason in said[number - 1]
    assert texts_in(tmp_path / "r") == ["fine"]


@pytest.mark.parametrize(
    ("packed", "says"),
    [
        (gzip.compress(b'{"model": "m", "question": "q", "text": "fine"}' * 100)[:-20], "was not copied completely"),
        (b"\x1f\x8b\x08\x00" + b"junk" * 9, "lines.gz"),
        (gzip.compress(b" " * 70_000_000, 9), "a line of more than 64000000 characters"),
    ],
    ids=["cut", "junk", "bomb"],
)
def test_a_compressed_file_that_is_damaged_or_a_bomb_is_an_error(tmp_path, capsys, packed, says):
    (tmp_path / "lines.gz").write_bytes(packed)
    assert main(["import", str(tmp_path / "r"), str(tmp_path / "lines.gz")]) == 2
    assert says in capsys.readouterr().err


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
