"""Nothing more goes out for a question that its group has given up.

A request that is out when its group goes on is left alone: it is paid for, and its answer is recorded. Those that still
queue, and retries, are not sent. Only the bounds see every request before it goes, so it is refused here.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from ekipl_rollout.bounds.base import Bounds, Permit
from ekipl_rollout.errors import ExpertError, Failure

_given_up: ContextVar[asyncio.Event | None] = ContextVar("given_up", default=None)


@contextlib.contextmanager
def until(given_up: asyncio.Event) -> Iterator[None]:
    """Tasks that are started inside send nothing more once `given_up` is set."""
    token = _given_up.set(given_up)
    try:
        yield
    finally:
        _given_up.reset(token)


class UntilGivenUp:
    """Bounds in front of other bounds."""

    def __init__(self, bounds: Bounds):
        self._bounds = bounds
        self.settle = bounds.settle

    async def admit(self, expert: str, *, tokens: int, dollars: float, step: int | None = None) -> Permit:
        given_up = _given_up.get()
        if given_up is None:
            return await self._bounds.admit(expert, tokens=tokens, dollars=dollars, step=step)
        if given_up.is_set():
            raise _late()
        admitted = asyncio.ensure_future(self._bounds.admit(expert, tokens=tokens, dollars=dollars, step=step))
        gone = asyncio.ensure_future(given_up.wait())
        try:
            await asyncio.wait({admitted, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not admitted.done():
                raise _late()
            return admitted.result()
        except asyncio.CancelledError:
            if admitted.done() and admitted.exception() is None:  # in the same instant
                await self._bounds.settle(admitted.result(), error=_late())
            raise
        finally:
            gone.cancel()
            if not admitted.done():
                admitted.cancel()  # bounds give back a permit that nobody waits for any more


def _late() -> ExpertError:
    return ExpertError(Failure.LATE, "the group has gone on; nothing more is sent for it")
