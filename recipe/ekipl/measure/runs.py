"""Training runs, as figures read them: metrics, plan and configuration of a run folder."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ekipl_rollout.errors import SettingsError
from recipe.ekipl.measure.results import Result, find_results, label_and_path
from recipe.ekipl.run_files import RunFiles


@dataclass(frozen=True)
class Run:
    """What a training run left behind."""

    label: str
    folder: Path
    steps: list[dict[str, Any]]
    batch: int
    experts: list[str]
    """Configured names; metrics call them expert1, expert2, ..."""

    @property
    def trained(self) -> list[dict[str, Any]]:
        return [row for row in self.steps if "ekipl/groups/count" in row]


def read_run(label: str | None, folder: Path) -> Run:
    """Raises SettingsError when the folder lacks what a run writes."""
    try:
        metrics = folder / "metrics.jsonl"
        steps = RunFiles(folder).steps() or [json.loads(line) for line in metrics.read_text().splitlines()]
        batch = int(json.loads((folder / "plan.json").read_text())["batch"])
        config = yaml.safe_load((folder / "config.yaml").read_text())
    except (OSError, KeyError, ValueError) as error:
        raise SettingsError(f"{folder} is no complete run folder: {error}") from None
    return Run(label or folder.name, folder, steps, batch, [expert["name"] for expert in config["ekipl"]["experts"]])


def read_all(words: Sequence[str], rules: str) -> tuple[list[Run], list[Result]]:
    """Runs and evaluations among `[label=]folder`s. A run's own evaluations come with it, under its label."""
    runs, results = [], []
    for word in words:
        label, folder = label_and_path(word)
        is_run = (folder / "attempts").is_dir() or (folder / "metrics.jsonl").exists()
        if is_run:
            runs.append(read_run(label, folder))
        elif not folder.exists():
            raise SettingsError(f"{folder} does not exist.")
        if not is_run or any(folder.rglob(f"result.{rules}.json")):
            results += find_results([f"{label or folder.name}={folder}" if is_run else word], rules)
    return runs, results
