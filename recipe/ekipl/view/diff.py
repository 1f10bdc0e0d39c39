"""Two evaluations on the same rows: who was right where, and what each said."""

import difflib
import json
import re
from collections import OrderedDict
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ekipl_rollout.errors import SettingsError
from recipe.ekipl.evaluate.judge import RowScores, read_scores
from recipe.ekipl.measure.results import Result
from recipe.ekipl.measure.statistics import compare
from recipe.ekipl.view.folders import Shown

WORDS_COMPARED = 2_000
"""Longer answers are shown without marks: the time of a comparison grows with the square."""

FILES_IN_MEMORY = 4


class Diff:
    """Answers and scores of evaluations, two at a time."""

    def __init__(self, shown: Shown):
        self._shown = shown
        self._answers: OrderedDict[tuple[Path, int], dict[str, list[dict[str, Any]]]] = OrderedDict()

    @property
    def _evaluations(self) -> list[Result]:
        return list(self._shown.evaluations.values())

    def overview(self) -> list[dict[str, Any]]:
        """Every evaluation: what it is called, of which checkpoint, and its splits with their accuracy."""
        return [
            {
                "name": _name(result.folder),
                "folder": str(result.folder),
                "rules": result.content["rules"],
                "model": result.content.get("model"),
                "step": result.content.get("step"),
                "splits": {name: split["accuracy"]["mean"] for name, split in result.splits.items()},
            }
            for result in self._evaluations
        ]

    def rows(self, first: int, second: int, split: str) -> dict[str, Any]:
        """Rows that both have, [row, truth, mean score of the first, of the second], and the paired comparison."""
        one, two = (self._scores(place, split) for place in (first, second))
        shared = [row for row in one if row in two]
        if not shared:
            raise SettingsError(f"{split}: the two evaluations have no row in common.")
        means = np.array([[scores[row].mean for row in shared] for scores in (one, two)])
        rows = [[row, one[row].truth, means[0, i], means[1, i]] for i, row in enumerate(shared)]
        left_out = len(one) + len(two) - 2 * len(shared)
        return {"rows": rows, "left_out": left_out, "comparison": asdict(compare(means[1], means[0]))}

    def row(self, first: int, second: int, split: str, row_id: str) -> dict[str, Any] | None:
        """Both sides' answers to one row, sample by sample, in pieces: [text, "" or "only"]; None where only scores are kept."""
        one, two = (self._said(place, split, row_id) for place in (first, second))
        if one is None or two is None:
            return None
        scores = self._scores(first, split)[row_id]
        for left, right in zip(one, two, strict=False):
            if left["text"] is not None and right["text"] is not None:
                left["pieces"], right["pieces"] = marked(left["text"], right["text"])
        return {
            "row": row_id,
            "truth": scores.truth,
            "data_source": scores.data_source,
            "sides": [[_without_text(answer) for answer in side] for side in (one, two)],
        }

    def _scores(self, place: int, split: str) -> dict[str, RowScores]:
        result = self._evaluations[place]
        if split not in result.splits:
            raise SettingsError(f"{result.folder} has no split {split}.")
        return {row.row: row for row in read_scores(result.folder / split / f"scores.{result.content['rules']}.jsonl")}

    def _said(self, place: int, split: str, row_id: str) -> list[dict[str, Any]] | None:
        scores = self._scores(place, split).get(row_id)
        if scores is None:
            return None
        path = self._evaluations[place].folder / split / "answers.jsonl"
        # what is kept of a finished piece of the study has no texts (reproduce/kept.py)
        without = [{"sample": i, "text": None} for i in range(len(scores.scores))]
        answers = self._texts(path).get(row_id, []) if path.exists() else without
        judged = zip(answers, scores.scores, scores.formats, strict=False)
        return [{**answer, "score": score, "format": wears} for answer, score, wears in judged]

    def _texts(self, path: Path) -> dict[str, list[dict[str, Any]]]:
        key = (path, path.stat().st_mtime_ns)
        if key not in self._answers:
            by_row: dict[str, list[dict[str, Any]]] = {}
            with open(path, encoding="ascii") as file:
                for answer in map(json.loads, file):
                    by_row.setdefault(answer["row"], []).append(answer)
            for answers in by_row.values():
                answers.sort(key=lambda answer: answer["sample"])
            self._answers[key] = by_row
            while len(self._answers) > FILES_IN_MEMORY:
                self._answers.popitem(last=False)
        return self._answers[key]


def _name(folder: Path) -> str:
    """An evaluation in a run's folder carries the run's name."""
    inside = folder.parent.name == "evaluations"
    return f"{folder.parent.parent.name} {folder.name}" if inside else folder.name


def marked(first: str, second: str) -> tuple[list[list[str]], list[list[str]]]:
    """Both texts in pieces, [text, "only"] where the other has something else. The pieces together are the text."""
    one, two = (re.findall(r"\s+|[^\s<>/]+|[<>/]", text) for text in (first, second))
    if max(len(one), len(two)) > WORDS_COMPARED:
        return [[first, ""]], [[second, ""]]
    pieces: tuple[list[list[str]], list[list[str]]] = ([], [])
    for kind, a, b, c, d in difflib.SequenceMatcher(None, one, two, autojunk=False).get_opcodes():
        for side, words in zip(pieces, (one[a:b], two[c:d]), strict=True):
            if words:
                side.append(["".join(words), "" if kind == "equal" else "only"])
    return pieces


def _without_text(answer: dict[str, Any]) -> dict[str, Any]:
    wanted = {key: answer.get(key) for key in ("sample", "status", "tokens", "score", "format")}
    whole = None if answer["text"] is None else [[answer["text"], ""]]
    return {**wanted, "pieces": answer.get("pieces") or whole}
