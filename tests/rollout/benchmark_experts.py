"""Our client against the bare SDK in a gather loop, on the same server, in one run.

    python -m tests.rollout.benchmark_experts                 # table, and one JSON line last
    python -m tests.rollout.benchmark_experts --quick

The bare SDK is used as its documentation shows: one client, its own retries and pool, all requests at once with
asyncio.gather, one answer a request. Ours asks as a training run does. Both want `--answers` answers to each of
`--questions` questions with a picture. Rounds alternate, medians are compared: on a busy machine only ratios mean much.

  throughput        a healthy server
  single            the same, where the model refuses several answers a request
  large pictures    the same again, with a picture of about 1 MB
  rate limit        a server that takes `--rate` requests a second and says so with 429 and Retry-After
  5 % failures      503, at random

lag: the longest that another task of the same event loop had to wait (median of the rounds, milliseconds): the rollout
lives in such a loop.
CPU: milliseconds of this process for one answer, which a busy machine distorts least.
"""

import argparse
import asyncio
import base64
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ekipl_rollout.answer import Message, Question
from ekipl_rollout.errors import ExpertError
from ekipl_rollout.settings import RetrySettings
from tests.rollout.expert_helpers import KEY, KINDS, client, expert_settings, picture

TICK_S = 0.005

Asked = Callable[[str, str, list[bytes], int], Awaitable[int]]
"""(url, model, pictures, answers) -> how many answers came."""


@dataclass(frozen=True)
class Scenario:
    """A server, and what it is asked."""

    name: str
    model: str = "m"
    server: tuple[str, ...] = ()
    picture_kb: int = 20
    fewer: int = 1
    """Divides the number of questions, for those that take long."""


def scenarios(rate: float) -> list[Scenario]:
    return [
        Scenario("throughput"),
        Scenario("single", "several-refused"),
        Scenario("large pictures", "several-refused", picture_kb=1000, fewer=8),
        Scenario("rate limit", "several-refused", ("--rate", str(rate)), fewer=2),
        Scenario("5 % failures", "several-refused", ("--broken", "0.05")),
    ]


async def ours(kind: str, url: str, model: str, pictures: list[bytes], answers: int) -> int:
    retry = RetrySettings(attempts=8, first_wait_s=0.05)
    expert = client(expert_settings(kind, url, model, max_in_flight=64, retry=retry))

    async def ask(i: int, shown: bytes) -> int:
        try:
            return len(await expert.answer(Question(str(i), (Message("user", (shown, f"q{i}")),)), answers))
        except ExpertError:
            return 0

    try:
        return sum(await asyncio.gather(*(ask(i, shown) for i, shown in enumerate(pictures))))
    finally:
        await expert.close()


async def bare_openai(url: str, model: str, pictures: list[bytes], answers: int) -> int:
    import openai

    sdk = openai.AsyncOpenAI(api_key=KEY, base_url=f"{url}/v1")

    async def ask(i: int, shown: bytes) -> int:
        image = {"url": f"data:image/png;base64,{base64.b64encode(shown).decode()}"}
        content: Any = [{"type": "image_url", "image_url": image}, {"type": "text", "text": f"q{i}"}]
        try:
            reply = await sdk.chat.completions.create(
                model=model, messages=[{"role": "user", "content": content}], max_completion_tokens=1024
            )
            return int(bool(reply.choices[0].message.content))
        except Exception:  # an answer that did not come; the loop has no other way to go on
            return 0

    async with sdk:
        return sum(await asyncio.gather(*(ask(i, p) for i, p in enumerate(pictures) for _ in range(answers))))


async def bare_gemini(url: str, model: str, pictures: list[bytes], answers: int) -> int:
    from google import genai
    from google.genai import types

    # its own retries are off by default; on, as its documentation recommends for production
    options = types.HttpOptions(base_url=url, api_version="v1beta", retry_options=types.HttpRetryOptions())
    sdk = genai.Client(api_key=KEY, vertexai=False, http_options=options)

    async def ask(i: int, shown: bytes) -> int:
        parts = [types.Part.from_bytes(data=shown, mime_type="image/png"), types.Part.from_text(text=f"q{i}")]
        try:
            reply = await sdk.aio.models.generate_content(
                model=model,
                contents=[types.Content(role="user", parts=parts)],
                config=types.GenerateContentConfig(max_output_tokens=1024),
            )
            return int(bool(reply.text))
        except Exception:
            return 0

    try:
        return sum(await asyncio.gather(*(ask(i, p) for i, p in enumerate(pictures) for _ in range(answers))))
    finally:
        await sdk.aio.aclose()


async def with_lag(asking: Awaitable[int]) -> tuple[int, list[float]]:
    """The result, and how many seconds late a task beside it woke up each time."""
    late: list[float] = []

    async def tick() -> None:
        while True:
            due = time.perf_counter() + TICK_S
            await asyncio.sleep(TICK_S)
            late.append(time.perf_counter() - due)

    ticking = asyncio.ensure_future(tick())
    try:
        return await asking, late
    finally:
        ticking.cancel()


BARE: dict[str, Asked] = {"openai": bare_openai, "gemini": bare_gemini}


@contextmanager
def server(*options: str) -> Iterator[str]:
    """A fault server in a process of its own; its address."""
    command = [sys.executable, "-m", "tests.rollout.fault_server", "--port", "0", "--latency", "0.05", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


def noise(kilobytes: int, seed: int) -> bytes:
    """A PNG of about that size that does not compress."""
    from PIL import Image

    side = max(int((kilobytes * 1000 / 3) ** 0.5), 4)
    import io

    buffer = io.BytesIO()
    Image.frombytes("RGB", (side, side), random.Random(seed).randbytes(side * side * 3)).save(buffer, "PNG")
    return buffer.getvalue() if kilobytes > 1 else picture()


def measure(scenario: Scenario, kind: str, questions: int, answers: int, rounds: int) -> dict[str, Any]:
    count = max(questions // scenario.fewer, 4)
    shown = [noise(scenario.picture_kb, seed) for seed in range(min(count, 8))]
    pictures = [shown[i % len(shown)] for i in range(count)]
    ways: dict[str, Asked] = {"ours": lambda *a: ours(kind, *a), "bare": BARE[kind]}
    seconds: dict[str, list[float]] = {"ours": [], "bare": []}
    came: dict[str, list[int]] = {"ours": [], "bare": []}
    lags: dict[str, list[float]] = {"ours": [], "bare": []}
    cpu = {"ours": 0.0, "bare": 0.0}
    with server(*scenario.server) as url:
        for way in ways:  # imports, and whatever else happens once
            asyncio.run(ways[way](url, "m@warm", pictures[:1], 1))
        for turn in range(rounds):
            for way in sorted(ways, reverse=bool(turn % 2)):
                asking = ways[way](url, f"{scenario.model}@{way}{turn}", pictures, answers)
                started, used = time.perf_counter(), time.process_time()
                answered, late = asyncio.run(with_lag(asking))
                seconds[way].append(time.perf_counter() - started)
                cpu[way] += time.process_time() - used
                came[way].append(answered)
                lags[way].append(max(late, default=0.0))
    wanted = count * answers
    row: dict[str, Any] = {"scenario": scenario.name, "client": kind, "answers": wanted}
    for way in ways:
        row[f"{way}_answers_per_s"] = round(
            statistics.median(n / s for n, s in zip(came[way], seconds[way], strict=True)), 1
        )
        row[f"{way}_lag_ms"] = round(1000 * statistics.median(lags[way]), 1)
        row[f"{way}_cpu_ms"] = round(1000 * cpu[way] / max(sum(came[way]), 1), 1)
        row[f"{way}_lost"] = round(1 - statistics.mean(came[way]) / wanted, 4)
    row["ratio"] = round(row["ours_answers_per_s"] / max(row["bare_answers_per_s"], 1e-9), 2)
    return row


def render(rows: list[dict[str, Any]]) -> str:
    head = f"{'scenario':<16}{'client':<8}{'answers':>8}{'ours/s':>9}{'bare/s':>9}{'ratio':>7}{'lost':>16}{'lag ms':>18}{'CPU ms':>14}"
    lines = [
        f"{r['scenario']:<16}{r['client']:<8}{r['answers']:>8}{r['ours_answers_per_s']:>9}{r['bare_answers_per_s']:>9}"
        f"{r['ratio']:>7}{r['ours_lost']:>8.1%}{r['bare_lost']:>8.1%}{r['ours_lag_ms']:>9}{r['bare_lag_ms']:>9}"
        f"{r['ours_cpu_ms']:>7}{r['bare_cpu_ms']:>7}"
        for r in rows
    ]
    return "\n".join([head, *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=48, help="(default: %(default)s)")
    parser.add_argument("--answers", type=int, default=8, help="to each question (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of each client (default: %(default)s)")
    parser.add_argument(
        "--rate", type=float, default=60.0, help="requests a second of the limited server (default: %(default)s)"
    )
    parser.add_argument("--kind", choices=KINDS, action="append", help="default: both")
    parser.add_argument("--quick", action="store_true", help="one small round: does it run at all?")
    args = parser.parse_args()
    if args.quick:
        args.questions, args.rounds = 8, 1
    os.environ["TEST_KEY"] = KEY
    rows = []
    for scenario in scenarios(args.rate):
        for kind in args.kind or KINDS:
            rows.append(measure(scenario, kind, args.questions, args.answers, args.rounds))
            print(render(rows[-1:]).splitlines()[1] if len(rows) > 1 else render(rows), flush=True)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
