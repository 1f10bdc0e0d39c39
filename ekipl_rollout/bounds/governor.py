"""Rates, requests in flight, money and breakers of all experts, for everything that asks in one process.

lane.py and budget.py decide, this class waits. Nobody polls: a request that cannot go yet queues with its expert, and the
queue is looked at when a request ends, or when the clock says that the first in line fits. The line is ordered by training
step, so that asking ahead never delays the current step.
"""

import asyncio
import heapq
import itertools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ekipl_rollout.bounds.base import Permit
from ekipl_rollout.bounds.budget import NANO, Budget, nano
from ekipl_rollout.bounds.journal import Journal
from ekipl_rollout.bounds.lane import Lane, Out
from ekipl_rollout.bounds.ledger import Ledger, LedgerError, Reserve, Settle
from ekipl_rollout.errors import ExpertError, Failure
from ekipl_rollout.settings import BoundsSettings, EkiplSettings, ExpertSettings

logger = logging.getLogger(__name__)


@dataclass(order=True)
class _Waiter:
    """A request that wants to go out."""

    order: tuple[int, int]
    """(step, number): the current step goes before the next one's, else first come first served."""

    tokens: int = field(compare=False)
    nano: int = field(compare=False)
    step: int | None = field(compare=False)
    permit: asyncio.Future[Permit] = field(compare=False)


class _Queue:
    """One expert's lane, and who waits for it."""

    def __init__(self, lane: Lane):
        self.lane = lane
        self.waiting: list[_Waiter] = []
        self.timer: asyncio.TimerHandle | None = None
        self.raised = 1.0
        """What reservations are multiplied by: this provider has billed more than was reserved."""

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Governor:
    """Bounds for one process, and the heart of those that a run shares. All methods belong to one event loop."""

    def __init__(
        self,
        settings: BoundsSettings,
        experts: Sequence[ExpertSettings],
        ledger: Ledger | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._clock = clock
        self._journal = Journal(ledger) if ledger else None
        self._queues = {expert.name: _Queue(Lane(expert, settings)) for expert in experts}
        self._budget = Budget(
            _limit(settings.max_dollars),
            _limit(settings.max_dollars_per_step),
            {expert.name: _limit(expert.max_dollars) for expert in experts},
        )
        for expert, step, amount in ledger.spent() if ledger else ():
            self._budget.charge(expert, step, amount)
        self._out: dict[int, tuple[_Queue, Out, float]] = {}
        """Requests that are out, with the `raised` of their reservation."""
        # never used twice, also not by a later attempt: a permit of a process that was killed must not match
        self._ids = itertools.count(time.time_ns() >> 10)
        self._arrivals = itertools.count()

    async def admit(self, expert: str, *, tokens: int, dollars: float, step: int | None = None) -> Permit:
        queue = self._queues[expert]
        amount = nano(dollars * queue.raised)
        order = (step or 0, next(self._arrivals))
        waiter = _Waiter(order, int(tokens), amount, step, asyncio.get_running_loop().create_future())
        if refusal := self._refusal(queue, waiter):
            raise refusal
        heapq.heappush(queue.waiting, waiter)
        self._serve(queue)
        try:
            return await waiter.permit
        except asyncio.CancelledError:
            if waiter.permit.done() and not waiter.permit.cancelled() and waiter.permit.exception() is None:
                self.release(waiter.permit.result().id)  # granted in the instant in which nobody wanted it any more
            else:
                waiter.permit.cancel()
                self._serve(queue)
            raise

    async def settle(
        self, permit: Permit, *, tokens: int = 0, dollars: float = 0.0, error: ExpertError | None = None
    ) -> None:
        if error is not None and error.failure is Failure.LATE:
            self.release(permit.id)
        elif permit.id in self._out:  # else it was settled before, or forfeited since
            queue, out, raised = self._out[permit.id]
            amount = nano(dollars)
            self._note_overrun(queue, raised, self._budget.reserved_for(permit.id), amount)
            queue.lane.end(out, int(tokens), error, self._clock())
            self._pay(permit.id, amount)

    def release(self, request: int) -> None:
        """It never went out."""
        if request in self._out:
            queue, out, _ = self._out[request]
            queue.lane.unsend(out, self._clock())
            self._pay(request, 0)

    def forfeit(self, request: int) -> None:
        """Nobody will ever settle it: the whole reservation is charged."""
        if request in self._out:
            queue, out, _ = self._out[request]
            queue.lane.lose(out)
            self._pay(request, None)

    async def close(self) -> None:
        """Refuses whoever waits, and writes down what is known. Permits that are still out stay reserved in the ledger
        and are charged when it is opened again."""
        for queue in self._queues.values():
            queue.stop_timer()
            for waiter in queue.waiting:
                if not waiter.permit.done():
                    waiter.permit.set_exception(ExpertError(Failure.RESTING, "the run is ending"))
            queue.waiting.clear()
        if self._journal is not None:
            await self._journal.close()

    def snapshot(self, step: int | None = None) -> dict[str, Any]:
        """Where things stand, in plain numbers (dollars as float). `step`: also what that step has spent."""
        now, budget = self._clock(), self._budget
        experts = {
            name: {
                **queue.lane.snapshot(now),
                "waiting": sum(not waiter.permit.done() for waiter in queue.waiting),
                "spent": budget.spent(name) / NANO,
                "left": _dollars(budget.left(name)),
            }
            for name, queue in self._queues.items()
        }
        found = {"spent": budget.spent() / NANO, "reserved": budget.reserved() / NANO, "left": _dollars(budget.left())}
        if step is not None:
            found |= {"step_spent": budget.spent(step=step) / NANO, "step_left": _dollars(budget.left(step=step))}
        return {**found, "experts": experts}

    # --- going out -------------------------------------------------------------------------------------------------

    def _refusal(self, queue: _Queue, waiter: _Waiter) -> ExpertError | None:
        """What no waiting can change."""
        lane = queue.lane
        if refusal := lane.refusal(waiter.tokens, self._clock()):
            return refusal
        if self._budget.ask(lane.name, waiter.step, waiter.nano) == "never":
            lane.counts["refused_over_budget"] += 1
            text = f"${waiter.nano / NANO:.6f} for a request to {lane.name} is more than is left"
            return ExpertError(Failure.OVER_BUDGET, text)
        return None

    def _serve(self, queue: _Queue) -> None:
        """Lets out whoever fits, from the front of the line, and sets the clock for the first who does not."""
        queue.stop_timer()
        while queue.waiting:
            waiter = queue.waiting[0]
            if not waiter.permit.done():
                if refusal := self._refusal(queue, waiter):
                    waiter.permit.set_exception(refusal)
                else:
                    wait = self._wait(queue, waiter)
                    if wait is None:  # for a request to end
                        return
                    if wait > 0:
                        queue.timer = asyncio.get_running_loop().call_later(wait, self._serve, queue)
                        return
                    self._let_out(queue, waiter)
            heapq.heappop(queue.waiting)

    def _wait(self, queue: _Queue, waiter: _Waiter) -> float | None:
        """Seconds until it may go; None when another request has to end first."""
        if self._budget.ask(queue.lane.name, waiter.step, waiter.nano) == "wait":
            return None
        return queue.lane.wait(waiter.tokens, self._clock())

    def _let_out(self, queue: _Queue, waiter: _Waiter) -> None:
        name, request = queue.lane.name, next(self._ids)
        self._out[request] = queue, queue.lane.send(request, waiter.tokens, self._clock()), queue.raised
        self._budget.reserve(request, name, waiter.step, waiter.nano)
        permit = Permit(request, name, waiter.tokens, waiter.nano / NANO)
        if self._journal is None or waiter.nano == 0:
            waiter.permit.set_result(permit)
        else:  # not before it is on the disk
            entry = Reserve(request, name, waiter.step, waiter.nano)
            self._journal.note(entry, lambda error: self._written(waiter, permit, error))

    def _written(self, waiter: _Waiter, permit: Permit, error: LedgerError | None) -> None:
        if error is None and not waiter.permit.done():
            waiter.permit.set_result(permit)
            return
        self.release(permit.id)  # cancelled in the meantime, or the disk is full
        if not waiter.permit.done():
            waiter.permit.set_exception(ExpertError(Failure.OVER_BUDGET, str(error)))

    # --- coming back -----------------------------------------------------------------------------------------------

    def _pay(self, request: int, amount: int | None) -> None:
        """Charges `amount` nano-dollars, None: the reservation; and lets others go with what came back."""
        del self._out[request]
        reserved = self._budget.reserved_for(request)
        charged = self._budget.settle(request, amount)
        if self._journal is not None and charged is not None and (reserved or charged.nano):
            self._journal.note(Settle(request, charged.expert, charged.step, charged.nano))
        for queue in self._queues.values():  # of all experts: they share the money
            self._serve(queue)

    def _note_overrun(self, queue: _Queue, raised: float, reserved: int, amount: int) -> None:
        """A bill beyond the reservation is paid, and the provider gets larger reservations from then on."""
        if amount <= reserved or not reserved:
            return
        queue.lane.counts["overruns"] += 1
        factor = raised * amount / reserved
        if factor > queue.raised:
            logger.warning(
                "expert %s billed $%.6f where $%.6f was reserved; reservations are raised by that factor",
                queue.lane.name,
                amount / NANO,
                reserved / NANO,
            )
            queue.raised = factor


def open_governor(settings: EkiplSettings) -> Governor:
    """The bounds of a run, with its ledger. Raises LedgerError when another process holds it."""
    path = settings.bounds.ledger or (f"{settings.run_dir}/ledger.sqlite" if settings.run_dir else None)
    ledger = Ledger(path) if path else None
    if ledger is not None and ledger.abandoned:
        logger.warning(
            "%d requests were out when this run was stopped; the $%.4f that they may have cost count as spent",
            ledger.abandoned,
            ledger.abandoned_nano / NANO,
        )
    return Governor(settings.bounds, settings.experts, ledger)


def _limit(dollars: float | None) -> int | None:
    return None if dollars is None else nano(dollars)


def _dollars(amount: int | None) -> float | None:
    return None if amount is None else amount / NANO
