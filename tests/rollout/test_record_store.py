"""What a record keeps, and which files it is made of."""

import asyncio
import dataclasses
import json
import os
import sqlite3
import stat
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ekipl_rollout.answer import AnswerStatus
from ekipl_rollout.errors import RecordError, SettingsError
from ekipl_rollout.record import Record
from ekipl_rollout.record import row as rows
from ekipl_rollout.record.row import from_row, pack_value, to_row
from ekipl_rollout.settings import EkiplSettings
from tests.rollout.record_helpers import EXPERT, answer, key, question


@given(
    st.text(),
    st.sampled_from(AnswerStatus),
    st.integers(0, 2**40),
    st.floats(0, 1e9, allow_nan=False),
    st.integers(0, 99),
)
def test_an_answer_comes_back_as_it_was(text, status, tokens, dollars, index):
    kept = answer(text, index, status=status, output_tokens=tokens, dollars=dollars, seconds=dollars)
    assert from_row(to_row(kept, 1.0), index) == kept


def test_fields_of_a_later_version_stay_in_the_file_and_those_of_an_older_one_take_their_default():
    stored = to_row(answer("hello", seconds=2.5), 1.0)
    values = json.loads(zlib.decompress(stored.value))
    later = stored._replace(value=pack_value({**values, "invented_in_2031": [1, 2]}))
    assert from_row(later, 0) == answer("hello", seconds=2.5)
    assert rows.row_to_dict(later)["invented_in_2031"] == [1, 2]
    del values["seconds"]
    assert from_row(stored._replace(value=pack_value(values)), 0) == answer("hello")


def test_sequences_come_back_as_the_field_says(monkeypatch):
    @dataclasses.dataclass(frozen=True)
    class Later(rows.Answer):
        logprobs: list[float] | None = None
        token_ids: tuple[int, ...] = ()

    monkeypatch.setattr(rows, "Answer", Later)
    kept = Later("gpt", 0, "hi", AnswerStatus.FINISHED, logprobs=[-0.5, -1.0], token_ids=(3, 4))
    assert from_row(to_row(kept, 1.0), 0) == kept


@pytest.mark.parametrize("value", [b"", b"junk", zlib.compress(b"[1]"), zlib.compress(b'{"seconds":1}')])
def test_a_damaged_row_is_told_and_not_returned(value):
    with pytest.raises(RecordError, match="damaged"):
        from_row(to_row(answer("x"), 1.0)._replace(value=value), 0)


def test_an_answer_that_would_fill_the_memory_counts_as_damaged(monkeypatch):
    monkeypatch.setattr(rows, "MOST_BYTES", 1000)
    assert from_row(to_row(answer("x" * 500), 1.0), 0).text == "x" * 500
    with pytest.raises(RecordError, match="damaged"):
        from_row(to_row(answer("x" * 1000), 1.0), 0)


async def test_answers_are_found_by_question_expert_and_index(record):
    await record.keep(key(1), {0: answer("a"), 2: answer("c", 2)})
    _, found = await record.find(EXPERT, question(1), 8)
    assert {index: a.text for index, a in found.items()} == {0: "a", 2: "c"}
    assert (await record.find(EXPERT, question(1), 1))[1].keys() == {0}
    assert (await record.find(EXPERT, question(2), 8))[1] == {}
    other = dataclasses.replace(EXPERT, model="m2")
    assert (await record.find(other, question(1), 8))[1] == {}


async def test_the_file_and_its_log_are_for_the_owner_only(record, path):
    os.chmod(path, 0o600)
    await record.keep(key(), {0: answer("a")})
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == {"r.sqlite": 0o600, "r.sqlite-wal": 0o600, "r.sqlite-shm": 0o600}


def test_a_file_that_others_could_read_is_closed_to_them(path):
    Record(path).close()
    os.chmod(path, 0o644)
    Record(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_an_answer_that_json_cannot_hold_fails_alone(record):
    odd = record.keep(key(1), {0: answer("x", output_tokens=object())})
    fine = record.keep(key(2), {0: answer("y")})
    results = await asyncio.gather(odd, fine, return_exceptions=True)
    assert isinstance(results[0], Exception)
    assert results[1][0].text == "y"
    assert record.count() == 1


def test_what_is_no_record_is_refused_and_left_alone(tmp_path):
    for name, content in {"text": b"hello world, this is no database", "short": b"x"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(RecordError, match="no record"):
            Record(tmp_path / name)
        assert (tmp_path / name).read_bytes() == content


def test_an_sqlite_file_of_something_else_is_refused_and_left_alone(tmp_path):
    with sqlite3.connect(tmp_path / "other") as db:
        db.execute("CREATE TABLE photos (name)")
    with pytest.raises(RecordError, match="photos"):
        Record(tmp_path / "other")


def test_records_of_other_versions_are_refused_with_the_way_out(tmp_path):
    with sqlite3.connect(tmp_path / "first") as db:
        db.execute("CREATE TABLE answers (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")
    with pytest.raises(RecordError, match="record again"):
        Record(tmp_path / "first")
    Record(tmp_path / "later").close()
    with sqlite3.connect(tmp_path / "later") as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(RecordError, match="newer version.*99.*Update"):
        Record(tmp_path / "later")


def test_a_damaged_file_is_told_at_opening_with_the_way_out(tmp_path):
    Record(tmp_path / "r").close()
    content = (tmp_path / "r").read_bytes()
    (tmp_path / "r").write_bytes(content[:100] + b"\xff" * 4000)
    with pytest.raises(RecordError, match="damaged.*verify.*export"):
        Record(tmp_path / "r")


def test_the_settings_know_before_a_run_starts_that_its_record_cannot_be_used(tmp_path):
    (tmp_path / "text").write_text("hello world, this is no database")
    with pytest.raises(SettingsError, match="ekipl.record.path: .*no record"):
        EkiplSettings.from_config({"record": {"path": str(tmp_path / "text")}})
    Record(tmp_path / "good").close()
    for name in ("good", "not there yet"):
        EkiplSettings.from_config({"record": {"path": str(tmp_path / name)}})
    EkiplSettings.from_config({"record": {"path": str(tmp_path / "text"), "mode": "off"}})


def test_a_replay_of_nothing_is_an_error_and_makes_no_file(tmp_path):
    with pytest.raises(RecordError, match="does not exist"):
        Record(tmp_path / "none", must_exist=True)
    assert not (tmp_path / "none").exists()


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="cannot be opened"):
        Record(tmp_path / "file" / "r.sqlite")
