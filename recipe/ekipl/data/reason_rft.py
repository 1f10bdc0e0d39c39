"""Reason-RFT JSON files and pictures -> parquet for verl. Reads the released data and the synthetic world alike."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ekipl_rollout.errors import SettingsError
from recipe.ekipl.data.make_row import make_row, row_id
from recipe.ekipl.data.manifest import Manifest, describe
from recipe.ekipl.data.pictures import load_picture
from recipe.ekipl.data.read_json import read_list
from recipe.ekipl.data.refusal import RowRefused
from recipe.ekipl.data.row import How, Row
from recipe.ekipl.data.splits import SPLITS, Split
from recipe.ekipl.data.write import write_rows

IMAGE_FOLDERS = ("images/train_images", "images/test_images", "train_images", "test_images", "images", ".")
PICTURES = {"visual_counting": 1, "structure_perception": 1, "spatial_transformation": 2}
"""Pictures of a row of each task."""


@dataclass(frozen=True)
class Converted:
    """What became of one split."""

    name: str
    """`<task>/<split>`."""

    why: str
    """Why it was converted; empty when it was finished before."""

    rows: dict[str, int]
    """Rows by file name."""

    refused: dict[str, int]
    """Refused rows by kind; each is a line of `<split>.refused.jsonl`."""


def find_file(data: Path, split: Split) -> Path | None:
    """The one file of a split, None when the folder has none. Two matches are an error: which one is meant?"""
    matches = sorted(data.glob(split.pattern))
    if len(matches) > 1:
        names = ", ".join(path.name for path in matches)
        raise SettingsError(f"{len(matches)} files match {split.pattern} in {data}: {names}. Keep one of them.")
    return matches[0] if matches else None


def convert(
    data: Path,
    out: Path,
    tasks: Iterable[str],
    template: str = "reason_rft",
    *,
    again: bool = False,
    report: Callable[[Converted], None] = lambda done: None,
    **how: Any,
) -> list[Converted]:
    """Converts every split of `tasks` that `data` has, to `<out>/<task>/<split>.<use>.parquet`.

    Finished splits are left alone, unless their JSON file, the options or the converter changed, or `again`. Pictures
    alone are not looked at for that.

    Args:
        report: called with each split when it is finished.
        how: the other fields of `How`.

    Raises SettingsError when there is nothing to convert, or no row of a split is usable.
    """
    wanted = [(split, path) for split in SPLITS if split.task in tasks and (path := find_file(data, split))]
    if not wanted:
        raise SettingsError(
            f"{data} holds no Reason-RFT file of {', '.join(tasks)} (looked for train_jsons/ and test_jsons/). "
            "`python -m recipe.ekipl.data download` fetches them."
        )
    out.mkdir(parents=True, exist_ok=True)
    done = []
    for split, path in wanted:
        done.append(_convert_split(path, split, data, out, How(template, **how), again))
        report(done[-1])
    return done


def _convert_split(path: Path, split: Split, data: Path, out: Path, how: How, again: bool) -> Converted:
    manifest, name, source = Manifest(out), f"{split.task}/{split.name}", describe(path)
    why = "asked for" if again else manifest.why_not(name, source, how)
    if why:
        digest = hashlib.sha256()
        rows, refused = write_rows(read_rows(path, split, data, digest), out / name, uses_of(split), how)
        if not rows:
            raise SettingsError(f"{path} has no usable row; the reasons are in {out / name}.refused.jsonl.")
        manifest.note(name, source, how, rows, refused, digest.hexdigest())
    return Converted(name, why, manifest.rows(name), manifest.refused(name))


def uses_of(split: Split) -> tuple[str, ...]:
    if split.is_test:
        return ("rl",)
    return ("sft",) if split.name == "base" else ("rl", "sft", "ans")


def read_rows(path: Path, split: Split, data: Path, digest: Any) -> Iterator[tuple[str, int, Row | RowRefused]]:
    """(id, index, row or why there is none). `digest` (of hashlib) gets the bytes of every picture that is used."""
    root = data.resolve()
    for index, raw in enumerate(read_list(path, f"{split.task} {split.name}")):
        try:
            row = make_row(
                raw,
                index=index,
                task=split.task,
                source=split.data_source,
                split=split.name,
                load=lambda name: load_picture(name, root, IMAGE_FOLDERS),
                pictures=PICTURES[split.task],
            )
            for picture in row.pictures:
                digest.update(picture.content)
            yield row.id, index, row
        except RowRefused as refusal:
            yield row_id(raw, index), index, refusal
