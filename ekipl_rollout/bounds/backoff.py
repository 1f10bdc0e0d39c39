"""Requests in flight: fewer while the provider says that it is busy. No clock of its own, no asyncio.

Additive increase, multiplicative decrease, as TCP does it (Chiu and Jain, 1989): a provider's real limit is not known
beforehand, moves, and is shared with others. `Retry-After` holds for everybody, not only for the request that was told.
"""

FACTOR = 0.5
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0


class Backoff:
    """How many requests to one expert may be out, and when the next may go."""

    def __init__(self, ceiling: int):
        self.ceiling = ceiling
        self.limit = float(ceiling)
        self.paused_until = float("-inf")
        self._reduced_at = float("-inf")
        self._rounds = 0
        """Busy answers in a row, those of requests that were out together counted once."""

    def wait(self, in_flight: int, now: float) -> float | None:
        """Seconds until the next request may go; None while it has to wait for one that is out."""
        if in_flight >= int(self.limit):
            return None
        return max(self.paused_until - now, 0.0)

    def succeeded(self, in_flight: int) -> None:
        """One more request after about `limit` successes, but only where the limit was felt."""
        self._rounds = 0
        if in_flight + 1 >= int(self.limit):
            self.limit = min(self.limit + 1.0 / self.limit, float(self.ceiling))

    def busy(self, sent_at: float, now: float, retry_after_s: float | None) -> None:
        """429, 503 or 529. Requests that were out together are told together: the first of them halves the limit."""
        if sent_at >= self._reduced_at:
            self.limit = max(self.limit * FACTOR, 1.0)
            self._reduced_at = now
            self._rounds += 1
        pause = retry_after_s
        if pause is None:
            pause = min(FIRST_PAUSE_S * 2.0 ** min(self._rounds - 1, 10), LONGEST_PAUSE_S)
        self.paused_until = max(self.paused_until, now + pause)
