"""Numbers and figures from the results file: accuracy with intervals over seeds and rows, money, silence, ESS."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recipe.ekipl.ablation.cells import REGIMES, VARIANTS
from recipe.ekipl.ablation.results import Line
from recipe.ekipl.measure.statistics import Estimate, estimate

IN_DOMAIN, OUT_OF_DOMAIN = "clevr_math", "super_clevr"
Group = dict[tuple[str, str, int, float], list[Line]]


def by_cell(lines: Sequence[Line]) -> Group:
    """(regime, variant, steps, lr) -> the runs of its seeds."""
    found: Group = defaultdict(list)
    for line in lines:
        found[line.regime, line.variant, line.steps, line.lr].append(line)
    return dict(found)


def accuracy(lines: Sequence[Line], source: str, look: int = -1) -> Estimate | None:
    """Mean over seeds and rows at a validation, with a bootstrap interval over both (measure/statistics.py). Which rows
    were right is not kept, only how many: rows of different seeds are drawn as if they were others, as they are."""
    shares = [(line.accuracy[look].get(source), line.rows) for line in lines]
    if any(share is None for share, _ in shares):
        return None
    rows = min(rows for _, rows in shares)
    scores = np.zeros((len(shares), rows))
    for scored, (share, _) in zip(scores, shares, strict=True):
        scored[: round(float(share or 0.0) * rows)] = 1.0
        np.random.default_rng(0).shuffle(scored)
    return estimate(scores, resamples=2_000)


def markdown(lines: Sequence[Line]) -> str:
    """One table a regime and setting, variants in the order of cells.py."""
    cells = by_cell(lines)
    parts = []
    for regime, steps, lr in sorted({(key[0], key[2], key[3]) for key in cells}):
        head = f"**{regime}**: {REGIMES[regime].about}. {steps} steps, learning rate {lr:g}."
        columns = "variant | | seeds | before | in domain | out of domain | format | zero variance | silent | expert share | ESS/G | dollars"
        rows = [f"| {columns} |", "|---" * 12 + "|"]
        for variant in VARIANTS:
            if found := cells.get((regime, variant, steps, lr)):
                rows.append(_row(variant, found))
        parts.append("\n".join([head, "", *rows]))
    note = "Greedy accuracy on held-out rows; in brackets the 95 % bootstrap interval over seeds and rows. The other columns are means over all steps; dollars at the list prices of the models that the experts stand for."
    return "\n\n".join([*parts, note]) + "\n"


def _row(variant: str, lines: Sequence[Line]) -> str:
    before, after, outside = (
        _shown(accuracy(lines, source, look)) for source, look in ((IN_DOMAIN, 0), (IN_DOMAIN, -1), (OUT_OF_DOMAIN, -1))
    )
    formats = _mean([line.format[-1].get(IN_DOMAIN) for line in lines if line.format])
    curves = [_mean(line.curves.get(name, []) for line in lines) for name in ("zero_variance", "silent", "expert_share", "ess_share")]  # fmt: skip
    dollars = _mean([line.accuracy[-1]["dollars"] for line in lines])
    seeds = ", ".join(str(seed) for seed in sorted(line.seed for line in lines))
    numbers = [before, after, outside, *(_number(value) for value in (formats, *curves, dollars))]
    return f"| `{variant}` | {VARIANTS[variant].about} | {seeds} | " + " | ".join(numbers) + " |"


def _mean(values: Any) -> float | None:
    """Of numbers, or of lists of them; None is left out."""
    flat = [v for value in values for v in (value if isinstance(value, list) else [value]) if v is not None]
    return sum(flat) / len(flat) if flat else None


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _shown(found: Estimate | None) -> str:
    return "–" if found is None else f"{found.mean:.2f} [{found.low:.2f}, {found.high:.2f}]"


def draw(lines: Sequence[Line], folder: Path) -> list[Path]:
    """Accuracy against steps and against dollars, zero-variance share and ESS: one PNG and SVG a regime and setting."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    cells, paths = by_cell(lines), []
    for regime, steps, lr in sorted({(key[0], key[2], key[3]) for key in cells}):
        shown = [line for key, found in cells.items() if (key[0], *key[2:]) == (regime, steps, lr) for line in found]
        weighed = any(value not in (None, 1.0) for line in shown for value in line.curves.get("ess_share", []))
        panels = 3 + weighed  # without weights every ESS is all of the group
        canvas, axes = plt.subplots(1, panels, figsize=(3.75 * panels, 4.2), constrained_layout=True)
        variants = [v for v in VARIANTS if (regime, v, steps, lr) in cells]
        for number, variant in enumerate(variants):
            _draw_variant(axes, cells[regime, variant, steps, lr], variant, number)
        for at, (x, y) in zip(axes, PANELS, strict=False):
            at.set(xlabel=x, ylabel=y, ylim=(-0.02, 1.02))
        handles, labels = axes[0].get_legend_handles_labels()
        canvas.legend(handles, labels, loc="outside lower center", ncols=6)
        for ending in ("png", "svg"):
            paths.append(folder / f"{regime}-{steps}x{lr:g}.{ending}")
            canvas.savefig(paths[-1], dpi=150)
        plt.close(canvas)
    return paths


PANELS = (
    ("step", "accuracy, in domain"),
    ("dollars for experts", "accuracy, in domain"),
    ("step", "groups without variance"),
    ("step", "ESS / G"),
)


def _draw_variant(axes: Any, lines: Sequence[Line], variant: str, number: int) -> None:
    from recipe.ekipl.measure.curves import COLORS, DASHES

    looks = range(min(len(line.accuracy) for line in lines))
    points = [accuracy(lines, IN_DOMAIN, look) for look in looks]
    if any(point is None for point in points):
        return
    style = {"color": COLORS[number % len(COLORS)], "linestyle": DASHES[number // len(COLORS) % len(DASHES)]}
    step = [lines[0].accuracy[look]["step"] for look in looks]
    money = [_mean([line.accuracy[look]["dollars"] for line in lines]) for look in looks]
    means = [point.mean for point in points if point]
    axes[0].plot(step, means, label=variant, marker="o", markersize=3, **style)
    axes[0].fill_between(
        step, [p.low for p in points if p], [p.high for p in points if p], color=style["color"], alpha=0.1
    )
    if any(money):  # what costs nothing, such as one's own vLLM server, would be a line upwards
        axes[1].plot(money, means, marker="o", markersize=3, **style)
    for at, name in zip(axes[2:], ("zero_variance", "ess_share"), strict=False):
        parts = list(zip(*(line.curves[name] for line in lines), strict=False))
        values = [_mean(part) for part in parts]
        if all(value is not None for value in values):
            at.plot(step[1 : len(values) + 1], values, **style)
