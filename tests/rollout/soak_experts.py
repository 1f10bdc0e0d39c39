"""Many requests through several processes against a server that fails in a share of them.

    python -m tests.rollout.soak_experts                       # 20,000 requests, 20 % faults, 4 processes
    python -m tests.rollout.soak_experts --requests 2000 --processes 2

Checked: every answer of a healthy reply is delivered, once, to the question that it belongs to; every request is admitted
before it goes out and settled once; the budget (the run's own bounds, audited) is never exceeded, by our count and by the
server's; memory stays flat; no task and no socket is left. Prints a table and one JSON line; ends with 1 when something does not hold.
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from ekipl_rollout.bounds import Bounds, Permit
from ekipl_rollout.bounds.budget import nano
from ekipl_rollout.bounds.governor import Governor
from ekipl_rollout.errors import ExpertError, Failure
from ekipl_rollout.settings import BoundsSettings, RetrySettings
from tests.rollout.expert_helpers import KEY, KINDS, client, expert_settings, picture, question
from tests.rollout.fault_server import FaultServer

ANSWERS, AT_ONCE = 2, 12
PRICES = {"dollars_per_million_input": 2.5, "dollars_per_million_output": 10.0}
SERIAL = re.compile(r"<think> (\d+\.\d+) </think> <answer> (\S+) </answer>")


class Auditor:
    """Keeps its own account of the run's bounds, in whole billionths of a dollar, and raises what must not happen."""

    def __init__(self, bounds: Bounds):
        self._bounds = bounds
        self.out: dict[int, int] = {}
        """Reservation of each permit that is not settled."""

        self.spent = self.closest = self.refused = 0
        """`closest`: the most that was ever spent and reserved together."""

    async def admit(self, expert: str, *, tokens: int, dollars: float, step: int | None = None) -> Permit:
        try:
            permit = await self._bounds.admit(expert, tokens=tokens, dollars=dollars, step=step)
        except ExpertError as error:
            self.refused += error.failure is Failure.OVER_BUDGET
            raise
        assert permit.id not in self.out, "one permit for two requests"
        self.out[permit.id] = nano(dollars)
        self.closest = max(self.closest, self.spent + sum(self.out.values()))
        return permit

    async def settle(self, permit: Permit, *, tokens: int = 0, dollars: float = 0.0, error: ExpertError | None = None):
        await asyncio.sleep(0)  # as bounds behind a process border do
        reserved, used = self.out.pop(permit.id), nano(dollars)  # KeyError: settled twice
        assert used <= reserved, f"{used} used of {reserved}"
        self.spent += used
        await self._bounds.settle(permit, tokens=tokens, dollars=dollars, error=error)


@dataclass
class Work:
    """What one process saw."""

    requests: int = 0
    answers: int = 0
    retried: int = 0
    failed: Counter = field(default_factory=Counter)
    delivered: list[str] = field(default_factory=list)
    """Serial numbers of the server's replies."""

    wrong: list[str] = field(default_factory=list)
    spent: int = 0
    closest: int = 0
    refused: int = 0
    unsettled: int = 0
    tasks_left: int = 0
    sockets_left: int = 0
    memory_mb: list[float] = field(default_factory=list)
    """Resident, at each tenth of the way."""

    seconds: float = 0.0


def resident_mb() -> float:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def open_sockets() -> int:
    targets = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            targets.append(os.readlink(f"/proc/self/fd/{name}"))
    return sum(target.startswith("socket:") for target in targets)


async def work(url: str, name: str, requests: int, budget_nano: int) -> Work:
    """Asks until `requests` requests have gone out, or the budget is spent."""
    os.environ["TEST_KEY"] = KEY
    done, started = Work(), time.monotonic()
    sockets, tasks = open_sockets(), len(asyncio.all_tasks())
    retry = RetrySettings(attempts=3, first_wait_s=0.005)
    limits = {"retry": retry, "request_timeout_s": 30.0, "max_tokens": 60, "picture_tokens": 100, **PRICES}
    settings = [expert_settings(kind, url, f"mixed@{name}-{kind}", name=kind, **limits) for kind in KINDS]
    bounds = BoundsSettings(max_dollars=budget_nano / 1e9, failures_to_rest=100)  # chance alone should rest nobody
    budget = Auditor(Governor(bounds, settings))
    experts = [client(configured, budget) for configured in settings]
    numbers, shown = iter(range(10**9)), picture(size=(64, 64))

    async def keep_asking() -> None:
        while sum(expert.stats.requests for expert in experts) < requests and not budget.refused:
            number = next(numbers)
            tenth = 10 * sum(expert.stats.requests for expert in experts) // requests
            if tenth >= len(done.memory_mb):
                done.memory_mb.append(round(resident_mb(), 1))
            word = f"{name}/q{number}"
            await _ask_once(experts[number % len(experts)], question(word, shown), word, done)

    await asyncio.gather(*(keep_asking() for _ in range(AT_ONCE)))
    for expert in experts:
        await expert.close()
    await asyncio.sleep(0.1)
    done.requests = sum(expert.stats.requests for expert in experts)
    done.retried = sum(expert.stats.retried for expert in experts)
    done.spent, done.closest, done.refused, done.unsettled = (
        budget.spent,
        budget.closest,
        budget.refused,
        len(budget.out),
    )
    done.tasks_left, done.sockets_left = len(asyncio.all_tasks()) - tasks, open_sockets() - sockets
    done.memory_mb.append(round(resident_mb(), 1))
    done.seconds = time.monotonic() - started
    return done


async def _ask_once(expert, asked, word: str, done: Work) -> None:
    try:
        answers = await expert.answer(asked, ANSWERS)
    except ExpertError as error:
        done.failed[error.failure.value] += 1
        return
    done.answers += len(answers)
    if not 0 < len(answers) <= ANSWERS or [a.index for a in answers] != list(range(len(answers))):
        done.wrong.append(f"{word}: answers {[a.index for a in answers]}")
    for answer in answers:
        if found := SERIAL.fullmatch(answer.text):
            done.delivered.append(found[1])
            if found[2] != word:
                done.wrong.append(f"{word} got the answer of {found[2]}")


def judge(workers: list[Work], server: FaultServer, budget_nano: int) -> list[str]:
    """Everything that does not hold."""
    delivered = Counter(serial for worker in workers for serial in worker.delivered)
    said = {SERIAL.fullmatch(text)[1] for text in server.said}
    problems = [text for worker in workers for text in worker.wrong[:5]]
    problems += [f"{serial} was delivered {times} times" for serial, times in delivered.items() if times > 1][:5]
    if missing := said - set(delivered):
        problems.append(f"{len(missing)} answers of healthy replies were never delivered, e.g. {min(missing)}")
    for i, worker in enumerate(workers):
        if worker.closest > budget_nano or worker.spent > budget_nano:
            problems.append(f"process {i} exceeded its budget: {worker.closest} of {budget_nano}")
        if worker.unsettled or worker.tasks_left > 0 or worker.sockets_left > 0:
            problems.append(
                f"process {i} left {worker.unsettled} permits, {worker.tasks_left} tasks, {worker.sockets_left} sockets"
            )
        if (growth := worker.memory_mb[-1] - worker.memory_mb[len(worker.memory_mb) // 2]) > 8.0:
            problems.append(f"process {i} grew by {growth:.1f} MB in the second half")
    if (spent := sum(worker.spent for worker in workers)) < billed_nano(server):
        problems.append(f"the server billed {billed_nano(server)} where {spent} were settled")
    if sum(worker.requests for worker in workers) < sum(server.hits.values()):
        problems.append("the server saw more requests than were admitted")
    if server.connections:
        problems.append(f"{server.connections} connections are still open")
    return problems


def billed_nano(server: FaultServer) -> int:
    """Billionths of a dollar by the server's own account."""
    return int(server.billed["input"] * 2500 + server.billed["output"] * 10_000)


def work_of(process: subprocess.Popen) -> Work:
    out, err = process.communicate()
    if process.returncode:
        raise RuntimeError(err.decode()[-3000:])
    values = json.loads(out.splitlines()[-1])
    return Work(**{**values, "failed": Counter(values["failed"])})


def run(requests: int, processes: int, failures: float, dollars: float) -> dict[str, Any]:
    """The whole soak. Numbers, and `problems`."""
    share, budget_nano = -(-requests // processes), int(dollars / processes * 1e9)
    started = time.monotonic()
    with FaultServer(failures=failures) as server:
        command = [sys.executable, "-m", "tests.rollout.soak_experts", "--worker", server.url, "--requests", str(share)]
        running = [
            subprocess.Popen(
                [*command, "--name", f"w{i}", "--nano", str(budget_nano)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            for i in range(processes)
        ]
        workers = [work_of(process) for process in running]
        time.sleep(0.3)
        problems = judge(workers, server, budget_nano)
        faulted, seen, billed = server.faulted, sum(server.hits.values()), billed_nano(server)
    return {
        "requests": seen,
        "faulted": faulted,
        "processes": processes,
        "answers": sum(worker.answers for worker in workers),
        "retried": sum(worker.retried for worker in workers),
        "failed": dict(sum((worker.failed for worker in workers), Counter())),
        "unique_answers_checked": sum(len(worker.delivered) for worker in workers),
        "dollars_budget": dollars,
        "dollars_settled": round(sum(worker.spent for worker in workers) / 1e9, 6),
        "dollars_billed": round(billed / 1e9, 6),
        "budget_refusals": sum(worker.refused for worker in workers),
        "memory_mb": [worker.memory_mb for worker in workers],
        "seconds": round(time.monotonic() - started, 1),
        "requests_per_second": round(seen / max(worker.seconds for worker in workers), 1),
        "problems": problems,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000, help="in all (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=4, help="(default: %(default)s)")
    parser.add_argument(
        "--failures", type=float, default=0.2, help="share of requests that fail (default: %(default)s)"
    )
    parser.add_argument("--dollars", type=float, default=100.0, help="budget in all (default: %(default)s)")
    for name in ("--worker", "--name", "--nano"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(vars(asyncio.run(work(args.worker, args.name, args.requests, int(args.nano))))))
        return 0
    result = run(args.requests, args.processes, args.failures, args.dollars)
    for key, value in result.items():
        print(f"  {key:<24} {value}")
    print(json.dumps(result))
    return 1 if result["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
