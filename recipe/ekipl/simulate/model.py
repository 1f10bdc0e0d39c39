"""A training of some steps as discrete events (simpy), around the very rates, backoff, breaker and retries of a run.

All groups of a step start together. A group asks every expert at once; a request waits for its expert's lane (bounds/lane.py, on
the simulated clock), takes a drawn latency, and fails with a drawn chance. A group ends when its policy answers and all
experts are there, or when it stops waiting. The step ends with its last group and `rest_s`.
"""

import random
from collections.abc import Generator
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any

import simpy

from ekipl_rollout.bounds.lane import Lane
from ekipl_rollout.errors import ExpertError, Failure
from ekipl_rollout.experts.retry import wait_before_retry
from ekipl_rollout.settings import BoundsSettings, ExpertSettings
from recipe.ekipl.simulate.world import World

Events = Generator[simpy.Event, Any, Any]
NO_LIMIT = 1_000_000
HIDDEN = 0.02
"""What is exposed or lost below this share is no bottleneck."""


@dataclass(frozen=True)
class Step:
    """What one simulated step came to."""

    seconds: float
    exposed_s: float
    """The step is that much longer than with the policy alone."""

    asked: int
    answered: int
    """Requests whose answers came while their group waited."""

    sent: int
    """Requests that went out, retries among them."""


class _Expert:
    """One expert's lane and those who queue for it."""

    def __init__(self, env: simpy.Environment, world: World, number: int, rng: random.Random):
        settings = ExpertSettings(
            name=f"expert{number}",
            kind="openai",
            model="simulated",
            base_url="http://127.0.0.1",
            requests_per_minute=world.requests_per_minute,
            max_in_flight=world.max_in_flight,
        )
        self._env, self._world, self._rng = env, world, rng
        self._lane, self._head, self._freed = Lane(settings, BoundsSettings()), simpy.Resource(env), env.event()
        self.sent = 0

    def answer(self, group: dict[str, Any]) -> Events:
        """One question with its retries. Returns True when its answers came."""
        failed, deadline = 0, group["start"] + self._world.timeout_s
        while True:
            out = yield from self._admitted(group)
            if out is None:
                return False
            yield self._env.timeout(self._world.draw_latency(self._rng))
            error = (
                ExpertError(Failure.SERVER_ERROR, "drawn", 500) if self._rng.random() < self._world.failures else None
            )
            self._lane.end(out, 0, error, self._env.now)
            self._freed.succeed()
            self._freed = self._env.event()
            if error is None:
                return True
            failed += 1
            wait = wait_before_retry(self._world.retry, error, failed, deadline - self._env.now, self._rng)
            if wait is None:
                return False
            yield self._env.timeout(wait)

    def _admitted(self, group: dict[str, Any]) -> Events:
        """Queues for the lane; None when the group went on meanwhile, or the expert rests."""
        with self._head.request() as turn:
            yield turn
            while not group["over"] and self._lane.refusal(0, self._env.now) is None:
                wait = self._lane.wait(0, self._env.now)
                if wait == 0:
                    self.sent += 1
                    return self._lane.send(self.sent, 0, self._env.now)
                yield self._freed if wait is None else self._env.timeout(wait + 1e-9)
        return None


def _group(env: simpy.Environment, world: World, policy_s: float, experts: list[_Expert]) -> Events:
    """Returns (seconds exposed, answered)."""
    group = {"start": env.now, "over": False}
    asked = [env.process(expert.answer(group)) for expert in experts]
    yield env.timeout(policy_s)
    policy_done = env.now
    patience = max(group["start"] + world.timeout_s - env.now, 0.0)
    if world.ask.wait_s is not None:
        patience = min(patience, world.ask.wait_s)
    yield simpy.AllOf(env, asked) | env.timeout(patience)
    group["over"] = True
    return env.now - policy_done, sum(bool(process.triggered and process.value) for process in asked)


def simulate(world: World, steps: int = 3, seed: int = 0) -> list[Step]:
    """`steps` steps in a row: what is late in one is still out in the next."""
    env, rng, found = simpy.Environment(), random.Random(seed), []
    experts = [_Expert(env, world, number, rng) for number in range(1, world.experts + 1)]

    def training() -> Events:
        for _ in range(steps):
            start, sent, ends = env.now, sum(e.sent for e in experts), world.draw_rollouts(rng)
            groups = [env.process(_group(env, world, end, experts)) for end in ends]
            ended = yield simpy.AllOf(env, groups)
            exposed = env.now - start - max(ends)
            yield env.timeout(world.rest_s)
            answered = sum(value[1] for value in ended.values())
            asked = world.prompts * world.experts
            found.append(Step(env.now - start, exposed, asked, answered, sum(e.sent for e in experts) - sent))

    env.run(until=env.process(training()))
    return found


@dataclass(frozen=True)
class Outlook:
    """Some simulated steps in numbers."""

    step_s: float
    exposed_s: float
    answered: float
    """Share of the questions whose answers came in time."""

    dollars: float
    """A step."""

    bottleneck: str
    """The one setting without which least would be exposed and lost; `rollout` when hardly anything is."""


def look(world: World, steps: int = 3, seed: int = 0) -> Outlook:
    """Simulates, and again without each of the limits."""
    done, bottleneck = simulate(world, steps, seed), "rollout"
    if _harm(done) > HIDDEN:
        lifted = {
            "requests_per_minute": replace(world, requests_per_minute=None),
            "max_in_flight": replace(world, max_in_flight=NO_LIMIT),
            "both limits": replace(world, requests_per_minute=None, max_in_flight=NO_LIMIT),
            "failures": replace(world, failures=0.0),
            "latency": replace(world, latencies=(), latency_s=1e-6, latency_p95_s=1e-6),
        }
        harm = {name: _harm(simulate(other, steps, seed)) for name, other in lifted.items()}
        bottleneck = next(name for name, value in harm.items() if value <= min(harm.values()) + HIDDEN)
    return Outlook(
        mean(s.seconds for s in done),
        mean(s.exposed_s for s in done),
        sum(s.answered for s in done) / sum(s.asked for s in done),
        world.dollars_per_request * mean(s.sent for s in done),
        bottleneck,
    )


def _harm(steps: list[Step]) -> float:
    """What the experts cost as a share: of the steps' time, exposed, and of the answers, lost. A group that gives up waiting
    turns one into the other."""
    exposed = sum(s.exposed_s for s in steps) / sum(s.seconds for s in steps)
    return exposed + 1 - sum(s.answered for s in steps) / sum(s.asked for s in steps)
