"""Which mini-batches of a step have anything to teach. verl cuts them out of the batch in order (engine_workers.py)."""

from collections.abc import Sequence


def teaching_rows(teaches: Sequence[bool], mini_batch: int, ranks: int = 1) -> list[int]:
    """Places of the rows whose mini-batch holds at least one row that teaches, in order.

    `teaches`: of each row of the batch. `mini_batch`: rows over all data-parallel ranks. Every rank gets an equal
    consecutive part of the batch, and its share of a mini-batch from the front of that.

    Raises ValueError for numbers that do not divide; verl's padding sees to it that they do.
    """
    per_rank, left = divmod(len(teaches), ranks)
    share, rest = divmod(mini_batch, ranks)
    if left or rest or per_rank % share:
        raise ValueError(f"{len(teaches)} rows cannot be cut into mini-batches of {mini_batch} over {ranks} ranks")
    alive = {row % per_rank // share for row, teaching in enumerate(teaches) if teaching}
    return [row for row in range(len(teaches)) if row % per_rank // share in alive]
