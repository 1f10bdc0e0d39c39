"""One row on its way from JSON to parquet, and the two shapes that verl reads."""

from dataclasses import dataclass
from typing import Any

from recipe.ekipl.data.prompts import TEMPLATES
from recipe.ekipl.data.splits import Split


@dataclass(frozen=True)
class Row:
    """One problem of a Reason-RFT file."""

    id: str
    split: Split
    index: int
    """Position in the file."""

    images: tuple[bytes, ...]
    """Encoded pictures exactly as they lie on disk: they go to verl and to the experts unchanged."""

    problem: str
    answer: str
    cot: str | None
    """Reasoning for supervised learning; test files have none."""

    def prompt(self, template: str) -> str:
        """User turn with one <image> marker a picture, as verl's data sets expect."""
        return "<image>" * len(self.images) + TEMPLATES[template](self.split.task, self.problem, self.answer)


def rl_record(row: Row, template: str) -> dict[str, Any]:
    """A row for verl's RLHFDataset (verl/utils/dataset/rl_dataset.py)."""
    return {
        "data_source": row.split.data_source,
        "prompt": [{"role": "user", "content": row.prompt(template)}],
        "images": [{"bytes": image} for image in row.images],
        "ability": row.split.task,
        "reward_model": {"style": "rule", "ground_truth": row.answer},
        "extra_info": {"index": row.index, "id": row.id, "split": row.split.name},
    }


def sft_record(row: Row, template: str, with_reasoning: bool = True) -> dict[str, Any]:
    """A row for verl's MultiTurnSFTDataset (verl/utils/dataset/multiturn_sft_dataset.py)."""
    said = f"<think> {row.cot} </think>" if with_reasoning else ""
    target = f"{said}<answer> {row.answer} </answer>"
    return {
        "messages": [{"role": "user", "content": row.prompt(template)}, {"role": "assistant", "content": target}],
        "images": [{"bytes": image} for image in row.images],
    }
