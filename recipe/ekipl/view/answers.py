"""Every question that the page asks, and its answer. The server asks it over HTTP; an export writes the answers down."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recipe.ekipl.view.diff import Diff
from recipe.ekipl.view.folders import Shown
from recipe.ekipl.view.group import OUTCOMES
from recipe.ekipl.view.pictures import RowFinder


class Answers:
    """`get(path)` for the paths of the page: plain data, ready for JSON. Not for several threads at once."""

    def __init__(self, words: Sequence[str], data: Path | None = None):
        """`words`: folders, see Shown.look. `data`: where parquet files of rows lie that no run names."""
        self._words, self.shown = list(words), Shown()
        self._diff = Diff(self.shown)
        self._rows = RowFinder()
        self._data = sorted(data.rglob("*.parquet")) if data else []
        self.shown.look(self._words)

    def get(self, path: str) -> Any:
        """`start`, `runs/0`, `runs/0/curves`, `runs/0/groups/12`, `runs/0/groups/12/<uid>`, `diff/0/1/<split>`,
        `diff/0/1/<split>/<row>`. None when there is no such thing; SettingsError when two evaluations do not compare."""
        head, *rest = path.split("/", 4)
        try:
            if head == "start" and not rest:
                return self._start()
            if head == "runs" and rest:
                return self._run(_place(rest[0]), rest[1:])
            if head == "diff" and len(rest) in (3, 4):
                return self._difference(_place(rest[0]), _place(rest[1]), *rest[2:])
        except (ValueError, IndexError):
            pass
        return None

    def _start(self) -> dict[str, Any]:
        self.shown.look(self._words)
        runs = [run.overview() for run in self.shown.runs.values()]
        return {"runs": runs, "evaluations": self._diff.overview(), "outcomes": OUTCOMES}

    def _run(self, place: int, rest: list[str]) -> Any:
        run = list(self.shown.runs.values())[place]
        match rest:
            case []:
                return run.overview()
            case ["curves"]:
                return run.curves()
            case ["groups", step]:
                return run.summaries(int(step))
            case ["groups", step, uid]:
                group = run.group(int(step), uid)
                return group and {**group, **self._rows.find(group.get("row"), [*run.train_files, *self._data])}
        return None

    def _difference(self, first: int, second: int, split: str, row: str | None = None) -> Any:
        if row is None:
            return self._diff.rows(first, second, split)
        found = self._diff.row(first, second, split, row)
        held_out = [path for run in self.shown.runs.values() for path in run.val_files]
        files = [path for path in dict.fromkeys([*held_out, *self._data]) if path.name.startswith(f"{split}.")]
        return found and {**found, **self._rows.find(row, files)}


def _place(word: str) -> int:
    if not word.isdecimal():  # -1 would be a place, too
        raise ValueError(word)
    return int(word)
