"""The one question that is asked before each request to an expert: may it go out now?"""

from dataclasses import dataclass
from typing import Protocol

from ekipl_rollout.errors import ExpertError


@dataclass(frozen=True)
class Permit:
    """One request may go out. It holds its reservation until it is settled."""

    id: int
    expert: str
    tokens: int
    """Input and output tokens that were reserved."""

    dollars: float
    """The most that this request can cost, reserved from the budget."""


class Bounds(Protocol):
    """Shared by all workers of a run. Both methods are safe to call from any number of tasks."""

    async def admit(self, expert: str, *, tokens: int, dollars: float, step: int | None = None) -> Permit:
        """Waits until one request of at most `tokens` tokens and `dollars` fits the rates and the requests in flight.

        Raises ExpertError(OVER_BUDGET) when the budget could not pay for it even if everything that is out cost nothing,
        and ExpertError(RESTING) while the expert's breaker is open; both at once, without waiting. It may be cancelled at
        any time: a permit that nobody waits for any more is given back.
        """
        ...

    async def settle(
        self, permit: Permit, *, tokens: int = 0, dollars: float = 0.0, error: ExpertError | None = None
    ) -> None:
        """Returns what was not used. `error` teaches back-off and breaker. Every permit is settled exactly once; a
        request whose outcome is unknown (cut off after it was sent) is settled with its whole reservation, and one that
        was never sent with ExpertError(LATE)."""
        ...


class Unbounded:
    """No bounds: for tools that ask a handful of questions."""

    async def admit(self, expert: str, *, tokens: int, dollars: float, step: int | None = None) -> Permit:
        return Permit(0, expert, tokens, dollars)

    async def settle(
        self, permit: Permit, *, tokens: int = 0, dollars: float = 0.0, error: ExpertError | None = None
    ) -> None:
        return None
