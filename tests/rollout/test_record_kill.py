"""kill -9 of recording processes at random points: no answer that was used is missing, and nothing is torn.

Five rounds; EKIPL_KILL_ROUNDS=50 for the full number. Each round starts two processes that ask a real server through
the real client and share one file, kills one of them after a random time, and lets the other go on.
"""

import asyncio
import json
import multiprocessing
import os
import random
import signal
import sqlite3
import threading
import time

import pytest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from ekipl_rollout.answer import Message, Question
from ekipl_rollout.experts.build import build_experts
from ekipl_rollout.record.database import open_to_read
from ekipl_rollout.record.row import from_row
from ekipl_rollout.record.scan import scan
from ekipl_rollout.record.upkeep import check_entries, check_pages
from ekipl_rollout.settings import ExpertSettings, RecordSettings
from tests.rollout.expert_helpers import picture

ROUNDS = int(os.environ.get("EKIPL_KILL_ROUNDS", "5"))
AT_ONCE, ANSWERS = 8, 4
PICTURE = picture(size=(64, 64))


def use_answers(path, url, first, report):
    """The process that is killed: asks question after question and says which answers it uses, once it has them."""

    async def main():
        settings = ExpertSettings(name="gpt", kind="openai", model="m", base_url=f"{url}/v1", max_in_flight=AT_ONCE)
        (expert,) = build_experts([settings], RecordSettings("record", path))
        numbers = iter(range(first, first + 100_000))

        async def ask():
            for number in numbers:
                text = f"question {number}"
                for answer in await expert.answer(Question("q", (Message("user", (PICTURE, text)),)), ANSWERS):
                    # one write of less than a pipe's atomic size: a kill leaves whole lines
                    os.write(report, f"{text}\t{answer.index}\t{answer.text}\n".encode())

        await asyncio.gather(*(ask() for _ in range(AT_ONCE)))

    asyncio.run(main())


class Server:
    """Answers every question differently each time; keeps what it has delivered."""

    def __init__(self):
        self.delivered: list[tuple[str, str]] = []

    def app(self):
        return Starlette(routes=[Route("/v1/chat/completions", self.chat, methods=["POST"])])

    async def chat(self, request: Request):
        try:
            body = await request.json()
        except ClientDisconnect:  # killed while it was sending
            return JSONResponse({})
        text = body["messages"][0]["content"][1]["text"]
        said = [f"{text} said {random.randrange(10**9)} " + "x" * 300 for _ in range(body["n"])]
        self.delivered += [(text, answer) for answer in said]
        choices = [
            {"index": i, "finish_reason": "stop", "message": {"role": "assistant", "content": t}}
            for i, t in enumerate(said)
        ]
        return JSONResponse({"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": choices})


class Recorder:
    """One recording process and what it says that it uses."""

    def __init__(self, context, path, url, first):
        reader, writer = context.Pipe(duplex=False)
        self.process = context.Process(target=_start, args=(str(path), url, first, writer), daemon=True)
        self.process.start()
        writer.close()
        self.used: list[tuple[str, int, str]] = []
        self._reader = reader
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self):
        with os.fdopen(os.dup(self._reader.fileno()), "rb") as lines:
            for line in lines:
                assert line.endswith(b"\n")
                question, index, text = line.decode().rstrip("\n").split("\t")
                self.used.append((question, int(index), text))

    def wait_for(self, answers):
        deadline = time.monotonic() + 30
        while len(self.used) < answers:
            assert self.process.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.002)

    def kill(self):
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join(10)
        self._thread.join(10)


def _start(path, url, first, writer):
    use_answers(path, url, first, writer.fileno())


def whole_record(path):
    """(question text, index) -> answer text; fails on anything torn."""
    db = open_to_read(path)
    problems = check_pages(db)
    for _ in check_entries(db, problems):
        pass
    assert problems == []
    found = {}
    for entry in scan(db):
        text = json.loads(entry.asked)["messages"][0]["parts"][1]["text"]
        found.update({(text, index): from_row(row, index).text for index, row in entry.answers})
    db.close()
    return found


def forkserver(module: str):
    """Its children start in milliseconds, with the imports of `module` done."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["openai", "httpx2", module])
    return context


@pytest.fixture(scope="module")
def context():
    return forkserver(__name__)


def test_a_killed_process_has_kept_every_answer_that_it_used(serve, context, tmp_path):
    server, path, rng = Server(), tmp_path / "r.sqlite", random.Random(1)
    url, used, killed = serve(server.app()), [], 0
    for number in range(ROUNDS):
        recorders = [Recorder(context, path, url, 10**6 * (2 * number + i)) for i in range(2)]
        for recorder in recorders:
            recorder.wait_for(1)
        time.sleep(rng.random() * 0.2)
        recorders[0].kill()
        survived = len(recorders[1].used)
        recorders[1].wait_for(survived + 1)  # the other one goes on
        recorders[1].kill()
        killed += 2
        used += [entry for recorder in recorders for entry in recorder.used]
        if ROUNDS <= 5 or number % 10 == 9:
            whole_record(path)
    kept = whole_record(path)
    lost = [entry for entry in used if kept.get(entry[:2]) != entry[2]]
    known = set(kept.items())
    on_the_way = [(q, t) for q, t in server.delivered if not any(((q, i), t) in known for i in range(ANSWERS))]
    print(
        f"{killed} kills, {len(server.delivered)} answers sent, {len(kept)} kept, {len(used)} used, {len(lost)} lost, "
        f"{len(on_the_way)} on the way to a process when it was killed"
    )
    assert lost == []
    assert len(used) > 10 * killed
    # what a killed process had not yet read and written: at most its open requests
    assert len(on_the_way) <= killed * AT_ONCE * ANSWERS
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*) FROM answers").fetchone()[0] == len(kept)
