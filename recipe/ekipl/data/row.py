"""One row on its way from JSON to parquet, how it is written, and the shapes that verl reads."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipe.ekipl.data.prompts import TEMPLATES

MIN_PIXELS, MAX_PIXELS = 3136, 480_000
"""Reason-RFT's limits (its training ignores the upper one; here it is written into every row)."""


@dataclass(frozen=True)
class How:
    """How rows are written."""

    template: str = "reason_rft"
    """How the policy is asked (prompts.TEMPLATES)."""

    pictures: str = "embed"
    """`embed`: the encoded bytes lie in the parquet file; `reference`: it holds absolute paths."""

    min_pixels: int = MIN_PIXELS
    max_pixels: int = MAX_PIXELS
    """Width x height to which a picture is scaled. Each picture of a row carries both, so that verl's data sets (training
    and rollout) and the evaluation scale alike, whatever a processor's own limits are."""


@dataclass(frozen=True)
class Picture:
    """One picture that can be decoded."""

    path: Path
    content: bytes
    """Encoded exactly as it lies on disk: it goes to verl and to the experts unchanged."""


@dataclass(frozen=True)
class Row:
    """One problem."""

    id: str
    task: str
    data_source: str
    """What the reward knows the row by (ekipl_reward.tasks)."""

    split: str
    index: int
    """Position in the file."""

    pictures: tuple[Picture, ...]
    problem: str
    answer: str
    cot: str | None
    """Reasoning for supervised learning; None where there is none."""


def rl_record(row: Row, how: How) -> dict[str, Any]:
    """A row for verl's RLHFDataset (verl/utils/dataset/rl_dataset.py)."""
    return {
        "data_source": row.data_source,
        "prompt": [_user(row, how)],
        "images": _images(row, how),
        "ability": row.task,
        "reward_model": {"style": "rule", "ground_truth": row.answer},
        "extra_info": {"index": row.index, "id": row.id, "split": row.split},
    }


def sft_record(row: Row, how: How) -> dict[str, Any]:
    """CoT-SFT: a row for verl's MultiTurnSFTDataset (verl/utils/dataset/multiturn_sft_dataset.py)."""
    return _lesson(row, how, f"<think> {row.cot} </think><answer> {row.answer} </answer>")


def ans_record(row: Row, how: How) -> dict[str, Any]:
    """ANS-SFT: the same without reasoning."""
    return _lesson(row, how, f"<answer> {row.answer} </answer>")


def _lesson(row: Row, how: How, target: str) -> dict[str, Any]:
    return {"messages": [_user(row, how), {"role": "assistant", "content": target}], "images": _images(row, how)}


def _user(row: Row, how: How) -> dict[str, str]:
    """One <image> marker a picture, as verl's data sets expect."""
    text = TEMPLATES[how.template](row.task, row.data_source, row.problem, row.answer)
    return {"role": "user", "content": "<image>" * len(row.pictures) + text}


def _images(row: Row, how: How) -> list[dict[str, Any]]:
    limits = {"min_pixels": how.min_pixels, "max_pixels": how.max_pixels}
    if how.pictures == "reference":
        return [{"image": str(picture.path), **limits} for picture in row.pictures]
    return [{"bytes": picture.content, **limits} for picture in row.pictures]
