"""What the figures show, as numbers: from runs and from finished evaluations."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from recipe.ekipl.measure.curves import moving_mean
from recipe.ekipl.measure.results import Result
from recipe.ekipl.measure.runs import Run
from recipe.ekipl.measure.summary import validation
from recipe.ekipl.measure.table_rows import TASKS
from recipe.ekipl.measure.table_text import no_formula


@dataclass(frozen=True)
class Point:
    """One place of a curve; `low` and `high` are the ends of its band, equal to `y` without one."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class Series:
    """One curve."""

    label: str
    points: list[Point]
    level: bool = False
    """True: one value that depends on no x, drawn across the panel."""

    trend: list[float] = field(default_factory=list)
    """Moving mean of a noisy curve; the points are then drawn faintly."""

    run: str = ""
    """Which of several runs of the label, where each is a curve of its own."""


@dataclass(frozen=True)
class Panel:
    title: str
    series: list[Series]


@dataclass(frozen=True)
class Figure:
    """One figure, its panels side by side with one y axis."""

    name: str
    """File name without ending."""

    x_label: str
    y_label: str
    panels: list[Panel]
    note: str
    """What a band or a line means; printed with the figure's path."""

    log2: bool = False


def _spread(values: Sequence[float], x: float) -> Point:
    """Several seeds as one point: their mean, from the lowest to the highest."""
    return Point(x, sum(values) / len(values), min(values), max(values))


def _over_seeds(curves: Iterable[list[tuple[float, float]]]) -> list[Point]:
    """Curves of several seeds -> one, at every x that any of them has."""
    values: dict[float, list[float]] = {}
    for curve in curves:
        for x, y in curve:
            values.setdefault(x, []).append(y)
    return [_spread(values[x], x) for x in sorted(values)]


def labels_of(things: Iterable[Run | Result]) -> list[str]:
    return list(dict.fromkeys(thing.label for thing in things))


def _views(task: str) -> list[tuple[str, tuple[str, ...]]]:
    """(panel title, splits whose mean it shows) of a task."""
    _, splits = TASKS[task]
    return [("in domain", splits[:1]), ("out of domain", splits[1:])]


def _mean_of(values: dict[str, float], splits: Sequence[str]) -> float | None:
    """Mean over `splits`; None when one of them was not measured."""
    return sum(values[s] for s in splits) / len(splits) if all(s in values for s in splits) else None


def _validated(run: Run, splits: Sequence[str]) -> list[tuple[int, float]]:
    """(step, mean accuracy over `splits`) of each validation that measured them."""
    found = [(step, _mean_of(values, splits)) for step, values in validation(run.steps, "acc")]
    return [(step, value) for step, value in found if value is not None]


def _evaluated(results: Iterable[Result], splits: Sequence[str]) -> list[tuple[int | None, float]]:
    """(training rows seen, mean accuracy over `splits`) of each evaluation with one answer a row; those with several
    are for pass@k."""
    found = []
    for result in results:
        single = {name: split["accuracy"]["mean"] for name, split in result.splits.items() if split["samples"] == 1}
        value = _mean_of(single, splits)
        if value is not None:
            found.append((result.samples_seen, value))
    return found


def _is_of(result: Result, run: Run) -> bool:
    """An evaluation of one of the run's checkpoints."""
    return run.folder in result.folder.parents


def _sample_curve(run: Run, results: list[Result], splits: Sequence[str]) -> list[tuple[float, float]]:
    """(training rows seen, accuracy): validations, and evaluations of its checkpoints, which count before them."""
    own = [result for result in results if _is_of(result, run)]
    seen = {float(step * run.batch): value for step, value in _validated(run, splits)}
    seen |= {float(x): value for x, value in _evaluated(own, splits) if x is not None}
    return sorted(seen.items())


def samples_figure(task: str, runs: list[Run], results: list[Result]) -> Figure:
    """Figure 3: accuracy against training rows seen. Evaluations of unknown place are lines across."""
    alone = [result for result in results if not any(_is_of(result, run) for run in runs)]
    panels = []
    for title, splits in _views(task):
        series = []
        for label in labels_of([*runs, *results]):
            curves = [_sample_curve(run, results, splits) for run in runs if run.label == label]
            others = _evaluated((result for result in alone if result.label == label), splits)
            points = _over_seeds([*curves, [(float(x), value) for x, value in others if x is not None]])
            across = [value for x, value in others if x is None]
            if points:
                series.append(Series(label, points))
            elif across:
                series.append(Series(label, [_spread(across, 0.0)], level=True))
        panels.append(Panel(title, series))
    note = "bands: lowest to highest training seed; lines across: evaluations without a number of rows seen"
    return Figure(f"figure_3_samples_{task}", "training rows seen", "accuracy (%)", panels, note)


def sources_figure(runs: list[Run]) -> Figure:
    """Figure 4: where the kept answers come from, a panel a method."""
    panels = []
    for label in labels_of(run for run in runs if run.experts):
        of_label = [run for run in runs if run.label == label]
        names = {"policy": "policy", **{f"expert{i}": name for i, name in enumerate(of_label[0].experts, start=1)}}
        series = [
            _trend(
                name, [[(row["step"], row.get(f"ekipl/{key}/share", 0.0)) for row in run.trained] for run in of_label]
            )
            for key, name in names.items()
        ]
        panels.append(Panel(label, [s for s in series if s.points]))
    note = "faint: each step; strong: mean of the last ten steps; mean over training seeds"
    return Figure("figure_4_sources", "step", "share of kept answers (%)", panels, note)


def _trend(label: str, curves: list[list[tuple[float, float]]]) -> Series:
    points = _over_seeds(curves)
    return Series(label, points, trend=moving_mean([point.y for point in points]))


def pass_at_k_figure(task: str, results: list[Result]) -> Figure:
    """Figure 5: pass@k of evaluations with several samples a row, a panel a split."""
    panels = []
    for split in TASKS[task][1]:
        series = []
        sampled = [r for r in results if r.splits.get(split, {}).get("pass_at_k")]
        for label in labels_of(sampled):
            curves = [r.splits[split]["pass_at_k"] for r in sampled if r.label == label]
            sizes = sorted(int(k) for k in curves[0])
            if len(curves) == 1:
                points = [Point(k, *(curves[0][str(k)][name] for name in ("mean", "low", "high"))) for k in sizes]
            else:
                points = _over_seeds([[(int(k), point["mean"]) for k, point in curve.items()] for curve in curves])
            series.append(Series(label, points))
        panels.append(Panel(split, series))
    note = "unbiased pass@k; bands: 95 % bootstrap interval over rows, or lowest to highest training seed"
    return Figure(f"figure_5_pass_at_k_{task}", "k", "pass@k (%)", [p for p in panels if p.series], note, log2=True)


def dollars_figure(task: str, runs: list[Run], results: list[Result]) -> Figure:
    """Accuracy against what the experts have cost so far. A method that cost nothing is a line at its last accuracy."""
    panels = []
    for title, splits in _views(task):
        series = []
        for label in labels_of(runs):
            of_label = [run for run in runs if run.label == label]
            curves = [
                [(_spent(run, seen / run.batch), value) for seen, value in _sample_curve(run, results, splits)]
                for run in of_label
            ]
            if not any(curves):
                continue
            if any(x > 0 for curve in curves for x, _ in curve):
                # seeds differ in what they have spent at a step: each is a curve of its own
                pairs = zip(of_label, curves, strict=True)
                series += [Series(label, _over_seeds([curve]), run=run.folder.name) for run, curve in pairs]
            else:
                series.append(Series(label, [_spread([curve[-1][1] for curve in curves if curve], 0.0)], level=True))
        panels.append(Panel(title, series))
    note = "a curve a training seed; lines across: methods that cost nothing, at their last accuracy"
    return Figure(f"dollars_{task}", "dollars spent on experts", "accuracy (%)", panels, note)


def _spent(run: Run, step: float) -> float:
    """Dollars up to and with a step."""
    return sum(row.get("ekipl/dollars", 0.0) for row in run.trained if row["step"] <= step)


def gradient_figure(runs: list[Run]) -> Figure:
    """Share of groups whose advantages are not all zero, with the baseline in use."""
    series = []
    for label in labels_of(runs):
        of_label = [run for run in runs if run.label == label]
        curves = [
            [(row["step"], 1.0 - row["ekipl/groups/silent"]) for row in run.trained if "ekipl/groups/silent" in row]
            for run in of_label
        ]
        if any(curves):
            series.append(_trend(label, curves))
    note = "faint: each step; strong: mean of the last ten steps; mean over training seeds"
    return Figure("gradient_groups", "step", "groups that carry gradient (%)", [Panel("", series)], note)


def all_figures(runs: list[Run], results: list[Result]) -> list[Figure]:
    """Every figure that has something to show; tasks are those that were measured."""
    found = [sources_figure(runs), gradient_figure(runs)]
    for task in TASKS:
        found += [samples_figure(task, runs, results), pass_at_k_figure(task, results)]
        found.append(dollars_figure(task, runs, results))
    return [figure for figure in found if has_data(figure)]


def has_data(figure: Figure) -> bool:
    series = [s for panel in figure.panels for s in panel.series]
    if figure.name.startswith("dollars_"):
        return any(not s.level for s in series)
    return bool(series)


def write_csv(figure: Figure, path: Path) -> None:
    """The numbers behind a figure, as shares (not per cent): a line a point."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["panel", "label", "run", "x", "y", "low", "high", "trend"])
        for panel in figure.panels:
            for series in panel.series:
                names = [no_formula(name) for name in (panel.title, series.label, series.run)]
                for i, p in enumerate(series.points):
                    trend = f"{series.trend[i]:.6g}" if series.trend else ""
                    x = "" if series.level else f"{p.x:.10g}"
                    writer.writerow([*names, x, *(f"{v:.6g}" for v in (p.y, p.low, p.high)), trend])
