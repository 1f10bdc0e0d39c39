"""One expert's rates, requests in flight and breaker, put together. The caller's clock, no asyncio, no money."""

import logging
from collections import Counter
from dataclasses import dataclass
from typing import Any

from ekipl_rollout.bounds.backoff import Backoff
from ekipl_rollout.bounds.breaker import Breaker, State
from ekipl_rollout.bounds.rates import Rate, Taken
from ekipl_rollout.errors import ExpertError, Failure
from ekipl_rollout.settings import BoundsSettings, ExpertSettings

logger = logging.getLogger(__name__)

BUSY_STATUS = frozenset({503, 529})
LONGEST_QUEUE_S = 120.0
"""A provider that asks for a longer pause (Retry-After) is not queued for: the expert rests."""

LONGEST_REST_S = 86_400.0
"""Whatever Retry-After says."""


@dataclass(frozen=True)
class Out:
    """A request that is out."""

    id: int
    sent_at: float
    request: Taken
    tokens: Taken


class Lane:
    """What one expert's provider allows at the moment."""

    def __init__(self, expert: ExpertSettings, settings: BoundsSettings):
        self.name = expert.name
        self.requests = Rate(expert.requests_per_minute, settings.burst_s)
        # no shorter window: reservations are several times what is used, and would fill it for nothing
        self.tokens = Rate(expert.tokens_per_minute)
        self.backoff = Backoff(expert.max_in_flight)
        self.breaker = Breaker(settings.failures_to_rest, settings.rest_s, settings.longest_rest_s)
        self.in_flight = 0
        self.counts: Counter[str] = Counter()

    def refusal(self, tokens: int, now: float) -> ExpertError | None:
        """Why a request cannot go, where no waiting changes that."""
        if not self.breaker.admits(now):
            self.counts["refused_resting"] += 1
            why = self.breaker.why.value if self.breaker.why else ""
            rests = self.breaker.rests_for(now)
            return ExpertError(Failure.RESTING, f"{self.name} rests for another {rests:.0f} s: {why}")
        if self.tokens.wait(tokens, now) == float("inf"):
            text = f"{tokens} tokens in one request are more than tokens_per_minute of {self.name} allows"
            return ExpertError(Failure.BAD_REQUEST, text)
        return None

    def wait(self, tokens: int, now: float) -> float | None:
        """Seconds until a request may go; None when another one has to end first."""
        room = self.backoff.wait(self.in_flight, now)
        return None if room is None else max(room, self.requests.wait(1, now), self.tokens.wait(tokens, now))

    def send(self, request: int, tokens: int, now: float) -> Out:
        """It goes; call it when `wait` said 0."""
        self.breaker.sent(request, now)
        self.in_flight += 1
        self.counts["requests"] += 1
        return Out(request, now, self.requests.take(1, now), self.tokens.take(tokens, now))

    def unsend(self, out: Out, now: float) -> None:
        """It never went out after all."""
        self.requests.correct(out.request, 0, now)
        self.tokens.correct(out.tokens, 0, now)
        self.breaker.forget_probe(out.id)
        self.in_flight -= 1
        self.counts["requests"] -= 1

    def lose(self, out: Out) -> None:
        """Nobody knows how it ended; it may have used everything."""
        self.breaker.forget_probe(out.id)
        self.in_flight -= 1
        self.counts["forfeited"] += 1

    def end(self, out: Out, tokens: int, error: ExpertError | None, now: float) -> None:
        """It used `tokens`; `error` is None when it was answered."""
        self.tokens.correct(out.tokens, tokens, now)
        self.in_flight -= 1
        self.counts["tokens"] += tokens
        was = self.breaker.state(now)
        self.breaker.ended(out.id, out.sent_at, now, error.failure if error else None)
        if error is None:
            self.counts["answered"] += 1
            self.backoff.succeeded(self.in_flight)
        else:
            self.counts[f"failed_{error.failure.value}"] += 1
            self._slow_down(out, error, now)
        if was is not State.OPEN and self.breaker.state(now) is State.OPEN:
            logger.warning("expert %s rests for %.0f s: %s", self.name, self.breaker.rests_for(now), error)

    def _slow_down(self, out: Out, error: ExpertError, now: float) -> None:
        if error.failure is not Failure.RATE_LIMITED and error.status not in BUSY_STATUS:
            return
        named = error.retry_after_s
        pause = None if named is None else min(max(named, 0.0), LONGEST_REST_S)
        self.backoff.busy(out.sent_at, now, pause)
        if self.backoff.paused_until - now > LONGEST_QUEUE_S:
            self.breaker.rest_until(self.backoff.paused_until, error.failure)

    def snapshot(self, now: float) -> dict[str, Any]:
        return {
            "in_flight": self.in_flight,
            "in_flight_limit": int(self.backoff.limit),
            "paused_s": max(self.backoff.paused_until - now, 0.0),
            "breaker": self.breaker.state(now).value,
            "why": self.breaker.why.value if self.breaker.why else None,
            "counts": dict(self.counts),
        }
