"""Runs that a run can be compared with: the same rows, the same base model, in the same folder of runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from recipe.ekipl.measure.curves import Curve, draw
from recipe.ekipl.measure.summary import validation
from recipe.ekipl.run_files import RunFiles

SAME = ("data.train_files", "data.val_files", "data.train_batch_size", "actor_rollout_ref.model.path")
SHOWN = 8
PAPERS = {"select.rule": "top_g", "weights.mode": "none", "advantage.control": "none"}
"""Settings of the `ekipl:` block that are said only where they are not the paper's."""


@dataclass(frozen=True)
class Beside:
    """One run of the comparison."""

    name: str
    method: str
    steps: list[dict[str, Any]]

    def accuracy(self) -> list[tuple[int, dict[str, float]]]:
        return validation(self.steps, "acc")

    def zero_variance(self) -> float | None:
        """Share of groups whose kept rewards were all equal, mean over the steps."""
        shares = [row["ekipl/groups/zero_variance"] for row in self.steps if "ekipl/groups/zero_variance" in row]
        return sum(shares) / len(shares) if shares else None


def method_of(config: dict[str, Any]) -> str:
    """What tells two runs on the same rows apart, in words."""
    ours = config["ekipl"]
    if not ours["experts"]:
        return "GRPO, no experts"
    baseline, std = ours["advantage"]["baseline"], ours["advantage"]["std"]
    words = ["the paper's advantage" if baseline == std == "selected" else f"baseline over {baseline}, std over {std}"]
    for key, papers in PAPERS.items():
        value = _value(ours, key)
        if value not in (None, papers):
            words.append(f"{key.removeprefix('advantage.')}={value}")
    return ", ".join(["EKIPL", *words])


def runs_beside(root: Path) -> list[Beside]:
    """The run in `root`, then up to SHOWN others of its folder that trained on the same rows from the same model."""
    own = _config(root)
    if own is None:
        return []
    found = [_read(root, own)]
    for folder in sorted(path for path in root.parent.iterdir() if path.is_dir() and path != root):
        config = _config(folder)
        if config is not None and all(_value(config, key) == _value(own, key) for key in SAME):
            other = _read(folder, config)
            if any(step for step, _ in other.accuracy()):  # it got as far as a validation after training
                found.append(other)
    return found[: SHOWN + 1]


def beside_charts(runs: list[Beside]) -> list[tuple[str, str]]:
    """(title, SVG): held-out accuracy of every run, one chart for each data source."""
    sources = list(runs[0].accuracy()[0][1]) if runs and runs[0].accuracy() else []
    return [
        (source, draw([_curve(run, source) for run in runs], "accuracy"))
        for source in sources
        if any(source in values for run in runs for _, values in run.accuracy())
    ]


def _curve(run: Beside, source: str) -> Curve:
    points = [(step, values[source]) for step, values in run.accuracy() if source in values]
    return Curve(f"{run.method} ({run.name})", [step for step, _ in points], [value for _, value in points])


def _config(folder: Path) -> dict[str, Any] | None:
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text())
    except (OSError, yaml.YAMLError):  # no run, or one that never started
        return None
    return config if _value(config, "ekipl.advantage.baseline") else None


def _value(config: Any, key: str) -> Any:
    """None where a config of somebody else's has no such key."""
    found: Any = config
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _read(folder: Path, config: dict[str, Any]) -> Beside:
    return Beside(folder.name, method_of(config), RunFiles(folder).steps())
