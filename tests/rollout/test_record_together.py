"""One record and many that use it: tasks, processes, forks, a slow disk."""

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
import zlib

import pytest

from ekipl_rollout.errors import RecordError
from ekipl_rollout.record import Record
from tests.rollout.record_helpers import EXPERT, answer, key, question, texts


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
