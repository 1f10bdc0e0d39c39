"""The questions that training will ask, read from the same files without verl: one for each row.

A record finds an answer by what was asked, to the byte. So a question that is asked ahead must be the very one that the
worker asks later. Both go through ekipl_rollout/prompt.py, and a contract test compares them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ekipl_rollout.answer import Question
from ekipl_rollout.errors import ExpertError
from ekipl_rollout.prompt import question_of, raw_prompt_of

ROWS_AT_ONCE = 64  # read together; bounds memory, whatever the pictures' size


@dataclass(frozen=True)
class AskedRow:
    """One row and what is asked for it."""

    id: str
    """`extra_info.id`, or the row's number within its file."""

    question: Question | None
    """None for a row that experts cannot be shown."""

    refusal: str = ""
    """Why not."""

    values: dict[str, Any] | None = None
    """The columns that were asked for besides."""


def count_rows(files: Sequence[str]) -> int:
    import pyarrow.parquet as pq

    return sum(pq.read_metadata(name).num_rows for name in files)


def read_questions(
    files: Sequence[str], prompt_key: str = "prompt", image_key: str = "images", columns: Sequence[str] = ()
) -> Iterator[AskedRow]:
    """The rows of the parquet files, one after the other, in their order."""
    import pyarrow.parquet as pq

    number = 0
    for name in files:
        with pq.ParquetFile(name) as file:
            wanted = [c for c in (prompt_key, image_key, "extra_info", *columns) if c in file.schema_arrow.names]
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=wanted):
                for row in batch.to_pylist():
                    yield _asked(row, number, prompt_key, image_key, columns)
                    number += 1


def _asked(row: dict[str, Any], number: int, prompt_key: str, image_key: str, columns: Sequence[str]) -> AskedRow:
    extra = row.get("extra_info") or {}
    row_id = str(extra.get("id", extra.get("index", number)))
    values = {name: row.get(name) for name in columns}
    try:
        prompt = raw_prompt_of(row[prompt_key], row.get(image_key) or ())
        return AskedRow(row_id, question_of(prompt, row_id), values=values)
    except (ExpertError, OSError, ValueError) as error:
        return AskedRow(row_id, None, str(error), values)
