"""A JSONL file of one's own -> parquet for verl (docs/data.md)."""

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ekipl_reward import RewardError, task_of
from ekipl_rollout.errors import SettingsError
from recipe.ekipl.data.make_row import make_row, row_id
from recipe.ekipl.data.pictures import load_picture
from recipe.ekipl.data.read_json import read_lines
from recipe.ekipl.data.refusal import RowRefused
from recipe.ekipl.data.row import How, Row
from recipe.ekipl.data.write import write_rows


def convert_own(path: Path, out: Path, how: How, modules: Sequence[str] = ()) -> tuple[dict[str, int], dict[str, int]]:
    """`<out>/<name>.rl.parquet` and `.ans.parquet`; `.sft.parquet` from rows with `cot`. Always converts anew.

    Args:
        modules: modules with tasks of one's own (ekipl_reward.register_task), by dotted name.

    Returns (rows by file name, refused rows by kind). Raises SettingsError when no row is usable.
    """
    for module in modules:
        importlib.import_module(module)
    uses = ("rl", "sft", "ans") if any(_has_cot(raw) for raw in read_lines(path, "looking")) else ("rl", "ans")
    rows, refused = write_rows(_rows(path), out / path.stem, uses, how)
    if not rows:
        raise SettingsError(f"{path} has no usable row; the reasons are in {out / path.stem}.refused.jsonl.")
    return rows, refused


def _has_cot(raw: Any) -> bool:
    return isinstance(raw, dict) and raw.get("cot") is not None


def _rows(path: Path) -> Iterator[tuple[str, int, Row | RowRefused]]:
    for index, raw in enumerate(read_lines(path, path.name)):
        try:
            yield row_id(raw, index), index, _row(raw, index, path)
        except RowRefused as refusal:
            yield row_id(raw, index), index, refusal


def _row(raw: Any, index: int, path: Path) -> Row:
    source: Any = raw.get("task") if isinstance(raw, dict) else ""
    try:
        task = task_of(source) if isinstance(raw, dict) else ""
    except RewardError as error:
        raise RowRefused("task", f"`task`: {error}") from None
    folder = path.resolve().parent
    return make_row(
        raw,
        index=index,
        task=task,
        source=source,
        split=path.stem,
        load=lambda name: load_picture(name, folder, (".",)),
        pictures=None,
    )
