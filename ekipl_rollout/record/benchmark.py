"""How fast a record is, and what it costs the event loop, as ratios within one run.

    python -m ekipl_rollout.record.benchmark                       # a minute, small
    python -m ekipl_rollout.record.benchmark --answers 1000000     # opening and finding in a large file

Prints tables for people and one JSON object as the last line. The file lies in --folder (default: a temporary one), so
that a certain disk can be measured.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ekipl_rollout.answer import Answer, AnswerStatus, Message, Question
from ekipl_rollout.record import Record
from ekipl_rollout.record.database import open_to_write, transaction
from ekipl_rollout.record.key import key_of
from ekipl_rollout.record.row import to_row
from ekipl_rollout.record.tables import find_rows, keep_rows
from ekipl_rollout.settings import ExpertSettings

EXPERT = ExpertSettings(name="gpt", kind="openai", model="m", base_url="http://127.0.0.1:1/v1")
ANSWERS = 8  # to each question, as in the paper
PICTURE = random.Random(0).randbytes(20_000)
WORDS = ("the cube is red so it counts", "left of the large sphere", "that makes three", "subtract the small ones")
TICK_S = 0.002


def question(number: int) -> Question:
    text = f"How many objects are left in scene {number}? Think first, then answer."
    return Question(str(number), (Message("user", (PICTURE, text)),))


def answers(number: int) -> dict[int, Answer]:
    """Of about 700 characters, a usual length."""
    rng = random.Random(number)
    return {
        i: Answer(
            "gpt", i, f"<think> {'. '.join(rng.choices(WORDS, k=26))} </think><answer> {i} </answer>",
            AnswerStatus.FINISHED, output_tokens=180, dollars=0.002, seconds=1.5,
        )
        for i in range(ANSWERS)
    }  # fmt: skip


def directly(path: Path, questions: int) -> float:
    """Questions kept a second, one commit each, as a program without a writer thread does it."""
    db = open_to_write(path)
    started = time.perf_counter()
    for number in range(questions):
        rows = {i: to_row(a, time.time()) for i, a in answers(number).items()}
        with transaction(db):
            keep_rows(db, key_of(EXPERT, question(number)), rows)
    seconds = time.perf_counter() - started
    db.close()
    return questions / seconds


async def with_tasks(path: Path, questions: int, tasks: int, act: str) -> float:
    """Questions kept or found a second by so many tasks at once."""
    record, numbers = Record(path), iter(range(questions))

    async def work() -> None:
        for number in numbers:
            if act == "keep":
                await record.keep(key_of(EXPERT, question(number)), answers(number))
            else:
                _, found = await record.find(EXPERT, question(number), ANSWERS)
                assert len(found) == ANSWERS

    started = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(tasks)))
    seconds = time.perf_counter() - started
    record.close()
    return questions / seconds


def in_processes(path: Path, questions: int, processes: int, act: str) -> float:
    """Questions a second of several processes with 16 tasks each, all on one file, each its own questions."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes) as pool:
        pool.map(_warm_up, range(processes))
        started = time.perf_counter()
        pool.starmap(_process, [(path, questions // processes, n, act) for n in range(processes)], chunksize=1)
        return questions / (time.perf_counter() - started)


def _warm_up(_: int) -> None:
    time.sleep(0.2)


def _process(path: Path, questions: int, number: int, act: str) -> None:
    async def go() -> None:
        record, numbers = Record(path), iter(range(number * questions, (number + 1) * questions))

        async def work() -> None:
            for n in numbers:
                if act == "keep":
                    await record.keep(key_of(EXPERT, question(n)), answers(n))
                else:
                    await record.find(EXPERT, question(n), ANSWERS)

        await asyncio.gather(*(work() for _ in range(16)))
        record.close()

    asyncio.run(go())


async def lag(
    path: Path, seconds: float, keep: Callable[[Record, int], Awaitable[Any]] | None, rate: float
) -> list[float]:
    """How late a 2 ms timer is, in seconds, while `rate` questions a second are kept: what other work on the loop feels."""
    record, late, end = Record(path), [], time.perf_counter() + seconds
    stop = asyncio.Event()

    async def record_all() -> None:
        number, started, running = 0, time.perf_counter(), set()
        while keep is not None and not stop.is_set():
            task = asyncio.ensure_future(keep(record, number))
            running.add(task)
            task.add_done_callback(running.discard)
            number += 1
            await asyncio.sleep(max(0.0, started + number / rate - time.perf_counter()))
        await asyncio.gather(*running)

    recording = asyncio.ensure_future(record_all())
    while time.perf_counter() < end:
        due = time.perf_counter() + TICK_S
        await asyncio.sleep(TICK_S)
        late.append(time.perf_counter() - due)
    stop.set()
    await recording
    record.close()
    return late


async def keep_in_thread(record: Record, number: int) -> None:
    key, found = await record.find(EXPERT, question(number), ANSWERS)
    if not found:
        await record.keep(key, answers(number))


def keep_blocking(db: sqlite3.Connection) -> Callable[[Record, int], Awaitable[Any]]:
    """What it replaces: the same work on the event loop itself."""

    async def keep(_: Record, number: int) -> None:
        key = key_of(EXPERT, question(number))
        if not find_rows(db, key.digest, ANSWERS):
            with transaction(db):
                keep_rows(db, key, {i: to_row(a, time.time()) for i, a in answers(number).items()})

    return keep


def build_large(path: Path, total: int) -> float:
    """Fills a record; returns seconds."""
    db, started = open_to_write(path), time.perf_counter()
    db.execute("PRAGMA synchronous=OFF")  # only while it is made
    template = {i: to_row(a, 1.0) for i, a in answers(0).items()}
    for first in tqdm(range(0, total // ANSWERS, 1000), desc="building", unit_scale=True, disable=None, leave=False):
        with transaction(db):
            for number in range(first, min(first + 1000, total // ANSWERS)):
                keep_rows(db, key_of(EXPERT, question(number)), template)
    db.close()
    return time.perf_counter() - started


async def large(path: Path, total: int) -> dict[str, float]:
    """Opening a large record and finding answers in it."""
    built = build_large(path, total)
    openings = []
    for _ in range(5):
        started = time.perf_counter()
        record = Record(path)
        await record.find(EXPERT, question(0), ANSWERS)
        openings.append(time.perf_counter() - started)
        record.close()
    record, rng = Record(path), random.Random(1)
    started = time.perf_counter()
    for _ in range(2000):
        _, found = await record.find(EXPERT, question(rng.randrange(total // ANSWERS)), ANSWERS)
        assert len(found) == ANSWERS
    reads = 2000 / (time.perf_counter() - started)
    started = time.perf_counter()
    for number in range(200):
        await record.keep(key_of(EXPERT, question(total + number)), answers(number))
    writes = 200 / (time.perf_counter() - started)
    record.close()
    return {
        "answers": total,
        "bytes": path.stat().st_size,
        "build_s": built,
        "open_and_first_find_ms": 1e3 * statistics.median(openings),
        "find_per_s_one_after_the_other": reads,
        "keep_per_s_one_after_the_other": writes,
    }


def throughput(folder: Path, questions: int) -> dict[str, float]:
    """Questions of 8 answers a second, every one of them on the disk before it counts."""
    found = {"keep, one commit each": directly(folder / "a", questions)}
    for tasks in (1, 16, 128):
        found[f"keep, {tasks} tasks"] = asyncio.run(with_tasks(folder / f"k{tasks}", questions, tasks, "keep"))
    found["keep, 4 processes"] = in_processes(folder / "p", questions, 4, "keep")
    for tasks in (1, 16, 128):
        found[f"find, {tasks} tasks"] = asyncio.run(with_tasks(folder / "k128", questions, tasks, "find"))
    found["find, 4 processes"] = in_processes(folder / "k128", questions, 4, "find")
    return found


def event_loop(folder: Path, seconds: float, rate: float) -> dict[str, dict[str, float]]:
    """Lateness of a timer in milliseconds: without a record, with it, and with the same work on the loop."""
    ways: dict[str, Callable | None] = {"nothing recorded": None, "recording": keep_in_thread}
    late = {
        name: asyncio.run(lag(folder / f"lag-{i}", seconds, way, rate)) for i, (name, way) in enumerate(ways.items())
    }
    with contextlib.closing(open_to_write(folder / "lag-blocking")) as db:
        late["recording on the loop itself"] = asyncio.run(lag(folder / "lag-b", seconds, keep_blocking(db), rate))
    return {
        name: {"p50_ms": _at(values, 0.5), "p99_ms": _at(values, 0.99), "longest_ms": _at(values, 1.0)}
        for name, values in late.items()
    }


def _at(values: list[float], share: float) -> float:
    return 1e3 * sorted(values)[int(share * (len(values) - 1))]


@contextlib.contextmanager
def workplace(folder: Path | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="record-benchmark-", dir=folder) as name:
        yield Path(name)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=80_000, help="in the large file (default: %(default)s)")
    parser.add_argument(
        "--questions", type=int, default=2000, help="of 8 answers, for each rate (default: %(default)s)"
    )
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="for each look at the event loop (default: %(default)s)"
    )
    parser.add_argument(
        "--rate", type=float, default=100.0, help="questions kept a second meanwhile (default: %(default)s)"
    )
    parser.add_argument("--folder", type=Path, help="on the disk to be measured")
    args = parser.parse_args(argv)
    with workplace(args.folder) as folder:
        rates = throughput(folder, args.questions)
        print("questions of 8 answers a second, each on the disk before it counts")
        for name, rate in rates.items():
            base = rates["keep, one commit each"] if name.startswith("keep") else rates["find, 1 tasks"]
            print(f"  {name:<24} {rate:9.0f}   x {rate / base:.2f}")
        loop = event_loop(folder, args.seconds, args.rate)
        print(f"a 2 ms timer on the event loop is late by, while {args.rate:.0f} questions a second are kept")
        for name, late in loop.items():
            print(
                f"  {name:<30} {late['p50_ms']:7.2f} ms usually  {late['p99_ms']:7.2f} ms p99  {late['longest_ms']:7.2f} ms at most"
            )
        big = asyncio.run(large(folder / "large", args.answers))
        print(f"a record of {args.answers} answers, {big['bytes'] / 1e6:.0f} MB")
        print(f"  opened and first answer found in {big['open_and_first_find_ms']:.1f} ms")
        print(
            f"  {big['find_per_s_one_after_the_other']:.0f} finds a second, {big['keep_per_s_one_after_the_other']:.0f} keeps a second, one after the other"
        )
    load = os.getloadavg()[0]
    print(
        json.dumps(
            {"questions_per_s": rates, "event_loop": loop, "large": big, "load_average": load, "cpus": os.cpu_count()}
        )
    )


if __name__ == "__main__":
    main()
