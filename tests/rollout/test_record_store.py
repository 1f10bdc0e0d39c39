import asyncio
import dataclasses
import json
import os
import sqlite3
import stat
import subprocess
import sys
import threading
import uuid
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ekipl_rollout.answer import AnswerStatus
from ekipl_rollout.errors import ExpertError, Failure, RecordError, SettingsError
from ekipl_rollout.record import Record, RecordedExpert
from ekipl_rollout.record import row as rows
from ekipl_rollout.record.row import from_row, pack_value, to_row
from ekipl_rollout.settings import EkiplSettings
from tests.rollout.record_helpers import EXPERT, CountingExpert, answer, key, question


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep" / "r.sqlite"


@pytest.fixture
def record(path):
    opened = Record(path).share()
    yield opened
    opened.close()


def texts(answers):
    return [a.text for a in answers]


# --- what is kept -------------------------------------------------------------------------------------------------


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


# --- opening ------------------------------------------------------------------------------------------------------


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


# --- many at once -------------------------------------------------------------------------------------------------


async def test_what_waits_together_is_committed_together(record, path):
    commits = []
    record._writer._db.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)
    await asyncio.gather(*(record.keep(key(n), {0: answer(str(n))}) for n in range(100)))
    assert record.count() == 100
    assert len(commits) < 20


WRITE = """
import asyncio, sys
from ekipl_rollout.record import Record
from tests.rollout.record_helpers import EXPERT, answer, key, question

async def main(path, me, count):
    record = Record(path)
    for n in range(count):
        await record.keep(key(n), {0: answer(f"{me} {n}", source=me), 1: answer(f"{me} {n} b", 1, source=me)})
        _, found = await record.find(EXPERT, question(n), 2)
        assert len(found) == 2
    record.close()

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def test_many_processes_write_at_once_and_every_answer_of_each_is_there(path):
    writers = [subprocess.Popen([sys.executable, "-c", WRITE, str(path), f"w{i}", "25"]) for i in range(4)]
    assert [w.wait(60) for w in writers] == [0] * 4
    with sqlite3.connect(path) as db:
        said = [json.loads(zlib.decompress(value))["text"] for (value,) in db.execute("SELECT value FROM answers")]
        highest = {n for (n,) in db.execute("SELECT max(idx) FROM answers GROUP BY question")}
    assert sorted(said) == sorted(f"w{i} {n}{end}" for i in range(4) for n in range(25) for end in ("", " b"))
    assert highest == {
        7
    }  # 25 questions of 8 answers: a place that was taken sends the later answer to the next free one


async def test_another_process_that_opens_and_closes_the_file_leaves_the_log_of_those_who_use_it(record, path):
    """To open and close a file by hand drops the locks of this process; the other one would take itself for the last."""
    Record(path).close()
    await record.keep(key(1), {0: answer("before")})
    subprocess.run([sys.executable, "-c", WRITE, str(path), "w", "1"], check=True, timeout=60)
    assert path.with_name("r.sqlite-wal").exists()
    await record.keep(key(2), {0: answer("after")})
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*) FROM answers").fetchone() == (4,)


async def test_who_comes_second_uses_the_answer_that_stands_and_keeps_his_own_behind_it(record):
    await record.keep(key(), {0: answer("first")})
    standing = await record.keep(key(), {0: answer("second"), 1: answer("third", 1)})
    assert texts(standing.values()) == ["first", "third"]
    _, found = await record.find(EXPERT, question(), 8)
    assert texts(found.values()) == ["first", "third", "second"]


async def test_the_event_loop_goes_on_while_the_disk_is_slow(record):
    blocker = sqlite3.connect(record.path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")  # another process that writes for a while
    keeping = asyncio.ensure_future(record.keep(key(), {0: answer("a")}))
    for _ in range(20):  # reads wait for nobody
        await asyncio.wait_for(record.find(EXPERT, question(1), 8), 30)
    assert not keeping.done()
    blocker.execute("ROLLBACK")
    await keeping
    assert record.count() == 1


async def test_a_caller_that_is_cancelled_does_not_take_his_answers_with_him(record):
    blocker = sqlite3.connect(record.path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    keeping = asyncio.ensure_future(record.keep(key(), {0: answer("paid")}))
    await asyncio.sleep(0.05)
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping
    blocker.execute("ROLLBACK")
    await record.keep(key(1), {0: answer("next")})
    assert texts((await record.find(EXPERT, question(), 8))[1].values()) == ["paid"]


def test_what_waits_is_written_when_python_ends(path):
    code = f"""
import asyncio
from ekipl_rollout.record import Record
from tests.rollout.record_helpers import answer, key

async def main():
    record = Record({str(path)!r})
    for n in range(200):
        asyncio.ensure_future(record.keep(key(n), {{0: answer("a")}}))
    await asyncio.sleep(0)  # each has begun, none is awaited
    return record

record = asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*) FROM answers").fetchone() == (200,)


async def test_after_a_fork_the_child_is_told_to_open_the_file_itself(record):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            record.count()
        except RecordError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert b"fork" in os.read(reader, 1000)


# --- an expert behind its record ----------------------------------------------------------------------------------


async def test_two_groups_that_ask_the_same_at_once_pay_once(record):
    live = CountingExpert(seconds=0.05)
    expert = RecordedExpert(EXPERT, record, live)
    first, second = await asyncio.gather(expert.answer(question(), 4), expert.answer(question(), 4))
    assert live.requests == 1
    assert texts(first) == texts(second)
    assert [a.recorded for a in first + second] == [False] * 4 + [True] * 4


async def test_an_answer_from_the_record_costs_nothing_and_bears_the_name_it_is_asked_by(record):
    await RecordedExpert(EXPERT, record, CountingExpert()).answer(question(), 1)
    (again,) = await RecordedExpert(dataclasses.replace(EXPERT, name="teacher"), record, None).answer(question(), 1)
    assert (again.source, again.dollars, again.seconds, again.recorded) == ("teacher", 0.0, 0.0, True)


async def test_a_failure_costs_only_the_answers_that_were_missing(record):
    await RecordedExpert(EXPERT, record, CountingExpert(most=3)).answer(question(), 8)
    failing = RecordedExpert(EXPERT, record, CountingExpert(error=ExpertError(Failure.SERVER_ERROR)))
    assert len(await failing.answer(question(), 8)) == 3
    with pytest.raises(ExpertError, match="server_error"):
        await failing.answer(question(1), 8)


async def test_refresh_asks_for_everything_again_and_keeps_the_old_answers_as_history(record):
    live = CountingExpert()
    await RecordedExpert(EXPERT, record, live).answer(question(), 2)
    refreshed = await RecordedExpert(EXPERT, record, live, refresh=True).answer(question(), 2)
    assert texts(refreshed) == ["q0 2", "q0 3"]
    assert texts(await RecordedExpert(EXPERT, record, None).answer(question(), 2)) == ["q0 2", "q0 3"]
    with sqlite3.connect(record.path) as db:
        old = [json.loads(zlib.decompress(v))["text"] for (v,) in db.execute("SELECT value FROM superseded")]
    assert old == ["q0 0", "q0 1"]


async def test_a_refresh_that_fails_leaves_the_old_answers(record):
    await RecordedExpert(EXPERT, record, CountingExpert()).answer(question(), 2)
    failing = RecordedExpert(EXPERT, record, CountingExpert(error=ExpertError(Failure.TIMED_OUT)), refresh=True)
    with pytest.raises(ExpertError):
        await failing.answer(question(), 2)
    assert len(await RecordedExpert(EXPERT, record, None).answer(question(), 2)) == 2


async def test_a_replay_that_lacks_answers_is_shorter_or_an_error_as_set(record):
    await RecordedExpert(EXPERT, record, CountingExpert(most=3)).answer(question(), 8)
    assert len(await RecordedExpert(EXPERT, record, None).answer(question(), 8)) == 3
    with pytest.raises(ExpertError, match="not_recorded"):
        await RecordedExpert(EXPERT, record, None).answer(question(1), 8)
    strict = RecordedExpert(EXPERT, record, None, missing="error")
    assert len(await strict.answer(question(), 3)) == 3
    with pytest.raises(RecordError, match="3 of 8 answers of gpt.*ekipl.record.missing"):
        await strict.answer(question(), 8)


async def test_the_last_expert_that_is_closed_closes_the_file(path):
    record = Record(path)
    experts = [RecordedExpert(EXPERT, record, CountingExpert()) for _ in range(2)]
    await experts[0].close()
    assert len(await experts[1].answer(question(), 1)) == 1
    await experts[1].close()
    assert experts[0]._live.closed
    with pytest.raises(RecordError, match="closed"):
        record.count()
    assert not any(thread.name.startswith(f"record {path}") for thread in threading.enumerate())
    assert [file.name for file in path.parent.iterdir()] == ["r.sqlite"]  # nothing waits in a log


# --- a disk that is full ------------------------------------------------------------------------------------------


def fill(record, full=True):
    """SQLite reports the same error as for a full disk; it counts pages instead of asking the disk."""
    pages = record._writer._db.execute("PRAGMA page_count").fetchone()[0]
    record._writer._db.execute(f"PRAGMA max_page_count = {pages + (0 if full else 1_000_000)}")


async def test_a_full_disk_costs_no_group_and_no_answer_and_nobody_else_is_paid(record, caplog):
    live = CountingExpert()
    expert = RecordedExpert(EXPERT, record, live)
    await expert.answer(question(99), 1)
    fill(record)
    full = [n for n in range(300) if not record.is_failing and await expert.answer(question(n), 8)]
    assert "cannot be written" in caplog.text
    assert "wait to be written" in caplog.text
    asked = live.requests
    with pytest.raises(ExpertError, match="record_unusable.*full"):
        await expert.answer(question(500), 8)
    assert live.requests == asked  # what cannot be kept is not bought
    assert len(await expert.answer(question(99), 1)) == 1  # what is there goes on being used

    fill(record, full=False)
    assert len(await expert.answer(question(501), 8)) == 8
    assert not record.is_failing
    for n in full:
        assert len(await RecordedExpert(EXPERT, record, None).answer(question(n), 8)) == 8


async def test_answers_that_can_never_be_written_are_counted_in_the_log(path, caplog):
    record = Record(path)
    await record.keep(key(), {0: answer("a")})
    fill(record)
    with pytest.raises(RecordError):
        for n in range(300):
            await record.keep(key(n), {i: answer("long " * 50, i) for i in range(8)})
    record.close()
    assert "8 answers were paid for and could not be kept" in caplog.text


async def test_a_record_that_cannot_be_read_is_not_paid_for_again(record, monkeypatch):
    def broken(*_):
        raise sqlite3.DatabaseError("database disk image is malformed")

    monkeypatch.setattr("ekipl_rollout.record.store.find_rows", broken)
    live = CountingExpert()
    with pytest.raises(ExpertError, match="record_unusable.*malformed.*verify"):
        await RecordedExpert(EXPERT, record, live).answer(question(), 1)
    assert live.requests == 0


async def test_an_answer_that_json_cannot_hold_fails_alone(record):
    odd = record.keep(key(1), {0: answer("x", output_tokens=object())})
    fine = record.keep(key(2), {0: answer("y")})
    results = await asyncio.gather(odd, fine, return_exceptions=True)
    assert isinstance(results[0], Exception)
    assert results[1][0].text == "y"
    assert record.count() == 1


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5), st.booleans()), min_size=1, max_size=8))
def test_whatever_is_asked_in_whatever_order_no_paid_answer_disappears(tmp_path, steps):
    path = tmp_path / uuid.uuid4().hex

    async def go():
        record = Record(path).share()
        live, given = CountingExpert(most=3), []
        for number, count, refresh in steps:
            expert = RecordedExpert(EXPERT, record, live, refresh=refresh)
            given += [a.text for a in await expert.answer(question(number), count) if not a.recorded]
        record.close()
        return live.answers, given

    paid, given = asyncio.run(go())
    with sqlite3.connect(path) as db:
        values = db.execute("SELECT value FROM answers UNION ALL SELECT value FROM superseded").fetchall()
    assert sorted(json.loads(zlib.decompress(value))["text"] for (value,) in values) == sorted(given)
    assert len(given) == paid
