"""A run folder as the page asks for it, a step at a time: opening a long run costs no more than opening a short one.

The run may still be writing. Files only grow, and a torn end is passed over; what was read is kept until the file's size
or time changes.
"""

import json
import math
import time
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from ekipl_rollout.answer import POLICY
from ekipl_rollout.group_files import group_paths, read_groups, read_learned
from ekipl_rollout.settings.advantage import AdvantageSettings
from recipe.ekipl.measure.report import chart_curves
from recipe.ekipl.run_files import RunFiles
from recipe.ekipl.view.group import summary, with_advantages

FILES_IN_MEMORY = 8
"""Whose answers are kept, for going from group to group within a step; summaries are kept of all."""

QUIET_S = 180.0
"""A run that wrote nothing for so long is not called running."""

Stamp = tuple[int, int]


class RunView:
    """One run."""

    def __init__(self, folder: Path):
        self.folder, self.name = folder, folder.name
        self._files = RunFiles(folder)
        self._groups: OrderedDict[tuple[Path, Stamp], list[dict[str, Any]]] = OrderedDict()
        self._summaries: dict[Path, tuple[Stamp, list[dict[str, Any]]]] = {}
        self._config: tuple[Stamp | None, dict[str, Any]] = (None, {})
        self._steps: tuple[list[tuple[Path, Stamp | None]], list[dict[str, Any]]] = ([], [])

    @property
    def config(self) -> dict[str, Any]:
        """The resolved config of the newest attempt; empty for a folder without one."""
        path = self.folder / "config.yaml"
        stamp = _stamp(path)
        if stamp != self._config[0]:
            self._config = (stamp, (yaml.load(path.read_text(), _YAML) or {}) if stamp else {})
        return self._config[1]

    @property
    def experts(self) -> list[str]:
        return [expert["name"] for expert in self.config.get("ekipl", {}).get("experts") or []]

    @property
    def num_kept(self) -> int:
        """G; 0 when it is not known."""
        return int(self.config.get("actor_rollout_ref", {}).get("rollout", {}).get("n", 0))

    @property
    def rule(self) -> AdvantageSettings | None:
        """How advantages are made; None without a config, and where they do not follow from rewards alone."""
        if not self.config:
            return None
        algorithm = self.config.get("algorithm", {})
        if algorithm.get("adv_estimator", "grpo") not in ("grpo", "ekipl"):
            return None
        wanted = {k: v for k, v in (self.config.get("ekipl", {}).get("advantage") or {}).items() if k in _RULE}
        rule = AdvantageSettings(**wanted)
        if rule.problems():
            return None
        plain = rule.is_papers and algorithm.get("norm_adv_by_std_in_grpo") is False
        return AdvantageSettings(rule.baseline, "none") if plain else rule

    @property
    def train_files(self) -> list[Path]:
        return self._rows("train_files")

    @property
    def val_files(self) -> list[Path]:
        return self._rows("val_files")

    def _rows(self, key: str) -> list[Path]:
        return [path for path in map(Path, self.config.get("data", {}).get(key) or []) if path.exists()]

    @property
    def weights(self) -> str:
        """`ekipl.weights.mode`."""
        if not self.config:
            return "unknown"
        return (self.config.get("ekipl", {}).get("weights") or {}).get("mode", "none")

    def overview(self) -> dict[str, Any]:
        """What the head of the page says; `groups` are the steps that have some."""
        rule, metrics = self.rule, self.metrics()
        paths = group_paths(self.folder)
        return {
            "name": self.name,
            "folder": str(self.folder),
            "plan": self._plan(),
            "sources": [POLICY, *(self.experts if self.config else self._seen(paths))],
            "advantage": {"baseline": rule.baseline, "std": rule.std, "papers": rule.is_papers} if rule else None,
            "weights": self.weights,
            "num_kept": self.num_kept,
            "groups": sorted({step for step, _ in paths}),
            "last_step": metrics[-1]["step"] if metrics else max((step for step, _ in paths), default=0),
            "has_metrics": bool(metrics),
            "running": time.time() - self._written(paths) < QUIET_S,
        }

    def metrics(self) -> list[dict[str, Any]]:
        paths = sorted(self._files.attempts.glob("*.jsonl")) or [self._files.metrics]
        stamps = [(path, _stamp(path)) for path in paths]
        if stamps != self._steps[0]:
            self._steps = (stamps, self._files.steps() or _lines(self._files.metrics))
        return self._steps[1]

    def curves(self) -> list[dict[str, Any]]:
        """The charts of report.html as numbers, aligned on one x axis each; None where a curve has no value."""
        return [_aligned(*chart) for chart in chart_curves(self.metrics(), self.experts)]

    def summaries(self, step: int) -> list[dict[str, Any]]:
        """The groups of a step, without texts."""
        found = []
        for path in self._paths(step):
            stamp = _stamp(path)
            if stamp is None:  # a resumed run has just deleted it
                continue
            known = self._summaries.get(path)
            if known is None or known[0] != stamp:
                made = [summary(group, self.num_kept, self.rule) for group in self._read(path, stamp)]
                known = self._summaries[path] = (stamp, made)
            found += known[1]
        return found

    def group(self, step: int, uid: str) -> dict[str, Any] | None:
        """One group with its texts."""
        for path in self._paths(step):
            stamp = _stamp(path)
            for group in self._read(path, stamp) if stamp else ():
                if str(group.get("uid")) == uid:
                    told = read_learned(self.folder, step).get(uid)
                    return with_advantages(group, self.rule, self.weights != "none", told)
        return None

    def _paths(self, step: int) -> Iterator[Path]:
        return iter(sorted((self.folder / "groups").glob(f"{step:06d}.*.jsonl.gz")))

    def _read(self, path: Path, stamp: Stamp) -> list[dict[str, Any]]:
        key = (path, stamp)
        if key not in self._groups:
            self._groups[key] = list(read_groups(path))
            while len(self._groups) > FILES_IN_MEMORY:
                self._groups.popitem(last=False)
        return self._groups[key]

    def _seen(self, paths: list[tuple[int, Path]]) -> list[str]:
        """The experts of the newest step, where no config names them."""
        answers = [answer for step, _ in paths[-1:] for group in self.summaries(step) for answer in group["answers"]]
        return sorted({answer[0] for answer in answers} - {POLICY})

    def _plan(self) -> dict[str, Any]:
        path = self.folder / "plan.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def _written(self, paths: list[tuple[int, Path]]) -> float:
        newest = [path for _, path in paths[-1:]] + sorted(self._files.attempts.glob("*.jsonl"))[-1:]
        return max((path.stat().st_mtime for path in newest if path.exists()), default=0.0)


_RULE = ("baseline", "std")
_YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a resolved config has 700 lines


def _stamp(path: Path) -> Stamp | None:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_size, stat.st_mtime_ns


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _aligned(title: str, curves: list, label: str) -> dict[str, Any]:
    at: dict[float, dict[int, float]] = defaultdict(dict)
    for i, curve in enumerate(curves):
        for x, y in zip(curve.x, curve.y, strict=True):
            at[x][i] = y
    xs = sorted(at)
    values = [[_finite(at[x].get(i)) for x in xs] for i in range(len(curves))]
    return {"title": title, "label": label, "x": xs, "names": [curve.label for curve in curves], "values": values}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
