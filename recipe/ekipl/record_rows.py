"""Every training row to every expert, through the record and within the bounds: the work of record_ahead.py.

Each expert goes through the rows at its own pace, so that one that is slow or down holds up nobody.
"""

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from ekipl_rollout.answer import Answer
from ekipl_rollout.bounds.breaker import FATAL
from ekipl_rollout.bounds.given_up import UntilGivenUp, until
from ekipl_rollout.bounds.governor import Governor, open_governor
from ekipl_rollout.errors import ExpertError, Failure
from ekipl_rollout.experts.base import Expert
from ekipl_rollout.experts.build import build_experts
from ekipl_rollout.settings import EkiplSettings
from ekipl_rollout.when import When
from recipe.ekipl.data.questions import AskedRow, read_questions

LOOK_SECONDS = 1.0  # between two questions to an expert that rests
LOG_SECONDS = 20.0  # between two lines of progress when the output is no terminal

ENDS = FATAL | {Failure.RESTING, Failure.OVER_BUDGET, Failure.RECORD_UNUSABLE, Failure.LATE}
"""The next row would fail likewise: the expert is not asked any more."""


@dataclass(frozen=True)
class Rows:
    """The rows that training will read."""

    files: Sequence[str]
    prompt_key: str
    image_key: str
    count: int

    def read(self) -> Iterator[AskedRow]:
        return read_questions(self.files, self.prompt_key, self.image_key, columns=["data_source"])


@dataclass
class Tally:
    """What became of one expert's rows."""

    name: str
    rows: int = 0
    """Rows whose N answers are all in the record."""

    asked: int = 0
    """New answers."""

    recorded: int = 0
    """Answers that were there already."""

    failed: dict[str, str] = field(default_factory=dict)
    """Row -> why answers of it are missing."""

    ended: str = ""
    """Why the rows after that were not asked about; "" when all were."""

    @property
    def is_complete(self) -> bool:
        return not (self.failed or self.ended)

    def as_dict(self) -> dict[str, Any]:
        numbers = {"rows": self.rows, "asked": self.asked, "recorded": self.recorded}
        return {**numbers, "failed": len(self.failed), "ended": self.ended}


class Walk:
    """One expert's way through the rows: as many questions at a time as it takes."""

    def __init__(
        self,
        expert: Expert,
        num_answers: int,
        rows: Iterator[AskedRow],
        patience_s: float,
        stop: asyncio.Event,
        bar: tqdm,
    ):
        self.tally = Tally(expert.name)
        self._expert, self._num_answers, self._rows = expert, num_answers, rows
        self._patience_s, self._stop, self._bar = patience_s, stop, bar
        self._reading = asyncio.Lock()
        self._heard = time.monotonic()

    async def run(self, at_once: int) -> None:
        await asyncio.gather(*(self._work() for _ in range(at_once)))
        if self._stop.is_set():
            self.tally.ended = "stopped"

    async def _work(self) -> None:
        while not self._is_over and (row := await self._next()) is not None:
            await self._ask(row)
            self._bar.update()

    @property
    def _is_over(self) -> bool:
        return bool(self.tally.ended) or self._stop.is_set()

    async def _next(self) -> AskedRow | None:
        async with self._reading:  # a generator, and it decodes pictures: one thread at a time
            return await asyncio.to_thread(next, self._rows, None)

    async def _ask(self, row: AskedRow) -> None:
        if row.question is None:
            self.tally.failed[row.id] = row.refusal
            return
        while not self._is_over:
            try:
                self._add(row, await self._expert.answer(row.question, self._num_answers))
                return
            except ExpertError as error:
                if error.failure is not Failure.RESTING or time.monotonic() - self._heard > self._patience_s:
                    self._give_up(row, error)
                    return
            await asyncio.sleep(LOOK_SECONDS)

    def _give_up(self, row: AskedRow, error: ExpertError) -> None:
        if error.failure not in ENDS:
            self.tally.failed[row.id] = str(error)
        elif not self.tally.ended:
            waited = f" (waited for {self._patience_s:g} s: --patience)" if error.failure is Failure.RESTING else ""
            self.tally.ended = f"{error}{waited}"

    def _add(self, row: AskedRow, answers: Sequence[Answer]) -> None:
        self._heard = time.monotonic()
        recorded = sum(answer.recorded for answer in answers)
        self.tally.recorded += recorded
        self.tally.asked += len(answers) - recorded
        if len(answers) < self._num_answers:
            self.tally.failed[row.id] = f"{len(answers)} of {self._num_answers} answers came"
        else:
            self.tally.rows += 1


async def ask_everything(settings: EkiplSettings, rows: Rows, patience_s: float) -> tuple[list[Tally], bool]:
    """(what became of each expert's rows, whether Ctrl-C or SIGTERM stopped it). Raises LedgerError or RecordError when
    money or answers cannot be written down."""
    governor, stop = open_governor(settings), asyncio.Event()
    try:
        experts = build_experts(settings.experts, settings.record, UntilGivenUp(governor))
        try:
            with until(stop), stopped_by_signals(stop), progress(rows.count * len(experts), governor) as bar:
                walks = [
                    Walk(expert, settings.answers_of(entry), _wanted(settings, rows), patience_s, stop, bar)
                    for expert, entry in zip(experts, settings.experts, strict=True)
                ]
                together = zip(walks, settings.experts, strict=True)
                await asyncio.gather(*(walk.run(entry.max_in_flight) for walk, entry in together))
        finally:
            await asyncio.gather(*(expert.close() for expert in experts))
    finally:
        await governor.close()
    return [walk.tally for walk in walks], stop.is_set()


def _wanted(settings: EkiplSettings, rows: Rows) -> Iterator[AskedRow]:
    """Without the rows that training asks nobody about."""
    when = When(settings)
    return (row for row in rows.read() if when.rule(str((row.values or {}).get("data_source"))) != "never")


@contextlib.contextmanager
def stopped_by_signals(stop: asyncio.Event) -> Iterator[None]:
    """The first Ctrl-C sends nothing more and waits for what is out, because it is paid for; the second ends at once."""
    loop, numbers = asyncio.get_running_loop(), (signal.SIGINT, signal.SIGTERM)

    def first() -> None:
        print("\nstopping: waiting for the requests that are out; Ctrl-C again ends at once", file=sys.stderr)
        stop.set()
        forget()

    def forget() -> None:
        for number in numbers:
            loop.remove_signal_handler(number)

    for number in numbers:
        loop.add_signal_handler(number, first)
    try:
        yield
    finally:
        forget()


@contextlib.contextmanager
def progress(total: int, governor: Governor) -> Iterator[tqdm]:
    """A bar over rows and experts, with the money."""
    interval = 0.5 if sys.stderr.isatty() else LOG_SECONDS
    with tqdm(total=total, unit="row", desc="asking", mininterval=interval, dynamic_ncols=True) as bar:
        shown = asyncio.get_running_loop().create_task(_show_money(bar, governor, interval))
        try:
            yield bar
        finally:
            shown.cancel()


async def _show_money(bar: tqdm, governor: Governor, interval: float) -> None:
    while True:
        seen = governor.snapshot()
        left = "" if seen["left"] is None else f" (${seen['left']:.2f} left)"
        resting = [name for name, expert in seen["experts"].items() if expert["breaker"] != "closed"]
        money = {"paid": f"${seen['spent']:.2f}{left}"}
        bar.set_postfix({**money, **({"resting": ",".join(resting)} if resting else {})}, refresh=False)
        await asyncio.sleep(interval)
