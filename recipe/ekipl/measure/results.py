"""Finished evaluations, as tables, figures and comparisons read them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ekipl_rollout.errors import SettingsError
from recipe.ekipl.evaluate.judge import read_scores


@dataclass(frozen=True)
class Result:
    """One result.<rules>.json and the scores beside it."""

    folder: Path
    label: str
    """Row of a table, curve of a figure: as given on the command line, else the method, else the folder's name."""

    content: dict[str, Any]

    @property
    def splits(self) -> dict[str, dict[str, Any]]:
        return self.content["splits"]

    @property
    def samples_seen(self) -> int | None:
        return self.content.get("samples_seen")

    def scores(self, split: str) -> dict[str, list[float]]:
        """Row id -> the scores of its samples."""
        path = self.folder / split / f"scores.{self.content['rules']}.jsonl"
        return {row.row: row.scores for row in read_scores(path)}


def label_and_path(word: str) -> tuple[str | None, Path]:
    """`label=path`, or a path alone."""
    label, equals, path = word.partition("=")
    return (label, Path(path)) if equals and "/" not in label else (None, Path(word))


def find_results(words: Sequence[str], rules: str = "paper") -> list[Result]:
    """Every result of `rules` in or below the given `[label=]path`s. Raises SettingsError for a path without any."""
    found: dict[tuple[Path, str], Result] = {}
    for word in words:
        label, path = label_and_path(word)
        paths = [path] if path.is_file() else sorted(path.rglob(f"result.{rules}.json"))
        if not paths:
            raise SettingsError(f"{path} holds no result.{rules}.json. Make one with python -m recipe.ekipl.evaluate.")
        for at in paths:
            content = json.loads(at.read_text())
            name = label or content.get("method") or content["name"]
            found[at.resolve(), name] = Result(at.parent, name, content)
    return list(found.values())


def by_label(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Runs of one method together, in the order in which they were given."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result.label, []).append(result)
    return groups


def shared_seeds(first: Sequence[Result], second: Sequence[Result]) -> list[int]:
    """Training seeds that both sides have, in order. None where a side does not name all of its seeds, or one twice."""
    sides: list[list[Any]] = [[result.content.get("train_seed") for result in side] for side in (first, second)]
    if any(None in seeds or len(set(seeds)) < len(seeds) for seeds in sides):
        return []
    return sorted(set(sides[0]) & set(sides[1]))


def score_matrix(results: Sequence[Result], split: str) -> np.ndarray:
    """[S, R] mean score of each row in each run, rows in the order of the first. Raises SettingsError for other rows."""
    scores = [result.scores(split) for result in results]
    rows = list(scores[0])
    for result, other in zip(results[1:], scores[1:], strict=True):
        if set(other) != set(rows):
            raise SettingsError(
                f"{results[0].folder} and {result.folder} were not evaluated on the same rows of {split} "
                f"({len(rows)} and {len(other)}, {len(set(rows) & set(other))} in common). Evaluate both alike."
            )
    return np.array([[np.mean(one[row]) for row in rows] for one in scores])
