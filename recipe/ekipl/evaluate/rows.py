"""Parquet as recipe.ekipl.data writes it -> rows to ask about: the question as everybody is asked it, and the truth."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ekipl_reward import RewardError, check_truth
from ekipl_rollout.answer import Message, Question
from ekipl_rollout.errors import SettingsError
from recipe.ekipl.data.splits import SPLITS

MARKER = "<image>"
LIMITS = ("min_pixels", "max_pixels")
ROWS_READ_AT_ONCE = 64  # bounds memory: pictures are as large as they are


@dataclass(frozen=True)
class EvalSplit:
    """One parquet file that is evaluated."""

    name: str
    """A column of Table 1 (`clevr_math`, ...), or `<folder>-<file>` for a file of one's own."""

    path: Path


@dataclass(frozen=True)
class EvalRow:
    """One row of a split."""

    id: str
    """Unique in its file: `extra_info.id`, with #2, #3 ... where the file repeats one."""

    data_source: str
    truth: str
    question: Question

    limits: tuple[Mapping[str, int], ...]
    """Pixel limits that the file gives each picture; empty mappings for none."""


def find_splits(data: Path | None, names: Sequence[str]) -> list[EvalSplit]:
    """The files of `names`: test splits below `data`, or paths of parquet files. No names: every test split there is."""
    folders = {split.name: split.task for split in SPLITS if split.is_test}
    found, problems = [], []
    for name in names or [name for name in folders if data and _file(data, folders[name], name).exists()]:
        if name.endswith(".parquet"):
            path = Path(name)
            split = EvalSplit(f"{path.resolve().parent.name}-{path.stem.removesuffix('.rl')}", path)
        elif name not in folders:
            problems.append(f"--splits {name} is not known. Choose from {', '.join(folders)}, or give a .parquet file.")
            continue
        elif data is None:
            problems.append(f"--splits {name} needs --data, the folder that `recipe.ekipl.data reason_rft` wrote.")
            continue
        else:
            split = EvalSplit(name, _file(data, folders[name], name))
        if split.path.is_file():
            found.append(split)
        else:
            problems.append(
                f"--splits {name}: {split.path} does not exist. Make it with `python -m recipe.ekipl.data reason_rft`."
            )
    names = [split.name for split in found]
    problems += [f"--splits: two files would be called {name}." for name in sorted(set(names)) if names.count(name) > 1]
    if not found and not problems:
        problems.append(f"--data {data} holds no test split (looked for <task>/<split>.rl.parquet).")
    if problems:
        raise SettingsError(*problems)
    return found


def _file(data: Path, task: str, name: str) -> Path:
    return data / task / f"{name}.rl.parquet"


def read_rows(split: EvalSplit) -> Iterator[EvalRow]:
    """The rows of a file, in order. Raises SettingsError, with the row, for one that cannot be asked or judged."""
    import pyarrow.parquet as pq

    seen: dict[str, int] = {}
    index = 0
    for batch in pq.ParquetFile(split.path).iter_batches(ROWS_READ_AT_ONCE):
        for record in batch.to_pylist():
            extra = record.get("extra_info") or {}
            name = str(extra.get("id") or extra.get("index", index))
            seen[name] = seen.get(name, 0) + 1
            try:
                yield _row(record, name if seen[name] == 1 else f"{name}#{seen[name]}", split.path.parent)
            except (RewardError, ValueError, KeyError, OSError) as error:
                raise SettingsError(f"{split.path}, row {index} ({name}): {error}") from None
            index += 1


def _row(record: Mapping[str, Any], row_id: str, folder: Path) -> EvalRow:
    truth = record["reward_model"]["ground_truth"]
    check_truth(record["data_source"], truth)
    entries = list(record.get("images") or [])
    pictures = [picture_bytes(entry, folder) for entry in entries]
    return EvalRow(
        row_id,
        record["data_source"],
        truth,
        Question(row_id, _messages(record["prompt"], pictures)),
        tuple({k: entry[k] for k in LIMITS if isinstance(entry, dict) and entry.get(k)} for entry in entries),
    )


def _messages(prompt: Sequence[Mapping[str, str]], pictures: list[bytes]) -> tuple[Message, ...]:
    """Text and pictures in the order of the <image> markers, as verl's RLHFDataset._build_messages."""
    left = iter(pictures)
    markers = sum(turn["content"].count(MARKER) for turn in prompt)
    if pictures and markers != len(pictures):
        raise ValueError(f"{markers} {MARKER} markers in the prompt, but {len(pictures)} pictures")
    messages = []
    for turn in prompt:
        parts = [part for part in re.split(f"({MARKER})", turn["content"]) if part] if pictures else [turn["content"]]
        messages.append(Message(turn["role"], tuple(next(left) if part == MARKER else part for part in parts)))
    return tuple(messages)


def picture_bytes(entry: Any, folder: Path) -> bytes:
    """Encoded bytes of a picture that is embedded, or lies in a file (relative: to the parquet file's folder)."""
    if isinstance(entry, dict):
        if entry.get("bytes"):
            return entry["bytes"]
        entry = entry.get("image") or entry.get("path")
    if not isinstance(entry, str):
        raise ValueError(f"a picture must be bytes or a file name, not {type(entry).__name__}")
    if "://" in entry and not entry.startswith("file://"):
        raise ValueError(f"a picture must lie on this machine, not at {entry[:80]!r}")
    return (folder / entry.removeprefix("file://")).read_bytes()
