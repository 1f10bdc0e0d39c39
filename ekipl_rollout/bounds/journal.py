"""Writes to the ledger from an event loop: what comes up during one write goes to the disk with the next."""

import asyncio
import logging
from collections.abc import Callable

from ekipl_rollout.bounds.ledger import Entry, Ledger, LedgerError

logger = logging.getLogger(__name__)

Then = Callable[[LedgerError | None], None]


class Journal:
    """A ledger for one event loop."""

    def __init__(self, ledger: Ledger):
        self._ledger = ledger
        self._entries: list[Entry] = []
        self._thens: list[Then] = []
        self._writer: asyncio.Task[None] | None = None

    def note(self, entry: Entry, then: Then | None = None) -> None:
        """Writes `entry`; calls `then` when it is on the disk, or with the reason why it is not."""
        self._entries.append(entry)
        if then is not None:
            self._thens.append(then)
        if self._writer is None:
            self._writer = asyncio.get_running_loop().create_task(self._write())

    async def close(self) -> None:
        while self._writer is not None:
            await self._writer
        self._ledger.close()

    async def _write(self) -> None:
        try:
            while self._entries:
                (entries, thens), self._entries, self._thens = (self._entries, self._thens), [], []
                error = None
                try:
                    await asyncio.to_thread(self._ledger.write, entries)
                except LedgerError as caught:
                    logger.error("%s", caught)
                    error = caught
                for then in thens:
                    then(error)
        finally:
            self._writer = None
