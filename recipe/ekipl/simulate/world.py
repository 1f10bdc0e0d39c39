"""What a simulation assumes."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from ekipl_rollout.settings import AskSettings, RetrySettings

P95 = 1.6448536269514722  # of the standard normal distribution


@dataclass(frozen=True)
class World:
    """One run as the model sees it. Times are seconds."""

    prompts: int
    """Rows of a step."""

    experts: int = 2
    """M, all alike."""

    latency_s: float = 2.0
    """Median of the time from a request to its answers, N in one request."""

    latency_p95_s: float = 5.0
    latencies: tuple[float, ...] = ()
    """Measured ones, drawn from instead of a log-normal distribution."""

    failures: float = 0.0
    """Share of requests that fail with a passing error and are sent again."""

    requests_per_minute: float | None = None
    """Limit of each expert."""

    max_in_flight: int = 16
    dollars_per_request: float = 0.0
    timeout_s: float = 60.0
    """ekipl.expert_timeout_s."""

    ask: AskSettings = field(default_factory=AskSettings)
    retry: RetrySettings = field(default_factory=RetrySettings)

    rollout_s: float = 30.0
    """When the last policy answer of a step is judged."""

    rollout_spread: float = 0.5
    """The first prompt's group is done at (1 - spread) of that; evenly in between."""

    rollouts: tuple[tuple[float, ...], ...] = ()
    """Measured ends of the groups of whole steps, one of which is drawn instead: how fast the machine was is the step's, and
    the last group of a step would end too late if each were drawn by itself."""

    rest_s: float = 30.0
    """Everything of a step that is not the rollout: log-probs, update, weights."""

    def problems(self) -> Iterator[str]:
        for name in ("prompts", "experts", "max_in_flight"):
            if getattr(self, name) < 1:
                yield f"{name}={getattr(self, name)} must be 1 or more."
        for name in ("latency_s", "rollout_s", "timeout_s"):
            if getattr(self, name) <= 0:
                yield f"{name}={getattr(self, name)} must be more than 0 seconds."
        if self.latency_p95_s < self.latency_s:
            yield f"latency_p95_s={self.latency_p95_s} is less than the median latency_s={self.latency_s}."
        if self.requests_per_minute is not None and self.requests_per_minute < 1:
            yield f"requests_per_minute={self.requests_per_minute} must be 1 or more."
        if not (0 <= self.failures < 1 and 0 <= self.rollout_spread <= 1):
            yield f"failures={self.failures} and rollout_spread={self.rollout_spread} are shares, from 0 to 1."

    def draw_latency(self, rng: random.Random) -> float:
        if self.latencies:
            return rng.choice(self.latencies)
        return rng.lognormvariate(math.log(self.latency_s), math.log(self.latency_p95_s / self.latency_s) / P95)

    def draw_rollouts(self, rng: random.Random) -> list[float]:
        """When each prompt's policy answers are there."""
        if self.rollouts:
            return list(rng.choice(self.rollouts))
        first = self.rollout_s * (1 - self.rollout_spread)
        return [first + (self.rollout_s - first) * (i + 1) / self.prompts for i in range(self.prompts)]
