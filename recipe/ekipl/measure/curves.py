"""Line charts as SVG text: readable in print and for the colour-blind (Okabe-Ito colours, dashes as well)."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
SMOOTH_FROM = 30  # points from which a moving mean is drawn over the faint raw line
WINDOW = 10


@dataclass(frozen=True)
class Curve:
    label: str
    x: Sequence[float]
    y: Sequence[float]


def moving_mean(values: Sequence[float]) -> list[float]:
    """Mean of the last WINDOW values at each place."""
    return [sum(values[max(0, i - WINDOW + 1) : i + 1]) / min(i + 1, WINDOW) for i in range(len(values))]


def draw(curves: list[Curve], y_label: str, x_label: str = "step") -> str:
    """One chart. Points are marked when there are few of them."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import MaxNLocator

    figure, axes = plt.subplots(figsize=(5.2, 3.0), constrained_layout=True)
    for i, curve in enumerate(curves):
        style = {"color": COLORS[i % len(COLORS)], "linestyle": DASHES[i % len(DASHES)], "label": curve.label}
        if len(curve.x) >= SMOOTH_FROM:
            axes.plot(curve.x, curve.y, color=style["color"], alpha=0.18, linewidth=0.8)
            axes.plot(curve.x, moving_mean(curve.y), linewidth=1.8, **style)
        else:
            axes.plot(curve.x, curve.y, linewidth=1.8, marker="o", markersize=3, **style)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    if all(0.0 <= v <= 1.0 for curve in curves for v in curve.y):
        axes.set_ylim(-0.03, 1.03)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]
