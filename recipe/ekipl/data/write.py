"""Rows -> one parquet file for each use, all in one pass. Half-written files are never seen."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from recipe.ekipl.data.make_row import check_cot
from recipe.ekipl.data.refusal import RowRefused
from recipe.ekipl.data.row import How, Row, ans_record, rl_record, sft_record

ROWS_PER_GROUP, BYTES_PER_GROUP = 256, 64_000_000
"""Written at once, at most (bytes of pictures): bounds memory, whatever the size of file and pictures."""

RECORDS: dict[str, Callable[[Row, How], dict[str, Any]]] = {"rl": rl_record, "sft": sft_record, "ans": ans_record}
"""Use -> record. rl: reinforcement learning and evaluation; sft: CoT-SFT; ans: ANS-SFT."""


class ParquetFile:
    """One file that grows by row groups and gets its name when it is complete."""

    def __init__(self, path: Path):
        self.path, self.rows = path, 0
        self._partial = path.with_suffix(".partial")
        self._batch: list[dict[str, Any]] = []
        self._bytes = 0
        self._writer: pq.ParquetWriter | None = None

    def add(self, record: dict[str, Any]) -> None:
        self._batch.append(record)
        self._bytes += sum(len(picture.get("bytes", b"")) for picture in record["images"])
        if len(self._batch) == ROWS_PER_GROUP or self._bytes >= BYTES_PER_GROUP:
            self._flush()

    def finish(self) -> None:
        """Nothing is written for a file without rows; one of an earlier conversion goes."""
        self._flush()
        if self._writer is None:
            self.path.unlink(missing_ok=True)
        else:
            self._writer.close()
            self._partial.replace(self.path)

    def _flush(self) -> None:
        if self._batch:
            table = pa.Table.from_pylist(self._batch, schema=self._writer.schema if self._writer else None)
            if self._writer is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._writer = pq.ParquetWriter(self._partial, table.schema)
            self._writer.write_table(table)
            self.rows, self._batch, self._bytes = self.rows + len(self._batch), [], 0


class Refusals:
    """Writes a line for each refused row, and counts them."""

    def __init__(self, file: TextIO):
        self._file = file
        self.kinds: dict[str, int] = {}

    def add(self, row_id: str, index: int, refusal: RowRefused, uses: Iterable[str]) -> None:
        """`uses`: the files that the row is missing from."""
        self.kinds[refusal.kind] = self.kinds.get(refusal.kind, 0) + 1
        line = {"id": row_id, "index": index, "missing_from": list(uses), "kind": refusal.kind, "reason": str(refusal)}
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")


def write_rows(
    rows: Iterable[tuple[str, int, Row | RowRefused]], stem: Path, uses: Iterable[str], how: How
) -> tuple[dict[str, int], dict[str, int]]:
    """Writes `<stem>.<use>.parquet` and `<stem>.refused.jsonl`.

    Args:
        rows: (id, index, row or why there is none), in order.

    Returns (rows by file name, refused rows by kind).
    """
    files = {use: ParquetFile(stem.with_name(f"{stem.name}.{use}.parquet")) for use in uses}
    path = stem.with_name(f"{stem.name}.refused.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    # half a character, which UTF-8 cannot hold, is written as JSON's own escape
    with open(partial, "w", encoding="utf-8", errors="backslashreplace") as lines:
        refused = Refusals(lines)
        for row_id, index, row in rows:
            if isinstance(row, RowRefused):
                refused.add(row_id, index, row, files)
            else:
                _write_row(row, files, how, refused)
    for file in files.values():
        file.finish()
    partial.replace(path)
    return {file.path.name: file.rows for file in files.values() if file.rows}, refused.kinds


def _write_row(row: Row, files: dict[str, ParquetFile], how: How, refused: Refusals) -> None:
    for use, file in files.items():
        try:
            if use == "sft":
                check_cot(row)
            file.add(RECORDS[use](row, how))
        except RowRefused as refusal:
            refused.add(row.id, row.index, refusal, [use])
