"""Answers -> scores, by one set of rules. Asking and judging are apart: other rules cost no new answers."""

import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ekipl_reward import compute_score, evaluate

RULES = ("paper", "released")


@dataclass(frozen=True)
class RowScores:
    """What became of one row; all lists have one entry a sample."""

    row: str
    data_source: str
    truth: str
    scores: list[float]
    """The metric of Table 1, 0 ... 1 (ekipl_reward.evaluate)."""

    formats: list[float]
    """1 where the answer wears the format."""

    @property
    def mean(self) -> float:
        return sum(self.scores) / len(self.scores)


def judge_row(row: Mapping[str, str], answers: Sequence[Mapping[str, Any]], rules: str, enhanced: bool) -> RowScores:
    """`row` has id, data_source and truth. `enhanced`: Reason-RFT's extra rule for proprietary models (released rules)."""
    source, truth, texts = row["data_source"], row["truth"], [answer["text"] for answer in answers]
    extra = {"enhanced": True} if enhanced else {}
    return RowScores(
        row["id"],
        source,
        truth,
        [evaluate(source, text, truth, rules=rules, **extra) for text in texts],
        [compute_score(source, text, truth, rules=rules)["format"] for text in texts],
    )


def write_scores(path: Path, rows: Iterable[RowScores]) -> list[RowScores]:
    rows = list(rows)
    partial = path.with_suffix(".partial")
    partial.write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows), encoding="ascii")
    partial.replace(path)
    return rows


def read_scores(path: Path) -> list[RowScores]:
    """The rows of a scores file, in the order of the split; of `<path>.gz` where it was kept compressed."""
    packed = Path(f"{path}.gz")
    text = path.read_text("ascii") if path.exists() else gzip.decompress(packed.read_bytes()).decode("ascii")
    return [RowScores(**json.loads(line)) for line in text.splitlines()]
