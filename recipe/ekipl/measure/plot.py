"""A Figure as PNG and SVG: readable in print and for the colour-blind (Okabe-Ito colours, line styles and markers)."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recipe.ekipl.measure.curves import COLORS, DASHES
from recipe.ekipl.measure.figure_data import Figure, Panel, Series
from recipe.ekipl.measure.table_rows import LABELS
from recipe.ekipl.measure.table_text import HEADINGS

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
MOST_MARKERS = 12  # on one curve; more would hide the line
PANEL_INCHES, HEIGHT_INCHES = 3.6, 3.0
PRINT_DPI = 300
SETTINGS: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "svg.hashsalt": "ekipl",  # the same data gives the same bytes
}


def draw(figure: Figure, folder: Path, methods: Sequence[str] = ()) -> list[Path]:
    """Writes <name>.png and <name>.svg; returns their paths. A method looks alike in all figures of the same `methods`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    labels = list(dict.fromkeys(s.label for panel in figure.panels for s in panel.series))
    styles = labels if set(labels) - set(methods) else list(methods)
    with plt.rc_context(SETTINGS):
        canvas, axes = plt.subplots(
            1,
            len(figure.panels),
            figsize=(PANEL_INCHES * len(figure.panels) + 0.6, HEIGHT_INCHES + 0.25 * _legend_rows(figure, labels)),
            sharey=True,
            squeeze=False,
            constrained_layout=True,
        )
        for at, panel in zip(axes[0], figure.panels, strict=True):
            _draw_panel(at, panel, figure, styles)
        axes[0][0].set_ylabel(figure.y_label)
        _legend(canvas, axes[0], figure, labels)
        paths = [folder / f"{figure.name}.png", folder / f"{figure.name}.svg"]
        canvas.savefig(paths[0], dpi=PRINT_DPI, metadata={"Software": None})
        canvas.savefig(paths[1], metadata={"Date": None})
        plt.close(canvas)
    return paths


def shown(label: str) -> str:
    """The paper's name of a method or a split; other labels as they are, and not as formulas."""
    if label in HEADINGS:
        return "{} ({})".format(*HEADINGS[label])
    return LABELS.get(label, label).removeprefix("+ ").replace("$", r"\$")


def _columns(figure: Figure) -> int:
    return 2 * len(figure.panels)


def _legend_rows(figure: Figure, labels: list[str]) -> int:
    return -(-len(labels) // _columns(figure))


def _legend(canvas: Any, axes: Any, figure: Figure, labels: list[str]) -> None:
    """One legend for all panels, below them: it never covers a curve."""
    handles = {label: handle for at in axes for handle, label in zip(*at.get_legend_handles_labels(), strict=True)}
    canvas.legend(
        [handles[label] for label in labels if label in handles],
        [shown(label) for label in labels if label in handles],
        loc="outside lower center",
        ncols=min(len(labels), _columns(figure)),
        handlelength=3.5,
    )


def _draw_panel(at: Any, panel: Panel, figure: Figure, styles: list[str]) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    for series in panel.series:
        _draw_series(at, series, styles.index(series.label), figure.log2)
    at.set_title(shown(panel.title), fontsize=9)
    at.set_xlabel(figure.x_label)
    if figure.log2:
        at.set_xscale("log", base=2)
        at.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    else:
        at.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=figure.x_label == "step"))
    at.set_ylim(-2, 102)


def _draw_series(at: Any, series: Series, number: int, log2: bool) -> None:
    style = {
        "color": COLORS[number % len(COLORS)],
        "linestyle": DASHES[number % len(DASHES)],
        "label": series.label,
        "linewidth": 1.6,
    }
    x, y = [p.x for p in series.points], [100 * p.y for p in series.points]
    low, high = [100 * p.low for p in series.points], [100 * p.high for p in series.points]
    if series.level:
        at.axhline(y[0], **style)
        at.axhspan(low[0], high[0], color=style["color"], alpha=0.12, linewidth=0)
        return
    some = [i for i, value in enumerate(x) if math.log2(value).is_integer()] if log2 else max(1, len(x) // MOST_MARKERS)
    marker = {"marker": MARKERS[number % len(MARKERS)], "markersize": 4, "markevery": some}
    if series.trend:
        at.plot(x, y, color=style["color"], alpha=0.2, linewidth=0.8)
        at.plot(x, [100 * value for value in series.trend], **style, **marker)
        return
    at.plot(x, y, **style, **marker)
    if any(a != b for a, b in zip(low, high, strict=True)):
        at.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)
