"""A JSON list or a JSONL file, row by row: memory does not grow with the file."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ijson
from tqdm import tqdm

from ekipl_rollout.errors import SettingsError
from recipe.ekipl.data.refusal import RowRefused


def read_list(path: Path, title: str) -> Iterator[Any]:
    """The elements of a JSON file that is one list. Raises SettingsError where it is not, or is cut off."""
    count = 0
    with open(path, "rb") as file, _bar(path, title) as bar:
        if file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] != b"[":
            raise SettingsError(f"{path} is not a JSON list of rows.")
        file.seek(0)
        try:
            for raw in ijson.items(file, "item", use_float=True):
                yield raw
                count += 1
                bar.update(file.tell() - bar.n)
        except ijson.JSONError as error:
            raise SettingsError(f"{path} is broken after {count} rows: {error}. Was it copied completely?") from None


def read_lines(path: Path, title: str) -> Iterator[Any]:
    """The objects of a JSONL file; RowRefused in the place of a line that is no JSON. Empty lines are skipped."""
    with open(path, "rb") as file, _bar(path, title) as bar:
        for number, line in enumerate(file, start=1):
            bar.update(len(line))
            if not line.strip():
                continue
            try:
                yield json.loads(line)
            except ValueError as error:
                yield RowRefused("row", f"line {number} is no JSON: {error}")


def _bar(path: Path, title: str) -> tqdm:
    size = path.stat().st_size
    return tqdm(total=size, desc=title, unit="B", unit_scale=True, unit_divisor=1024, disable=None, leave=False)
