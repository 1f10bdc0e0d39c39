"""Fault x client -> what happened, against real sockets. The table in docs/experts.md is what is expected.

python -m tests.rollout.test_faults        # measures, and prints the table for the docs
"""

import asyncio
import os
import re
import socket
import time
from pathlib import Path

import pytest
import pytest_asyncio

from ekipl_rollout.answer import POLICY, Candidate
from ekipl_rollout.ask import ask_everyone
from ekipl_rollout.errands import Errands
from ekipl_rollout.experts.live import LiveExpert
from ekipl_rollout.group_filter import select
from tests.rollout.expert_helpers import KEY, KINDS, CountingBounds, become, client, expert_settings, question
from tests.rollout.fault_server import FaultServer
from tests.rollout.faults import FAULTS

DOCS = Path(__file__).parents[2] / "docs" / "experts.md"
BEFORE_A_CONNECTION = {"refused": "http://127.0.0.1:9", "no-such-host": "http://no-such-host.invalid"}
HANGING = {"drip", "black-hole", "half-header"}
TIME_LIMIT = 0.4
ASKED, KEPT = 4, 4

ENDS = {
    "at once": (0.0, 4.0),
    "after back-off": (0.0, 4.0),
    "after the wait it asks for": (0.1, 6.0),
    "at its time limit": (2 * TIME_LIMIT, 2 * TIME_LIMIT + 4.0),
}
"""Least and most seconds. Two attempts, first wait 0.02 s; the upper ends leave room for a busy machine, far below
the 10 s of a request and the 20 s of a group."""


def documented() -> dict[str, list[str]]:
    """fault -> [openai, gemini, ends] from the table in the docs."""
    rows = re.findall(r"^\| `([\w-]+)` \|(.+)\|$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    return {fault: [cell.strip() for cell in cells.split("|")][-3:] for fault, cells in rows}


pytestmark = pytest.mark.filterwarnings("ignore:BRAND_NEW")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def clients(server):
    """One client of each kind for all faults."""
    os.environ["TEST_KEY"] = KEY
    experts = {kind: client(expert_settings(kind, server.url, max_reply_bytes=1_000_000)) for kind in KINDS}
    yield experts
    for expert in experts.values():
        await expert.close()


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)
    resolve = socket.getaddrinfo

    def no_such_host(host, *args, **kwargs):
        if host == "no-such-host.invalid":  # the machine's resolver would take its time
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", no_such_host)


def faulty(fault: str, expert: LiveExpert, bounds: CountingBounds) -> LiveExpert:
    kind = expert.settings.kind
    if fault in BEFORE_A_CONNECTION:
        keyless = {"api_key_env": None} if fault == "no-such-host" else {}  # a key would want https
        return client(expert_settings(kind, BEFORE_A_CONNECTION[fault], fault, **keyless), bounds)
    seconds = TIME_LIMIT if fault in HANGING else 10.0
    return become(expert, f"{fault}@{kind}", bounds, logprobs=fault == "logprobs-refused", request_timeout_s=seconds)


async def happened(fault: str, healthy: LiveExpert, server: FaultServer) -> tuple[str, float]:
    """(what, seconds): asks policy and expert as a run does, keeps the best, and says what became of the expert."""
    bounds = CountingBounds()
    expert = faulty(fault, healthy, bounds)
    hits = server.hits[expert.settings.model]

    async def policy():
        return [Candidate(POLICY, i, score=0.0) for i in range(ASKED)]

    started = time.monotonic()
    candidates, asked = await ask_everyone(
        policy(), [(expert, ASKED)], question(f"q-{fault}"), Errands(timeout_s=20, keeps_answers=False)
    )
    seconds = time.monotonic() - started
    if expert is not healthy:
        await expert.close()
    usable = [answer for answer in asked.answers if answer.status.has_text]
    candidates += [Candidate(answer.source, ASKED + i, score=1.0) for i, answer in enumerate(usable)]
    kept = select(candidates, KEPT).kept
    assert len(kept) == KEPT, "a group was lost"
    assert sum(not c.is_policy for c in kept) == len(usable)
    assert bounds.open == [], "a request was never settled"
    sent = server.hits[expert.settings.model] - hits if fault not in BEFORE_A_CONNECTION else expert.stats.requests
    states = {failure.value for _, failure in asked.failures} or {answer.status.value for answer in asked.answers}
    what = " and ".join(sorted(states)).replace("finished", "answered")
    return f"{what}, {sent} request{'s' * (sent > 1)}", seconds


def test_every_fault_of_the_server_is_in_the_docs_and_there_are_enough():
    assert set(documented()) == set(FAULTS) | set(BEFORE_A_CONNECTION)
    assert len(documented()) >= 25


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("fault", [*BEFORE_A_CONNECTION, *FAULTS])
async def test_it_happens_what_the_docs_say_and_no_group_is_lost(fault, clients, server):
    *expected, ends = documented()[fault]
    shortest, longest = ENDS[ends]
    for kind, says in zip(KINDS, expected, strict=True):
        what, seconds = await happened(fault, clients[kind], server)
        assert (kind, what) == (kind, says)
        assert shortest <= seconds <= longest, f"{kind} took {seconds:.2f} s, which is not {ends!r}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", ["503", "half-json", "reset-in-body", "429-seconds", "null", "closed-without-reply"])
async def test_what_passes_is_passed_by_one_retry(fault, kind, server):
    bounds = CountingBounds()
    expert = client(expert_settings(kind, server.url, f"{fault}.once@{kind}"), bounds)
    answers = await expert.answer(question("q"), 2)
    await expert.close()
    assert [(a.status.value, a.retries) for a in answers] == [("finished", 1), ("finished", 0)]
    assert (expert.stats.retried, len(bounds.admitted), len(bounds.open)) == (1, 2, 0)


async def _measure() -> None:
    async def cells(fault: str, server: FaultServer) -> None:
        results = [await happened(fault, client(expert_settings(kind, server.url)), server) for kind in KINDS]
        slowest = max(seconds for _, seconds in results)
        ends = "at its time limit" if fault in HANGING else f"? {slowest:.2f} s"
        print(f"| `{fault}` | {' | '.join(what for what, _ in results)} | {ends} |", flush=True)

    os.environ["TEST_KEY"] = KEY
    with FaultServer() as server:
        for fault in [*BEFORE_A_CONNECTION, *FAULTS]:
            await cells(fault, server)


if __name__ == "__main__":
    asyncio.run(_measure())
