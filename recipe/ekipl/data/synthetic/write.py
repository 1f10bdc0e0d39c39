"""Writes the synthetic world as Reason-RFT files: the same JSON fields, names and image folders as the released data.

    python -m recipe.ekipl.data.synthetic.write --out data/synthetic --tasks visual_counting --train 4000 --test 250

A row's pictures depend only on its id and the seed, so `problem_of` finds any row again (the demo experts do).
"""

import argparse
import json
import zlib
from pathlib import Path

import numpy as np
from tqdm import tqdm

from recipe.ekipl.data.splits import SPLITS, TASKS, Split
from recipe.ekipl.data.synthetic import counting, spatial, structure
from recipe.ekipl.data.synthetic.problem import Problem, response

BASE_VOICE_SHARE = 0.4  # of the base model's lessons are told in the experts' words: words it never saw would break it


def make(split: Split, rng: np.random.Generator) -> Problem:
    """The generator behind each split."""
    base, far = split.name == "base", split.name in ("super_clevr", "geometry3k")
    if split.task == "visual_counting":
        return counting.make(rng, "subtract" if base else "count", far)
    if split.task == "structure_perception":
        return structure.make(rng, "number" if base else "choose", far)
    view = {"trance_left": "left", "trance_right": "right"}.get(split.name, "center")
    return spatial.make(rng, "back" if base else "forth", view)


def split_of(row_id: str) -> tuple[Split, int]:
    """`visual_counting-train-17` -> (that split, 17). Raises KeyError for an id of another data set."""
    task, name, index = row_id.rsplit("-", 2)
    return next(s for s in SPLITS if (s.task, s.name) == (task, name)), int(index)


def problem_of(row_id: str, seed: int) -> Problem:
    """The problem behind a row, drawn again."""
    split, index = split_of(row_id)
    return make(split, np.random.default_rng([seed, zlib.crc32(f"{split.task}-{split.name}".encode()), index]))


def write_split(out: Path, split: Split, count: int, seed: int, pictures: Path) -> Path:
    """One JSON file and its pictures. Finished files are left alone; a half-written one is never seen."""
    path = out / split.pattern.replace("*", str(count))
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures.mkdir(parents=True, exist_ok=True)
    voices = np.random.default_rng([seed, 1])
    rows = []
    for index in tqdm(range(count), desc=f"{split.task} {split.name}", disable=None, leave=False):
        row_id = f"{split.task}-{split.name}-{index}"
        problem = problem_of(row_id, seed)
        parts = ("-init", "-fin") if len(problem.images) == 2 else ("",)
        names = [f"{row_id}{part}.png" for part in parts]
        for image, name in zip(problem.images, names, strict=True):
            image.save(pictures / name, compress_level=1)
        row = {"id": row_id, "image": names if len(names) > 1 else names[0], "problem": problem.question}
        if not split.is_test:
            voice = int(voices.integers(1, 3)) if split.name == "base" and voices.random() < BASE_VOICE_SHARE else 0
            row["cot"] = problem.chain_of_thought(voice)
        rows.append({**row, "answer": problem.answer})
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(rows, ensure_ascii=False, indent=0))
    partial.rename(path)
    return path


def write_world(out: Path, tasks: list[str], train: int, base: int, test: int, seed: int) -> list[Path]:
    """All splits of `tasks`; returns the JSON files."""
    counts = {"train": train, "base": base}
    (out / "world.json").parent.mkdir(parents=True, exist_ok=True)
    (out / "world.json").write_text(json.dumps({"seed": seed}))
    files = []
    for split in SPLITS:
        if split.task in tasks and (count := counts.get(split.name, test)):
            folder = out / "images" / ("test_images" if split.is_test else "train_images")
            files.append(write_split(out, split, count, seed, folder))
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--train", type=int, default=4000, help="rows of each train file")
    parser.add_argument(
        "--base", type=int, default=20000, help="rows of each file that the tiny base model is brought up on"
    )
    parser.add_argument("--test", type=int, default=250, help="rows of each test file")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for path in write_world(args.out, args.tasks, args.train, args.base, args.test, args.seed):
        print(path)


__all__ = ["make", "problem_of", "response", "split_of", "write_world"]

if __name__ == "__main__":
    main()
