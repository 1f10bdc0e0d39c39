"""kill -9 of `record_ahead` at random points, again and again: nothing that was kept is lost or asked for again, and the
ledger never knows of less money than the provider does. EKIPL_KILL_ROUNDS for more kills than four."""

import json
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from tqdm import tqdm

from ekipl_rollout.bounds.budget import nano
from ekipl_rollout.bounds.ledger import read_spent
from recipe.ekipl.record_ahead import main
from tests.rollout.expert_helpers import picture
from tests.rollout.test_record_kill import forkserver, whole_record

KILLS = int(os.environ.get("EKIPL_KILL_ROUNDS", "4"))
ROWS, N, AT_ONCE = 12 * KILLS, 2, 4
IN_TOKENS, OUT_TOKENS = 30, 10  # of a request, and of each answer
INPUT, OUTPUT, BUDGET = 1.0, 1000.0, 50.0  # dollars: a million tokens; in all


class Provider:
    """Answers every question differently each time, and knows what it has sold."""

    def __init__(self):
        self._lock = threading.Lock()
        self._asked: Counter[str] = Counter()
        self.said: dict[str, set[str]] = {}
        self.serial = 0

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/v1/chat/completions", self.chat, methods=["POST"])])

    async def chat(self, request: Request) -> JSONResponse:
        try:
            body = await request.json()
        except ClientDisconnect:  # killed while it was sending
            return JSONResponse({})
        question = next(part["text"] for part in body["messages"][0]["content"] if part["type"] == "text")
        with self._lock:
            self._asked[question] += 1
            self.serial += 1
            said = [f"<think> {self.serial}.{i} </think> <answer> 1 </answer>" for i in range(body["n"])]
            self.said.setdefault(question, set()).update(said)
        choices = [
            {"index": i, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
            for i, text in enumerate(said)
        ]
        usage = {"prompt_tokens": IN_TOKENS, "completion_tokens": OUT_TOKENS * len(said), "total_tokens": 0}
        head = {"id": "x", "object": "chat.completion", "created": 1, "model": "m"}
        return JSONResponse({**head, "choices": choices, "usage": usage})

    @property
    def asked(self) -> Counter[str]:
        """Requests so far, by question."""
        with self._lock:
            return self._asked.copy()

    @property
    def sold(self) -> int:
        """Nano-dollars."""
        return self.asked.total() * nano((IN_TOKENS * INPUT + N * OUT_TOKENS * OUTPUT) / 1e6)


def write_rows(path: Path) -> None:
    rows = [
        {
            "data_source": "clevr_math",
            "prompt": [{"role": "user", "content": f"<image>How many in row {i}?"}],
            "images": [{"bytes": picture()}],
            "reward_model": {"style": "rule", "ground_truth": "1"},
            "extra_info": {"id": f"row-{i}"},
        }
        for i in range(ROWS)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)


def words(folder: Path, url: str) -> list[str]:
    expert = {"name": "a", "kind": "openai", "model": "m", "base_url": f"{url}/v1", "max_tokens": 20}
    expert |= {"dollars_per_million_input": INPUT, "dollars_per_million_output": OUTPUT, "max_in_flight": AT_ONCE}
    listed = json.dumps([expert]).replace('"', "")
    given = [f"ekipl.experts={listed}", f"data.train_files={folder}/rows.parquet", f"ekipl.run_dir={folder}"]
    return [*given, f"ekipl.num_answers={N}", "--budget", str(BUDGET)]


def job(arguments: list[str], log: str) -> None:
    """What runs in the process that is killed."""
    with open(log, "ab", buffering=0) as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    tqdm.set_lock(threading.RLock())  # its own is a semaphore, which a kill would leave behind
    sys.exit(main(arguments))


@pytest.fixture(scope="module")
def context():
    return forkserver(__name__)


def test_a_killed_data_set_goes_on_and_nothing_is_lost_or_paid_twice(serve, context, tmp_path):
    provider, rng, log = Provider(), random.Random(4), tmp_path / "log"
    arguments, record = words(tmp_path, serve(provider.app())), tmp_path / "records.sqlite"
    ledger = Path(f"{record}.ledger")
    write_rows(tmp_path / "rows.parquet")

    def start():
        process = context.Process(target=job, args=(arguments, str(log)))
        process.start()
        return process

    kept: dict[tuple[str, int], str] = {}
    for _ in range(KILLS):
        before, complete = provider.asked, {question for question, _ in kept}
        process, deadline = start(), time.monotonic() + 20
        wanted = before.total() + rng.randrange(1, 2 * AT_ONCE)
        while provider.asked.total() < wanted:
            assert process.is_alive() and time.monotonic() < deadline, log.read_text()
            time.sleep(0.001)
        time.sleep(rng.random() * 0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.join(10)
        assert not (provider.asked - before).keys() & complete, "asked for what was in the record"
        found = whole_record(record)
        assert kept.items() <= found.items(), "lost what was in the record"
        assert set(Counter(question for question, _ in found).values()) <= {N}, "half a request was kept"
        assert provider.sold <= read_spent(ledger) <= nano(BUDGET)
        kept = found
    assert 0 < len(kept) < ROWS * N

    process = start()
    process.join(30)
    assert process.exitcode == 0, log.read_text()
    kept = whole_record(record)
    assert set(kept) == {(f"How many in row {i}?", index) for i in range(ROWS) for index in range(N)}
    assert all(text in provider.said[question] for (question, _), text in kept.items())
    # what was on its way to a process when it was killed, and nothing else, was asked for once more
    again = provider.asked.total() - ROWS
    print(f"{KILLS} kills, {again + ROWS} requests for {ROWS} rows, {again} of them once more")
    assert 0 <= again <= KILLS * AT_ONCE
    assert provider.sold <= read_spent(ledger) <= nano(BUDGET)
    assert main(arguments) == 0
    assert provider.asked.total() == again + ROWS
