"""Reason-RFT JSON files and image folders -> parquet for verl. Reads the released data and the synthetic world alike.

    python -m recipe.ekipl.data.reason_rft --data data/synthetic --out data/parquet --tasks visual_counting

Rows that cannot be used are written to `refused.jsonl` with file, id and reason; none is dropped silently.
"""

import argparse
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from tqdm import tqdm

from ekipl_reward import TruthError, check_truth
from recipe.ekipl.data.prompts import TEMPLATES
from recipe.ekipl.data.row import Row, rl_record, sft_record
from recipe.ekipl.data.splits import SPLITS, TASKS, Split

IMAGE_FOLDERS = ("images/train_images", "images/test_images", "train_images", "test_images", "images", ".")
MAX_PIXELS = 64_000_000  # a larger picture is a mistake or an attack
ROWS_PER_GROUP = 256  # written at once: bounds memory, whatever the file's size


class RowRefused(Exception):
    """One row cannot be used; the message says why."""


def find_file(data: Path, split: Split) -> Path | None:
    """The one file of a split, None when the folder has none. Two matches are an error: which one is meant?"""
    matches = sorted(data.glob(split.pattern))
    if len(matches) > 1:
        names = ", ".join(path.name for path in matches)
        raise FileExistsError(f"{len(matches)} files match {split.pattern} in {data}: {names}. Keep one of them.")
    return matches[0] if matches else None


def read_rows(path: Path, split: Split, data: Path) -> Iterator[Row | tuple[str, str]]:
    """Rows of one JSON file; (id, reason) for each that is refused."""
    for index, raw in enumerate(json.loads(path.read_text(encoding="utf-8"))):
        row_id = str(raw.get("id", f"#{index}")) if isinstance(raw, dict) else f"#{index}"
        try:
            yield make_row(raw, row_id, split, index, data)
        except RowRefused as refusal:
            yield row_id, str(refusal)


def make_row(raw: Any, row_id: str, split: Split, index: int, data: Path) -> Row:
    if not isinstance(raw, dict):
        raise RowRefused(f"not an object but {type(raw).__name__}")
    problem = raw.get("problem")
    if not isinstance(problem, str) or not problem.strip():
        raise RowRefused(f"`problem` must be a text, not {problem!r}")
    truth = raw.get("solution", raw.get("answer"))
    try:
        check_truth(split.data_source, truth)
    except TruthError as error:
        raise RowRefused(f"`answer`: {error}") from None
    names = raw.get("image")
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not names:
        raise RowRefused(f"`image` must be a file name or a list of them, not {names!r}")
    cot = raw.get("cot")
    if not split.is_test and not isinstance(cot, str):
        cot = None
    assert isinstance(truth, str)  # check_truth lets nothing else pass
    return Row(row_id, split, index, tuple(load_image(name, data) for name in names), problem, truth, cot)


def load_image(name: Any, data: Path) -> bytes:
    """Encoded bytes of a picture that can be decoded. `{"path": name}` is accepted as well, as in Reason-RFT's loader."""
    name = name.get("path") if isinstance(name, dict) else name
    if not isinstance(name, str):
        raise RowRefused(f"`image` holds {name!r} instead of a file name")
    root = data.resolve()
    found = next((p for folder in IMAGE_FOLDERS if (p := (root / folder / name)).is_file()), None)
    if found is None:
        raise RowRefused(f"picture {name!r} is in none of {', '.join(IMAGE_FOLDERS)} below {data}")
    if root not in found.resolve().parents:
        raise RowRefused(f"picture {name!r} points outside {data}")
    content = found.read_bytes()
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise RowRefused(f"picture {name!r} has {image.width} x {image.height} pixels")
            image.load()
    except RowRefused:
        raise
    except Exception as error:  # Pillow raises many kinds on broken files; all mean the same here
        raise RowRefused(f"picture {name!r} cannot be decoded: {error}") from None
    return content


def convert_split(path: Path, split: Split, data: Path, out: Path, record: Callable[[Row], dict], refused: Any) -> int:
    """Writes one parquet file; returns the number of rows in it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial, writer, count = out.with_suffix(".partial"), None, 0
    batch: list[dict] = []

    def flush() -> None:
        nonlocal writer, batch, count
        if batch:
            table = pa.Table.from_pylist(batch, schema=writer.schema if writer else None)
            writer = writer or pq.ParquetWriter(partial, table.schema)
            writer.write_table(table)
            count, batch = count + len(batch), []

    for row in tqdm(read_rows(path, split, data), desc=f"{split.task} {split.name}", disable=None, leave=False):
        if isinstance(row, Row):
            batch.append(record(row))
        else:
            refused.write(json.dumps({"file": path.name, "id": row[0], "reason": row[1]}, ensure_ascii=False) + "\n")
        if len(batch) == ROWS_PER_GROUP:
            flush()
    flush()
    if writer is None:
        raise ValueError(f"no usable row in {path}; the reasons are in {refused.name}")
    writer.close()
    partial.rename(out)
    return count


def convert(data: Path, out: Path, tasks: list[str], template: str) -> dict[str, int]:
    """Converts every split that `data` has; returns rows per parquet file. Finished files are left alone."""
    counts: dict[str, int] = {}
    out.mkdir(parents=True, exist_ok=True)
    with open(out / "refused.jsonl", "a", encoding="utf-8") as refused:
        for split in (s for s in SPLITS if s.task in tasks):
            path = find_file(data, split)
            if path is None:
                continue
            kinds: dict[str, Callable[[Row], dict]] = {"rl": lambda row: rl_record(row, template)}
            if not split.is_test:
                kinds["sft"] = lambda row: sft_record(row, template)
            if split.name == "base":
                del kinds["rl"]
            for kind, record in kinds.items():
                target = out / split.task / f"{split.name}.{kind}.parquet"
                if target.exists():
                    counts[str(target)] = pq.read_metadata(target).num_rows
                else:
                    counts[str(target)] = convert_split(path, split, data, target, record, refused)
    if not counts:
        raise FileNotFoundError(
            f"no Reason-RFT file of {', '.join(tasks)} below {data} (expected train_jsons/, test_jsons/)"
        )
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with train_jsons/, test_jsons/ and the pictures"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the parquet files")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--template", choices=sorted(TEMPLATES), default="reason_rft", help="how the policy is asked")
    args = parser.parse_args()
    for path, rows in convert(args.data, args.out, args.tasks, args.template).items():
        print(f"{rows:7d} rows  {path}")


if __name__ == "__main__":
    main()
