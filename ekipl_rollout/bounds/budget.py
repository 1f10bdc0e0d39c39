"""Money: reserved before a request, settled after it, never more than was allowed. No clock, no asyncio, no file.

    spent     what requests that ended have cost, and the whole reservation of those whose end nobody knows
    reserved  the most that the requests which are out now can cost
    limit     spent + reserved <= limit at any time, for the run, for each expert and for each training step

Amounts are whole nano-dollars: a price of $0.15 a million tokens is 150 of them a token, and sums are exact.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

NANO = 1_000_000_000


def nano(dollars: float) -> int:
    """Whole nano-dollars, rounded up: what is reserved and charged is never less than what was meant."""
    return math.ceil(round(dollars * NANO, 3))


Verdict = Literal["fits", "wait", "never"]


@dataclass(frozen=True)
class Reservation:
    """Money that a request which is out may cost."""

    expert: str
    step: int | None
    nano: int


class Budget:
    """Up to three limits, all of which must hold. None is no limit."""

    def __init__(
        self, run: int | None = None, step: int | None = None, experts: Mapping[str, int | None] | None = None
    ):
        self._run, self._step, self._experts = run, step, dict(experts or {})
        self._spent: Counter[tuple] = Counter()
        self._reserved: Counter[tuple] = Counter()
        self._out: dict[int, Reservation] = {}

    def ask(self, expert: str, step: int | None, amount: int) -> Verdict:
        """`wait`: not now, but possibly when requests that are out turn out cheaper than they could have been."""
        verdict: Verdict = "fits"
        for account, limit in self._limits(expert, step):
            if self._spent[account] + amount > limit:
                return "never"
            if self._spent[account] + self._reserved[account] + amount > limit:
                verdict = "wait"
        return verdict

    def reserve(self, request: int, expert: str, step: int | None, amount: int) -> None:
        """Call it when `ask` said `fits`."""
        self._out[request] = Reservation(expert, step, amount)
        for account in self._accounts(expert, step):
            self._reserved[account] += amount

    def settle(self, request: int, amount: int | None) -> Reservation | None:
        """The request has cost `amount`; None: nobody knows, and the whole reservation is charged. Returns what was
        charged, or None for a request that is not out (settled before, or out in an earlier life)."""
        reservation = self._out.pop(request, None)
        if reservation is None:
            return None
        for account in self._accounts(reservation.expert, reservation.step):
            self._reserved[account] -= reservation.nano
        charged = reservation.nano if amount is None else amount
        self.charge(reservation.expert, reservation.step, charged)
        return Reservation(reservation.expert, reservation.step, charged)

    def charge(self, expert: str, step: int | None, amount: int) -> None:
        """Money that is gone: an earlier attempt's, or a request's."""
        for account in self._accounts(expert, step):
            self._spent[account] += amount

    def reserved_for(self, request: int) -> int:
        return self._out[request].nano if request in self._out else 0

    def spent(self, expert: str | None = None, step: int | None = None) -> int:
        return self._spent[_account(expert, step)]

    def reserved(self) -> int:
        return self._reserved[_account()]

    def left(self, expert: str | None = None, step: int | None = None) -> int | None:
        """What could still be reserved of this one limit; None without a limit."""
        account = _account(expert, step)
        limit = self._experts.get(expert) if expert else self._step if step is not None else self._run
        return None if limit is None else max(limit - self._spent[account] - self._reserved[account], 0)

    def _limits(self, expert: str, step: int | None) -> list[tuple[tuple, int]]:
        pairs = [(_account(), self._run), (_account(expert), self._experts.get(expert))]
        if step is not None:
            pairs.append((_account(step=step), self._step))
        return [(account, limit) for account, limit in pairs if limit is not None]

    @staticmethod
    def _accounts(expert: str, step: int | None) -> list[tuple]:
        accounts = [_account(), _account(expert)]
        return accounts if step is None else [*accounts, _account(step=step)]


def _account(expert: str | None = None, step: int | None = None) -> tuple:
    return ("expert", expert) if expert else ("step", step) if step is not None else ("run",)
