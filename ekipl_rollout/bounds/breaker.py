"""A breaker for each expert: one that cannot answer is left alone, and probed now and then. No clock of its own.

closed -> open         a fatal failure, or several others in a row
open -> half open      after the rest; one request goes out as a probe
half open -> closed    the probe was answered
half open -> open      it was not; the rest doubles
"""

from enum import Enum

from ekipl_rollout.errors import Failure

FATAL = frozenset({Failure.UNAUTHORIZED, Failure.NOT_FOUND, Failure.OUT_OF_QUOTA})
"""A second request would fail likewise: wrong key, wrong model or address, empty account."""

COUNTED = frozenset({Failure.UNREACHABLE, Failure.TIMED_OUT, Failure.SERVER_ERROR, Failure.BAD_REPLY})
"""What happens to anybody once. 429 is not among them: a server that says it is busy is well."""


class State(str, Enum):
    CLOSED = "closed"
    HALF_OPEN = "half_open"
    OPEN = "open"


class Breaker:
    """May this expert be asked?"""

    def __init__(self, failures_to_rest: int = 5, rest_s: float = 30.0, longest_rest_s: float = 600.0):
        self._failures_to_rest, self._first_rest_s, self._longest_rest_s = failures_to_rest, rest_s, longest_rest_s
        self._rest_s = rest_s
        self._open_until: float | None = None
        self._probe: int | None = None
        self._failures = 0
        self._counted_at = float("-inf")
        self.why: Failure | None = None
        """The failure that opened it."""

    def state(self, now: float) -> State:
        if self._open_until is None:
            return State.CLOSED
        return State.OPEN if now < self._open_until and self._probe is None else State.HALF_OPEN

    def admits(self, now: float) -> bool:
        """False while it rests, and while a probe is out."""
        return self._open_until is None or (now >= self._open_until and self._probe is None)

    def rests_for(self, now: float) -> float:
        """Seconds until the next probe may go."""
        return max((self._open_until or now) - now, 0.0)

    def sent(self, request: int, now: float) -> None:
        """A request goes out; while half open it is the probe."""
        if self.state(now) is State.HALF_OPEN and self._probe is None:
            self._probe = request

    def ended(self, request: int, sent_at: float, now: float, failure: Failure | None) -> None:
        """A request ended; `failure` is None when it was answered."""
        probed = request == self._probe
        if probed:
            self._probe = None
        if failure in FATAL:
            self._trip(now, failure, double=probed)
        elif failure in COUNTED:
            if sent_at >= self._counted_at:  # those that were under way together count as one
                self._failures, self._counted_at = self._failures + 1, now
            if probed or (self._open_until is None and self._failures >= self._failures_to_rest):
                self._trip(now, failure, double=probed)
        elif self._open_until is None or probed:  # refused, blocked, busy: it is there, and it knows the key
            self._failures, self._open_until, self._rest_s, self.why = 0, None, self._first_rest_s, None

    def forget_probe(self, request: int) -> None:
        """A request never went out, or nobody knows its end: if it was the probe, the next one is."""
        if request == self._probe:
            self._probe = None

    def rest_until(self, until: float, why: Failure) -> None:
        """The provider itself named a time that is too far to queue for."""
        self._open_until, self.why = max(until, self._open_until or until), why

    def _trip(self, now: float, why: Failure, double: bool) -> None:
        if double:
            self._rest_s = min(self._rest_s * 2, self._longest_rest_s)
        self._open_until, self.why, self._failures = max(now + self._rest_s, self._open_until or 0.0), why, 0
