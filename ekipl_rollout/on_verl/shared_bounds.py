"""One governor for all workers of a run, on all nodes: a named Ray actor, and the bounds that each worker sees.

The actor is a desk (bounds/desk.py) on the node of the task runner. A worker sends what came up while its last call was under
way in one call, and has another one open as long as it waits for permits or holds some.
"""

import asyncio
import contextlib
import hashlib
import itertools
import logging
import time
import uuid
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ekipl_rollout.bounds.base import Permit
from ekipl_rollout.bounds.desk import LEASE_S, Admit, Desk, Done, Wish, Withdraw
from ekipl_rollout.errors import EkiplError, ExpertError, Failure
from ekipl_rollout.record.key import OFFLINE
from ekipl_rollout.settings import EkiplSettings

logger = logging.getLogger(__name__)

RECONNECT_S, RETRY_S = 30.0, 0.5
"""How long workers call an actor that is being restarted before they go on without experts, and how often."""

LOOK_S = 5.0
"""How long a step waits for its metrics."""


class SharedBounds:
    """What a worker sees: `Bounds`. Belongs to one event loop."""

    def __init__(self, server: Any, lease_s: float = LEASE_S):
        self._server, self._lease_s = server, lease_s
        self._name = uuid.uuid4().hex
        self._tickets = itertools.count()
        self._wishes: list[Wish] = []
        self._waiting: dict[int, tuple[Admit, asyncio.Future[Permit]]] = {}
        self._open: set[int] = set()
        """Tickets without news, also those that nobody waits for any more: their permits must be given back."""
        self._held: set[int] = set()
        self._sender: asyncio.Task[None] | None = None
        self._listener: asyncio.Task[None] | None = None
        self._away_since: float | None = None
        self._over = ""
        """Why nothing is admitted any more."""

    async def admit(self, expert: str, *, tokens: int, dollars: float, step: int | None = None) -> Permit:
        if self._over:
            raise ExpertError(Failure.RESTING, self._over)
        wish = Admit(next(self._tickets), expert, tokens, dollars, step)
        answer = asyncio.get_running_loop().create_future()
        self._waiting[wish.ticket] = (wish, answer)
        self._open.add(wish.ticket)
        self._send(wish)
        try:
            return await answer
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                self._never_sent(answer.result())
            elif self._waiting.pop(wish.ticket, None):
                self._send(Withdraw(wish.ticket))
            raise

    async def settle(
        self, permit: Permit, *, tokens: int = 0, dollars: float = 0.0, error: ExpertError | None = None
    ) -> None:
        self._held.discard(permit.id)
        self._send(Done(permit, tokens, dollars, error))

    async def close(self) -> None:
        """Refuses whoever waits, hands over what was settled, and says goodbye."""
        self._refuse_all("the run is ending")
        while self._sender is not None:
            await self._sender
        if self._listener is not None:
            self._listener.cancel()
        with contextlib.suppress(ray.exceptions.RayError):
            await self._server.bye.remote(self._name)

    def _never_sent(self, permit: Permit) -> None:
        self._held.discard(permit.id)
        self._send(Done(permit, 0, 0.0, ExpertError(Failure.LATE, "never sent")))

    def _send(self, *wishes: Wish) -> None:
        self._wishes += wishes
        if self._sender is None and wishes:
            self._sender = asyncio.get_running_loop().create_task(self._send_all())

    async def _send_all(self) -> None:
        try:
            while self._wishes:
                await asyncio.sleep(0)  # what comes up in the same turn of the loop goes in the same call
                wishes, self._wishes = self._wishes, []
                while not await self._call("put", wishes):  # nothing that was settled may get lost
                    wishes = [*(wish for wish in wishes if not isinstance(wish, Admit)), *self._unanswered()]
                if self._listener is None:
                    self._listener = asyncio.get_running_loop().create_task(self._listen())
        finally:
            self._sender = None

    async def _listen(self) -> None:
        """Also says that this worker lives, as long as it holds permits."""
        try:
            while self._open or self._held:
                heard = await self._call("news", self._lease_s / 4)
                if heard is None:  # the actor does not know us: it was restarted, or we were silent for too long
                    self._open = set(self._waiting)
                    self._send(*self._unanswered())
                for ticket, answer in heard or ():
                    self._hear(ticket, answer)
        finally:
            self._listener = None

    def _hear(self, ticket: int, answer: Permit | ExpertError) -> None:
        self._open.discard(ticket)
        _, waiting = self._waiting.pop(ticket, (None, None))
        if waiting is not None and waiting.done():
            waiting = None
        if isinstance(answer, Permit):
            if waiting is not None:
                self._held.add(answer.id)
                waiting.set_result(answer)
            elif answer.id not in self._held:
                self._never_sent(answer)
        elif waiting is not None:
            waiting.set_exception(answer)

    def _unanswered(self) -> list[Wish]:
        return [wish for wish, _ in self._waiting.values()]

    async def _call(self, method: str, argument: Any) -> Any:
        """One call of the actor; None when that failed and may be tried again. An actor that stays away is a rest for
        all experts: the run goes on without them."""
        try:
            answer = await getattr(self._server, method).remote(self._name, argument)
            self._away_since = None
            return answer
        except ray.exceptions.RayError as error:
            now = time.monotonic()
            self._away_since = self._away_since or now
            if now - self._away_since < RECONNECT_S and not isinstance(error, ray.exceptions.ActorDiedError):
                await asyncio.sleep(RETRY_S)
                return None
            self._go_on_without(error)
            return True if method == "put" else None

    def _go_on_without(self, error: Exception) -> None:
        if not self._over:
            logger.error("the bounds of the run are gone, so no expert is asked any more: %s", error)
        self._held.clear()
        self._open.clear()
        self._refuse_all("the bounds of the run are gone")

    def _refuse_all(self, why: str) -> None:
        self._over = self._over or why
        waiting, self._waiting = self._waiting, {}
        for _, answer in waiting.values():
            if not answer.done():
                answer.set_exception(ExpertError(Failure.RESTING, self._over))


def needs_bounds(settings: EkiplSettings) -> bool:
    """False where nobody can be asked."""
    return settings.record.mode != "replay" and any(expert.kind != OFFLINE for expert in settings.experts)


def actor_name(settings: EkiplSettings) -> str:
    """The run folder decides: two runs on one cluster never share bounds."""
    folder = str(Path(settings.run_dir or ".").resolve())
    return "ekipl-bounds-" + hashlib.sha256(folder.encode()).hexdigest()[:16]


def start_bounds(settings: EkiplSettings) -> Any:
    """The actor, on this node, where the ledger lies. It ends with the process that keeps the handle.

    Raises EkiplError when its ledger cannot be used.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = (
        ray.remote(Desk)
        .options(name=actor_name(settings), num_cpus=0, max_concurrency=1000, max_restarts=3, scheduling_strategy=here)
        .remote(settings)
    )
    try:
        ray.get(actor.snapshot.remote())
    except ray.exceptions.RayActorError as error:
        raise EkiplError(f"the bounds of the run cannot be started: {error}") from None
    return actor


def connect_bounds(settings: EkiplSettings) -> SharedBounds:
    """The bounds of the run that this worker belongs to."""
    return SharedBounds(ray.get_actor(actor_name(settings)))


def look_at_bounds(settings: EkiplSettings, step: int) -> dict[str, Any] | None:
    """A snapshot for the metrics; None where there are no bounds, or they do not answer: a step never waits for it."""
    try:
        return ray.get(ray.get_actor(actor_name(settings)).snapshot.remote(step), timeout=LOOK_S)
    except (ValueError, ray.exceptions.RayError):
        return None
