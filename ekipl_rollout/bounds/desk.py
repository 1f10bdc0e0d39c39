"""The desk: one governor for workers in other processes, who send what they want and hear what became of it.

A worker sends its wishes in batches and hears of its permits through one call that is held open until there is news. Nobody
polls, and a thousand requests that wait cost two calls of each worker.

A worker that is not heard of for LEASE_S while it holds permits is taken for dead: its reservations are charged in full,
because its requests may have been answered, and its places go to others. A worker that holds nothing is not watched.
"""

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass, field
from typing import Any

from ekipl_rollout.bounds.base import Permit
from ekipl_rollout.bounds.governor import Governor, open_governor
from ekipl_rollout.errors import ExpertError, Failure
from ekipl_rollout.settings import EkiplSettings

logger = logging.getLogger(__name__)

LEASE_S = 60.0
"""Far beyond what blocks a worker's event loop; far below an epoch."""


@dataclass(frozen=True)
class Admit:
    """A worker wants to send a request."""

    ticket: int
    expert: str
    tokens: int
    dollars: float
    step: int | None


@dataclass(frozen=True)
class Withdraw:
    """It does not want that any more."""

    ticket: int


@dataclass(frozen=True)
class Done:
    """A request has ended."""

    permit: Permit
    tokens: int
    dollars: float
    error: ExpertError | None


Wish = Admit | Withdraw | Done
News = tuple[int, Permit | ExpertError]


@dataclass
class _Worker:
    """A worker, as the actor sees it."""

    seen: float
    asking: dict[int, "asyncio.Task[None]"] = field(default_factory=dict)
    held: dict[int, News] = field(default_factory=dict)
    """Permits that it has not settled, by id, with their tickets."""

    news: list[News] = field(default_factory=list)
    has_news: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, ticket: int, answer: Permit | ExpertError) -> None:
        self.news.append((ticket, answer))
        self.has_news.set()


class Desk:
    """A governor that serves workers in other processes. Its methods are an actor's; without Ray it is an ordinary object."""

    def __init__(self, settings: EkiplSettings, lease_s: float = LEASE_S):
        self._governor: Governor = open_governor(settings)
        self._lease_s = lease_s
        self._workers: dict[str, _Worker] = {}
        self._watch: asyncio.Task[None] | None = None

    async def put(self, name: str, wishes: list[Wish]) -> bool:
        """Takes what a worker wants. What was taken before is known by its ticket or permit and changes nothing."""
        worker = self._worker(name)
        for wish in wishes:
            if isinstance(wish, Admit):
                self._take(worker, wish)
            elif isinstance(wish, Withdraw):
                if task := worker.asking.pop(wish.ticket, None):
                    task.cancel()
                    worker.tell(wish.ticket, ExpertError(Failure.LATE, "withdrawn"))
            else:
                worker.held.pop(wish.permit.id, None)
                await self._governor.settle(wish.permit, tokens=wish.tokens, dollars=wish.dollars, error=wish.error)
        return True

    async def news(self, name: str, wait_s: float) -> list[News] | None:
        """What became of a worker's wishes; waits up to `wait_s` for the first. None: nothing is known of that worker,
        which was silent for too long, or is known to an earlier life of this actor."""
        if name not in self._workers:
            return None
        worker = self._worker(name)
        if not worker.news:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(worker.has_news.wait(), wait_s)
        worker.has_news.clear()
        news, worker.news = worker.news, []
        return news

    async def bye(self, name: str) -> None:
        """A worker ends; what it holds, nobody will settle."""
        if name in self._workers:
            await self._lose(name)

    async def snapshot(self, step: int | None = None) -> dict[str, Any]:
        return self._governor.snapshot(step)

    async def close(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
        for name in list(self._workers):
            await self._lose(name)
        await self._governor.close()

    def _take(self, worker: _Worker, wish: Admit) -> None:
        if wish.ticket in worker.asking:
            return
        for ticket, permit in worker.held.values():
            if ticket == wish.ticket:  # granted, but the news were lost on their way
                worker.tell(ticket, permit)
                return
        worker.asking[wish.ticket] = asyncio.create_task(self._admit(worker, wish))

    async def _admit(self, worker: _Worker, wish: Admit) -> None:
        try:
            permit = await self._governor.admit(wish.expert, tokens=wish.tokens, dollars=wish.dollars, step=wish.step)
            worker.held[permit.id] = (wish.ticket, permit)
            worker.tell(wish.ticket, permit)
        except ExpertError as error:
            worker.tell(wish.ticket, error)
        finally:
            worker.asking.pop(wish.ticket, None)

    def _worker(self, name: str) -> _Worker:
        if self._watch is None:
            self._watch = asyncio.create_task(self._watch_leases())
        worker = self._workers.setdefault(name, _Worker(seen=0.0))
        worker.seen = time.monotonic()
        return worker

    async def _watch_leases(self) -> None:
        while True:
            await asyncio.sleep(self._lease_s / 4)
            now = time.monotonic()
            for name, worker in list(self._workers.items()):
                if now - worker.seen > self._lease_s:
                    if worker.held:
                        logger.warning("a worker is gone; its %d requests are charged in full", len(worker.held))
                    await self._lose(name)

    async def _lose(self, name: str) -> None:
        worker = self._workers.pop(name)
        for task in list(worker.asking.values()):
            task.cancel()
        await asyncio.gather(*worker.asking.values(), return_exceptions=True)
        for permit in worker.held:
            self._governor.forfeit(permit)
