"""What finished pieces left behind, ready to be compared: two methods on the training seeds that both have, seed by seed.

The seed decides the base model, and at this size that decides a lot: a seed that only one side has would count as a
difference between the methods.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ekipl_rollout.errors import SettingsError
from recipe.ekipl.evaluate.result import SOLVED
from recipe.ekipl.measure.results import Result, find_results, score_matrix
from recipe.ekipl.measure.runs import Run, read_run
from recipe.ekipl.measure.statistics import Comparison, compare, crossed_draws, pass_at_k, percentiles
from recipe.ekipl.reproduce.pieces import Study
from recipe.ekipl.reproduce.sizes import Regime

BySeed = Mapping[int, Result]
"""Training seed -> its evaluation."""


class NotMeasured(Exception):
    """A claim needs something that no finished piece has."""


@dataclass(frozen=True)
class Measured:
    """Everything of one regime. Only pieces that are done count."""

    study: Study
    regime: Regime
    done: frozenset[str]
    """Names of the finished pieces."""

    def seeds(self, variant: str) -> list[int]:
        """Training seeds of the finished pieces; one of what all seeds share."""
        names = {seed: self.study.name(self.regime, variant, seed) for seed in self.study.seeds_of(variant)}
        return [seed for seed, name in names.items() if name in self.done]

    def results(self, variant: str, evaluation: str = "final") -> BySeed:
        """An expert was asked once and stands beside every seed. Raises NotMeasured."""
        is_expert = variant.startswith("demo-")
        folder, name = ("experts", variant) if is_expert else (variant, evaluation)
        found = {}
        for seed in self.seeds(folder):
            path = self.study.kept_folder(self.regime, folder, seed) / "evaluations" / name
            if (path / "result.paper.json").exists():
                (found[seed],) = find_results([f"{variant}={path}"])
        if not found:
            raise NotMeasured(f"{variant} {evaluation}")
        return dict.fromkeys(self.study.seeds, found[0]) if is_expert else found

    def runs(self, variant: str) -> list[Run]:
        """Training runs by seed. Raises NotMeasured."""
        folders = [self.study.kept_folder(self.regime, variant, seed) for seed in self.seeds(variant)]
        if not folders:
            raise NotMeasured(variant)
        return [read_run(variant, folder) for folder in folders]

    def variants(self) -> list[str]:
        return [variant for variant in self.regime.variants if self.seeds(variant)]

    def difference(self, first: BySeed, second: BySeed, splits: Sequence[str], factor: float = 1.0) -> Comparison:
        """First minus `factor` times second, paired by seed and row. Raises NotMeasured where they have no seed in common."""
        one, other = _pairs(first, second)
        a, b = _scores([*one, *other], splits).reshape(2, len(one), -1)
        return compare(a, factor * b, by_run=True)

    def pass_difference(self, first: str, second: str, split: str, k: int) -> Comparison:
        """pass@k of the first minus that of the second, paired by seed and row."""
        one, other = _pairs(*(self.results(name, "samples") for name in (first, second)))
        a, b = _passes([*one, *other], split, k).reshape(2, len(one), -1)
        return compare(a, b, by_run=True)

    def samples(self) -> int:
        """Answers a row that pass@k was measured with."""
        return next(iter(self.results("zero_shot", "samples").values())).splits["trance"]["samples"]

    def fall_of_expert_share(self, variant: str) -> Comparison:
        """Share of experts among the kept answers, first quarter of the steps minus the last; steps and seeds resampled."""
        shares = np.array([[row["ekipl/expert_share"] for row in run.trained] for run in self.runs(variant)])
        quarter = max(1, shares.shape[1] // 4)
        falls = shares[:, :quarter] - shares[:, -quarter:]
        low, high = percentiles(crossed_draws(falls)[0])
        return Comparison(float(falls.mean()), float(low), float(high), float("nan"), quarter, 0, 0, len(falls))


def _pairs(first: BySeed, second: BySeed) -> tuple[list[Result], list[Result]]:
    seeds = sorted(set(first) & set(second))
    if not seeds:
        raise NotMeasured("no training seed is finished on both sides")
    return [first[seed] for seed in seeds], [second[seed] for seed in seeds]


def _scores(results: Sequence[Result], splits: Sequence[str]) -> np.ndarray:
    """[S, R] over the rows of all `splits`, which must have equally many: then the mean of rows is that of splits."""
    missing = [split for split in splits if any(split not in result.splits for result in results)]
    if missing:
        raise NotMeasured(", ".join(missing))
    parts = [score_matrix(results, split) for split in splits]
    if len({part.shape[1] for part in parts}) > 1:
        raise SettingsError(f"{', '.join(splits)} have different numbers of rows; the study draws equally many.")
    return np.concatenate(parts, axis=1)


def _passes(results: Sequence[Result], split: str, k: int) -> np.ndarray:
    """[S, R] pass@k of every row, rows in the order of the first."""
    score_matrix(results, split)  # refuses other rows
    rows = list(results[0].scores(split))
    found = []
    for result in results:
        scores = result.scores(split)
        right = np.array([[score >= SOLVED for score in scores[row]] for row in rows])
        found.append(pass_at_k(right.shape[1], right.sum(axis=1), [k])[:, 0])
    return np.array(found)
