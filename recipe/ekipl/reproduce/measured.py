"""What finished pieces left behind, ready to be compared."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ekipl_rollout.errors import SettingsError
from recipe.ekipl.evaluate.result import SOLVED
from recipe.ekipl.measure.results import Result, find_results, score_matrix
from recipe.ekipl.measure.runs import Run, read_run
from recipe.ekipl.measure.statistics import Comparison, compare, crossed_draws, pass_at_k, percentiles
from recipe.ekipl.reproduce.pieces import Study
from recipe.ekipl.reproduce.sizes import Regime


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

    def results(self, variant: str, evaluation: str = "final") -> list[Result]:
        """One result a seed. Raises NotMeasured."""
        folder = "experts" if variant.startswith("demo-") else variant
        name = variant if variant.startswith("demo-") else evaluation
        at = [self.study.kept_folder(self.regime, folder, seed) / "evaluations" / name for seed in self.seeds(folder)]
        at = [path for path in at if (path / "result.paper.json").exists()]
        if not at:
            raise NotMeasured(f"{variant} {evaluation}")
        return find_results([f"{variant}={path}" for path in at])

    def runs(self, variant: str) -> list[Run]:
        """Training runs by seed. Raises NotMeasured."""
        folders = [self.study.kept_folder(self.regime, variant, seed) for seed in self.seeds(variant)]
        if not folders:
            raise NotMeasured(variant)
        return [read_run(variant, folder) for folder in folders]

    def variants(self) -> list[str]:
        return [variant for variant in self.regime.variants if self.seeds(variant)]

    def scores(self, results: Sequence[Result], splits: Sequence[str]) -> np.ndarray:
        """[S, R] over the rows of all `splits`, which must have equally many: then the mean of rows is that of splits."""
        missing = [split for split in splits if any(split not in result.splits for result in results)]
        if missing:
            raise NotMeasured(", ".join(missing))
        parts = [score_matrix(results, split) for split in splits]
        if len({part.shape[1] for part in parts}) > 1:
            raise SettingsError(f"{', '.join(splits)} have different numbers of rows; the study draws equally many.")
        return np.concatenate(parts, axis=1)

    def difference(
        self, first: Sequence[Result], second: Sequence[Result], splits: Sequence[str], factor: float = 1.0
    ) -> Comparison:
        """First minus `factor` times second, paired by row."""
        return compare(self.scores(first, splits), factor * self.scores(second, splits))

    def pass_difference(self, first: str, second: str, split: str, k: int) -> Comparison:
        """pass@k of the first minus that of the second, paired by row."""
        a, b = (self._passes(self.results(name, "samples"), split, k) for name in (first, second))
        return compare(a, b)

    def _passes(self, results: Sequence[Result], split: str, k: int) -> np.ndarray:
        """[S, R] pass@k of every row."""
        rows = list(results[0].scores(split))
        found = []
        for result in results:
            scores = result.scores(split)
            right = np.array([[score >= SOLVED for score in scores[row]] for row in rows])
            found.append(pass_at_k(right.shape[1], right.sum(axis=1), [k])[:, 0])
        return np.array(found)

    def samples(self) -> int:
        """Answers a row that pass@k was measured with."""
        return self.results("zero_shot", "samples")[0].splits["trance"]["samples"]

    def fall_of_expert_share(self, variant: str) -> Comparison:
        """Share of experts among the kept answers, first quarter of the steps minus the last; steps and seeds resampled."""
        shares = np.array([[row["ekipl/expert_share"] for row in run.trained] for run in self.runs(variant)])
        quarter = max(1, shares.shape[1] // 4)
        first, last = shares[:, :quarter], shares[:, -quarter:]
        draws = crossed_draws(first, seed=0)[0] - crossed_draws(last, seed=1)[0]
        low, high = percentiles(draws)
        return Comparison(float(first.mean() - last.mean()), float(low), float(high), float("nan"), quarter, 0, 0)
