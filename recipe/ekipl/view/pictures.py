"""Question and pictures of a row, found again in the parquet files by the row's id.

Only the ids of a file are held; the pictures of a row are read when it is opened. Pictures leave here decoded and encoded
anew, as report.html has them: nothing but a picture can come out.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from recipe.ekipl.evaluate.rows import ROWS_READ_AT_ONCE, picture_bytes
from recipe.ekipl.measure.report import picture_url


class RowFinder:
    """Rows of several parquet files."""

    def __init__(self) -> None:
        self._places: dict[Path, dict[str, tuple[int, int]]] = {}

    def find(self, row_id: Any, files: Iterable[Path]) -> dict[str, Any]:
        """`question`, `pictures` as data URLs, and `missing`: why there are none."""
        files = list(files)
        try:
            for path in files:
                place = self._index(path).get(str(row_id))
                if place is not None:
                    return _shown(path, *place)
        except Exception as error:  # pyarrow and Pillow raise many kinds; the answers are shown all the same
            return {"question": "", "pictures": [], "missing": f"{path}: {error}"}
        looked = ", ".join(path.name for path in files)
        why = f"the row is not in {looked}" if files else "nothing says where the rows are, --data does"
        return {"question": "", "pictures": [], "missing": why}

    def _index(self, path: Path) -> dict[str, tuple[int, int]]:
        """Row id -> (row group, place in it)."""
        if path not in self._places:
            file = pq.ParquetFile(path)
            places: dict[str, tuple[int, int]] = {}
            for number in range(file.num_row_groups):
                extras = file.read_row_group(number, columns=["extra_info"])["extra_info"].to_pylist()
                for place, extra in enumerate(extras):
                    extra = extra or {}
                    places.setdefault(str(extra.get("id", extra.get("index"))), (number, place))
            self._places[path] = places
        return self._places[path]


def _shown(path: Path, number: int, place: int) -> dict[str, Any]:
    row = _row(pq.ParquetFile(path), number, place)
    pictures = [picture_url(picture_bytes(entry, path.parent)) for entry in row["images"] or []]
    return {"question": row["prompt"][-1]["content"].replace("<image>", "").strip(), "pictures": pictures}


def _row(file: pq.ParquetFile, number: int, place: int) -> dict[str, Any]:
    """Batches bound the memory: a file may be one row group, and its pictures as large as they are."""
    for batch in file.iter_batches(ROWS_READ_AT_ONCE, row_groups=[number], columns=["prompt", "images"]):
        if place < batch.num_rows:
            return batch.slice(place, 1).to_pylist()[0]
        place -= batch.num_rows
    raise ValueError(f"row group {number} is shorter than it was")
