"""Which answers of a split are missing, and the batches in which they are asked for.

A batch is a fixed rectangle of rows x samples: what stands in it depends on the rows, the number of samples and --batch,
and not on what is already answered. That, with everything that an engine remembers forgotten between batches, is why a
resumed evaluation gives the same bytes: numerics of a batched engine depend on what else is in the batch.
"""

import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from recipe.ekipl.evaluate.answers import AnswerFile
from recipe.ekipl.evaluate.rows import EvalRow

Wanted = tuple[EvalRow, int]
"""One answer to get: (row, sample index)."""


@dataclass(frozen=True)
class Given:
    """One answer that came."""

    text: str
    status: str
    """AnswerStatus of ekipl_rollout, or `prompt_too_long`."""

    tokens: int
    dollars: float | None = None


class Answerer(Protocol):
    """A model or an expert."""

    def answer(self, wanted: Sequence[Wanted]) -> list[Given | None]:
        """An answer for each of `wanted`, in order; None where none came and asking again may help."""
        ...

    def close(self) -> None: ...


def seed_of(seed: int, row_id: str, sample: int) -> int:
    """31 bits for one answer: its own, whatever it is batched with."""
    return zlib.crc32(f"{seed}\0{row_id}\0{sample}".encode()) & 0x7FFFFFFF


def batches(rows: Iterable[EvalRow], samples: int, size: int) -> Iterator[list[Wanted]]:
    """All answers of `rows`, as rectangles of at most `size`, row by row."""
    wide = min(samples, size)
    rows = iter(rows)
    while chunk := list(itertools.islice(rows, max(1, size // wide))):
        for first in range(0, samples, wide):
            yield [(row, sample) for row in chunk for sample in range(first, min(first + wide, samples))]


def ask_missing(
    rows: Iterable[EvalRow],
    digests: dict[str, str],
    file: AnswerFile,
    answerer: Callable[[], Answerer],
    samples: int,
    size: int,
    progress: Callable[[int], Any],
) -> int:
    """Asks for what `file` lacks, batch by batch; returns how many answers did not come.

    `answerer` is called when something is missing and not before: an evaluation that is complete starts no engine.
    """
    lost = 0
    for batch in batches(rows, samples, size):
        wanted = [(row, sample) for row, sample in batch if (row.id, sample) not in file]
        if not wanted:
            continue
        given = answerer().answer(wanted)
        came = [
            _line(row, sample, digests[row.id], answer)
            for (row, sample), answer in zip(wanted, given, strict=True)
            if answer is not None
        ]
        if came:
            file.add(came)
        lost += len(wanted) - len(came)
        progress(len(wanted))
    if not lost:
        file.finish()
    return lost


def _line(row: EvalRow, sample: int, digest: str, given: Given) -> dict[str, Any]:
    line = {
        "row": row.id,
        "sample": sample,
        "asked": digest,
        "status": given.status,
        "tokens": given.tokens,
        "text": given.text,
    }
    return line if given.dollars is None else {**line, "dollars": given.dollars}
