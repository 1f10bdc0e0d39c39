"""A JSON list or a JSONL file, row by row: memory does not grow with the file."""

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO

import ijson
from ijson.common import ObjectBuilder
from tqdm import tqdm

from ekipl_rollout.errors import SettingsError
from ekipl_rollout.inert import printable
from recipe.ekipl.data.refusal import RowRefused

DEEPEST = 50  # objects and lists within one another; Python itself cannot show some hundreds of them
TOO_DEEP = f"the row holds lists or objects more than {DEEPEST} deep"


def read_list(path: Path, title: str) -> Iterator[Any]:
    """The elements of a JSON file that is one list; RowRefused in the place of one that cannot be built. Raises SettingsError
    where it is no list, or is cut off."""
    count = 0
    with open(path, "rb") as file, _bar(path, title) as bar:
        if file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] != b"[":
            raise SettingsError(f"{path} is not a JSON list of rows.")
        file.seek(0)
        try:
            for raw in _elements(file):
                yield raw
                count += 1
                bar.update(file.tell() - bar.n)
        except ijson.JSONError as error:
            raise SettingsError(
                f"{path} is broken after {count} rows: {printable(str(error))}. Was it copied completely?"
            ) from None


def _elements(file: BinaryIO) -> Iterator[Any]:
    """Built here and not by ijson.items: that gives up a whole file for one long number, and its time grows with the square
    of the depth."""
    depth, builder, refused = 0, ObjectBuilder(), None
    for event, value in ijson.basic_parse(file):
        depth += event.startswith("start_") - event.startswith("end_")
        if depth == 0 or (depth == 1 and event == "start_array"):
            continue  # the list itself
        if depth > DEEPEST:
            refused = RowRefused("row", TOO_DEEP)
        elif refused is None:
            builder.event(event, float(value) if isinstance(value, Decimal) else value)
        if depth == 1:
            yield refused or builder.value
            builder, refused = ObjectBuilder(), None


def read_lines(path: Path, title: str) -> Iterator[Any]:
    """The objects of a JSONL file; RowRefused in the place of a line that is no JSON. Empty lines are skipped."""
    with open(path, "rb") as file, _bar(path, title) as bar:
        for number, line in enumerate(file, start=1):
            bar.update(len(line))
            if not line.strip():
                continue
            try:
                yield json.loads(line)
            except RecursionError:
                yield RowRefused("row", f"line {number}: {TOO_DEEP}")
            except ValueError as error:
                yield RowRefused("row", f"line {number} is no JSON: {error}")


def _bar(path: Path, title: str) -> tqdm:
    size = path.stat().st_size
    return tqdm(total=size, desc=title, unit="B", unit_scale=True, unit_divisor=1024, disable=None, leave=False)
