"""An expert behind its record: who pays, who waits, and what becomes of paid answers when the disk is full."""

import asyncio
import dataclasses
import json
import sqlite3
import threading
import uuid
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ekipl_rollout.errors import ExpertError, Failure, RecordError
from ekipl_rollout.record import Record, RecordedExpert
from tests.rollout.record_helpers import EXPERT, CountingExpert, answer, key, question, texts


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
