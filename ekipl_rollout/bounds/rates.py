"""Requests and tokens per minute: sliding windows, exact over any minute. No clock of its own, no asyncio.

A token bucket of one minute's size lets two minutes' worth through within a minute. Here what was taken in the last
sixty seconds is remembered, and a second, shorter window keeps a minute's worth from going out in its first second.
"""

from collections import deque
from dataclasses import dataclass

MINUTE = 60.0


@dataclass
class Taken:
    """What one request took. `amount` shrinks when the request turns out to need less."""

    at: float
    amount: int  # whole numbers, so that what is added and taken away again leaves nothing behind


class Window:
    """At most `limit` in any `seconds`."""

    def __init__(self, limit: float, seconds: float):
        self.limit, self.seconds = limit, seconds
        self._taken: deque[Taken] = deque()
        self._total = 0

    def wait(self, amount: int, now: float) -> float:
        """Seconds until `amount` fits; 0 when it does now, infinity when it never will."""
        self._forget(now)
        if amount > self.limit:
            return float("inf")
        left = self._total
        if left + amount <= self.limit:
            return 0.0
        for taken in self._taken:
            left -= taken.amount
            if left + amount <= self.limit:
                return max(taken.at + self.seconds - now, 0.0)
        return 0.0

    def take(self, taken: Taken) -> None:
        self._taken.append(taken)
        self._total += taken.amount

    def give_back(self, taken: Taken, amount: int, now: float) -> None:
        """`taken` needed only `amount`; call before `taken.amount` is changed."""
        self._forget(now)
        if self._taken and taken.at >= self._taken[0].at:
            self._total -= taken.amount - amount

    def _forget(self, now: float) -> None:
        while self._taken and self._taken[0].at <= now - self.seconds:
            self._total -= self._taken.popleft().amount


class Rate:
    """At most `per_minute` in any minute, and at most `burst_s` seconds' worth (but one) at once. None is no limit."""

    def __init__(self, per_minute: float | None, burst_s: float = MINUTE):
        self._windows: list[Window] = []
        if per_minute is not None:
            self._windows.append(Window(per_minute, MINUTE))
            if burst_s < MINUTE:
                self._windows.append(Window(max(per_minute * burst_s / MINUTE, 1.0), burst_s))

    def wait(self, amount: int, now: float) -> float:
        return max((window.wait(amount, now) for window in self._windows), default=0.0)

    def take(self, amount: int, now: float) -> Taken:
        """Takes without asking: call it when `wait` said 0."""
        taken = Taken(now, amount)
        for window in self._windows:
            window.take(taken)
        return taken

    def correct(self, taken: Taken, amount: int, now: float) -> None:
        """The request took `amount` in truth. More than was reserved counts too: it was used."""
        for window in self._windows:
            window.give_back(taken, amount, now)
        taken.amount = amount
