"""Several parquet files -> one for training on several tasks, rows drawn by weight; several folders of files -> one folder."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ekipl_rollout.errors import SettingsError
from recipe.ekipl.data.write import ROWS_PER_GROUP

ROWS_AT_ONCE = 64
USES = ("rl", "sft", "ans")


@dataclass(frozen=True)
class Share:
    """One file's part of the mixture."""

    path: Path
    has: int
    """Rows of the file."""

    takes: int
    """Rows of the mixture that come from it; more than it has: each comes several times."""


def plan_mix(weights: dict[Path, float], rows: int | None) -> list[Share]:
    """Rows by largest remainder. Without `rows`: as many as can be drawn without one of them coming twice.

    Raises SettingsError for a weight that is not above zero, a missing file, and a file that would get no row.
    """
    problems = [
        f"{path}={weight:g}: a weight must be above zero." for path, weight in weights.items() if not weight > 0
    ]
    problems += [f"{path} does not exist." for path in weights if not path.is_file()]
    if problems:
        raise SettingsError(*problems)
    has = {path: pq.read_metadata(path).num_rows for path in weights}
    total = sum(weights.values())
    if rows is None:
        rows = math.floor(min(has[path] * total / weight for path, weight in weights.items()))
    exact = {path: rows * weight / total for path, weight in weights.items()}
    takes = {path: math.floor(value) for path, value in exact.items()}
    by_remainder = sorted(exact, key=lambda path: takes[path] - exact[path])
    for path in by_remainder[: rows - sum(takes.values())]:
        takes[path] += 1
    if empty := [str(path) for path in weights if not takes[path]]:
        raise SettingsError(f"--rows {rows} leave no row for {', '.join(empty)}. Raise --rows or the weight.")
    return [Share(path, has[path], takes[path]) for path in weights]


def mix(shares: list[Share], out: Path, seed: int) -> int:
    """Writes the mixture, files interleaved evenly; returns its rows. Memory does not grow with the files.

    Which rows are taken depends on `seed` alone; within one file they keep their order, because verl's loader shuffles.
    """
    schema = _schema(shares)
    drawn = [_draw(share, np.random.default_rng([seed, number]), schema) for number, share in enumerate(shares)]
    order = [n for _, n in sorted(((k + 0.5) / s.takes, n) for n, s in enumerate(shares) for k in range(s.takes))]
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_suffix(".partial")
    with pq.ParquetWriter(partial, schema) as writer:
        for start in range(0, len(order), ROWS_PER_GROUP):
            batch = [next(drawn[number]) for number in order[start : start + ROWS_PER_GROUP]]
            writer.write_table(pa.concat_tables(batch))
    partial.replace(out)
    return len(order)


def _schema(shares: list[Share]) -> pa.Schema:
    """Raises SettingsError for files that were written differently."""
    first = pq.read_schema(shares[0].path)
    for share in shares[1:]:
        if not pq.read_schema(share.path).equals(first):
            raise SettingsError(
                f"{share.path} and {shares[0].path} have different columns. Convert both with the same --pictures, "
                "and mix files for one use (rl, sft or ans)."
            )
    return first


def _draw(share: Share, rng: np.random.Generator, schema: pa.Schema) -> Iterator[pa.Table]:
    """One row after the other: whole passes, then a random part of one."""
    for number in range(math.ceil(share.takes / share.has)):
        left = min(share.has, share.takes - number * share.has)
        chosen = np.zeros(share.has, dtype=bool)
        chosen[rng.permutation(share.has)[:left]] = True
        at = 0
        with pq.ParquetFile(share.path) as file:
            for batch in file.iter_batches(ROWS_AT_ONCE):
                for k in np.flatnonzero(chosen[at : at + len(batch)]):
                    yield pa.Table.from_batches([batch.slice(int(k), 1)], schema)
                at += len(batch)


def train_files(folders: dict[Path, float]) -> dict[str, dict[Path, float]]:
    """`train.<use>.parquet` -> the files of that name with their weights, for each use that all folders have.

    Raises SettingsError when there is none.
    """
    names = [f"train.{use}.parquet" for use in USES]
    shared = [name for name in names if all((folder / name).is_file() for folder in folders)]
    if not shared:
        raise SettingsError(
            f"{', '.join(map(str, folders))} have no training file in common (looked for {', '.join(names)}). Rows of your "
            "own are called so when their JSONL file is train.jsonl."
        )
    return {name: {folder / name: weight for folder, weight in folders.items()} for name in shared}


def link_held_out(folders: dict[Path, float], out: Path) -> list[Path]:
    """Every other `*.rl.parquet` of `folders` as a link in `out`: what a method measures itself on.

    Raises SettingsError for a name that two folders have.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.resolve().glob("*.rl.parquet")):
            if path.name == "train.rl.parquet":
                continue
            if path.name in found:
                raise SettingsError(
                    f"{found[path.name]} and {path} have one name. Rename one, with the files beside it."
                )
            found[path.name] = path
    out.mkdir(parents=True, exist_ok=True)
    for name, path in found.items():
        (out / name).unlink(missing_ok=True)
        (out / name).symlink_to(path)
    return [out / name for name in found]
