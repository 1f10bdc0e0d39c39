"""Which runs and evaluations the given folders hold, now: others may come while the viewer is open."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ekipl_rollout.errors import SettingsError
from recipe.ekipl.measure.results import Result, find_results
from recipe.ekipl.view.run import RunView

RULES = ("paper", "released", "released-enhanced")
SHOWN = 5
"""Runs that an error proposes."""


@dataclass
class Shown:
    """What the viewer shows. What is once in it keeps its place: addresses of the page name places."""

    runs: dict[Path, RunView] = field(default_factory=dict)
    evaluations: dict[tuple[Path, str], Result] = field(default_factory=dict)
    """By folder and rules."""

    def look(self, words: Sequence[str]) -> None:
        """Adds what is in or below `words`: run folders, folders of runs, evaluations. Raises SettingsError when one
        holds none of them."""
        problems = []
        for word in words:
            folder = Path(word).expanduser().resolve()
            here = [folder] if is_run(folder) else sorted(path for path in folder.glob("*/") if is_run(path))
            there = evaluations_below(folder)
            for path in here:
                self.runs.setdefault(path, RunView(path))
            for result in sorted(there, key=_in_order):
                self.evaluations[result.folder, result.content["rules"]] = result
            if not here and not there:
                why = "holds no run and no evaluation" if folder.exists() else "does not exist"
                near = sorted({str(path.parent) for path in Path("runs").glob("*/attempts")})
                found = f" Here are: {', '.join(near[:SHOWN])}." if near else ""
                problems.append(f"{word} {why}. Give a run's folder, a folder of runs, or an evaluation's.{found}")
        if problems:
            raise SettingsError(*problems)


def is_run(folder: Path) -> bool:
    """With groups alone it is a run of somebody's own verl command (docs/plug_in.md)."""
    own = (folder / "attempts").is_dir() or (folder / "metrics.jsonl").exists()
    return own or any((folder / "groups").glob("*.jsonl.gz"))


def evaluations_below(folder: Path) -> list[Result]:
    wanted = [rules for rules in RULES if any(folder.rglob(f"result.{rules}.json"))]
    return [result for rules in wanted for result in find_results([str(folder)], rules)]


def _in_order(result: Result) -> tuple[Path, int, str]:
    """The checkpoints of a run as they were made."""
    return result.folder.parent, int(result.content.get("step") or 0), result.folder.name
