"""What stands in Table 1: the paper's rows, ours, and how averages are made."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ekipl_rollout.errors import SettingsError
from recipe.ekipl.measure.results import Result, score_matrix
from recipe.ekipl.measure.statistics import Estimate, estimate, estimate_average

PAPER = Path(__file__).with_name("paper_table_1.csv")
TASKS = {
    "visual_counting": ("Visual Counting", ("clevr_math", "super_clevr")),
    "structure_perception": ("Structure Perception", ("geomath", "geometry3k")),
    "spatial_transformation": ("Spatial Transformation", ("trance", "trance_left", "trance_right")),
}
"""Task -> (heading, its splits: in-domain first)."""

COLUMNS = [column for task, (_, splits) in TASKS.items() for column in (*splits, f"{task}_avg")]
LABELS = {
    "zero_shot": "Zero-Shot",
    "ans_sft": "+ ANS-SFT",
    "cot_sft": "+ CoT-SFT",
    "grpo": "+ Reason-RFT-Zero",
    "reason_rft": "+ Reason-RFT",
    "ekipl": "+ Vision-EKIPL",
    "sft_ekipl": "+ CoT-SFT, Vision-EKIPL",
}
"""Our name of a method -> the paper's (the last stands in the paper's Figure 3 only)."""

EXPERTS = "Proprietary Models"
"""The paper's heading of those that it takes for experts."""


@dataclass(frozen=True)
class PaperRow:
    """One printed row."""

    group: str
    base: str
    """`2B`, `7B` or "" for other models."""

    method: str
    label: str
    cells: Mapping[str, float]
    """Column -> per cent as printed."""

    spatial_rule: str
    """How the spatial AVG was made: `all`, the plain mean, as ours; `id_ood` weighs ID like all OOD columns together;
    `ood` leaves ID out."""


@dataclass(frozen=True)
class OurRow:
    """One method as measured here, in per cent; columns that were not evaluated are absent."""

    method: str
    runs: int
    cells: Mapping[str, Estimate]
    is_expert: bool = False
    """An expert of a configuration, and no checkpoint."""

    @property
    def label(self) -> str:
        return LABELS.get(self.method, self.method)


@dataclass(frozen=True)
class Line:
    """One row of a printed table."""

    method: str
    label: str
    ours: OurRow | None
    papers: PaperRow | None


@dataclass(frozen=True)
class Part:
    """Rows under one heading."""

    heading: str
    lines: Sequence[Line]
    beside: bool
    """True: our numbers, the paper's in brackets; False: the paper's alone."""

    def ranked(self, column: str) -> dict[str, int]:
        """Label -> 1 for the best of the column and 2 for the second; nothing where there is little to rank."""
        values = {}
        for line in self.lines:
            if self.beside and line.ours and column in line.ours.cells:
                values[line.label] = line.ours.cells[column].mean
            elif not self.beside and line.papers and line.papers.base:  # the paper ranks its training methods only
                values[line.label] = line.papers.cells[column]
        ordered = sorted(set(values.values()), reverse=True)
        return {name: ordered.index(v) + 1 for name, v in values.items() if ordered.index(v) < 2 < len(values)}


def paper_rows() -> list[PaperRow]:
    with open(PAPER, encoding="utf-8", newline="") as file:
        records = list(csv.DictReader(line for line in file if not line.startswith("#")))
    return [
        PaperRow(r["group"], r["base"], r["method"], r["label"], {c: float(r[c]) for c in COLUMNS}, r["spatial_rule"])
        for r in records
    ]


def our_row(method: str, results: Sequence[Result]) -> OurRow:
    """Means with intervals. Raises SettingsError when `results` are not runs of one method on the same rows."""
    if len({(r.content.get("step"), str(r.content.get("sampling"))) for r in results}) > 1:
        folders = ", ".join(str(r.folder) for r in results)
        raise SettingsError(
            f"{method}: {folders} are not seeds of one run, their steps or their sampling differ. "
            "Name one of them, or give each a label of its own: label=folder."
        )
    cells: dict[str, Estimate] = {}
    for task, (_, splits) in TASKS.items():
        here = {s: score_matrix(results, s) for s in splits if all(s in r.splits for r in results)}
        cells |= {split: _per_cent(estimate(scores)) for split, scores in here.items()}
        if len(here) == len(splits):
            cells[f"{task}_avg"] = _per_cent(estimate_average(list(here.values())))
    return OurRow(method, len(results), cells, all("expert" in result.content for result in results))


def _per_cent(found: Estimate) -> Estimate:
    return Estimate(100 * found.mean, 100 * found.low, 100 * found.high)


def parts_of(ours: Sequence[OurRow], base: str) -> list[Part]:
    """The paper's methods with ours beside them, then methods that only we have; likewise experts, also where none was
    evaluated here. Without ours: the paper's whole table."""
    papers = paper_rows()
    if not ours:
        headings = dict.fromkeys(row.group for row in papers)
        return [
            Part(h, [Line(r.method, r.label, None, r) for r in papers if r.group == h], beside=False) for h in headings
        ]
    left = {row.method: row for row in ours}
    methods, experts = (
        [Line(row.method, row.label, left.pop(row.method, None), row) for row in rows]
        for rows in ([row for row in papers if row.base == base], [row for row in papers if row.group == EXPERTS])
    )
    for row in left.values():
        (experts if row.is_expert else methods).append(Line(row.method, row.label, row, None))
    return [
        Part(f"ours (paper: Qwen2-VL-{base}-Instruct)", methods, beside=True),
        Part(f"experts (paper: {EXPERTS.lower()})", experts, beside=True),
    ]
