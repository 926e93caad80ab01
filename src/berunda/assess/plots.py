"""Figures in one style: maps with legends, reliability, confusion, per-class scores, comparison, losses.

Every function returns a matplotlib Figure made without pyplot, so nothing global is kept or changed. Figures
are at most 5.2 inches wide unless said otherwise: at a phone's width their text stays readable.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from berunda.assess.calibration import CalibrationFigures
from berunda.assess.colors import class_colors
from berunda.assess.intervals import Interval, ScoreIntervals
from berunda.assess.metrics import Scores
from berunda.assess.pictures import (
    CONFIDENCE_MAP,
    NODATA_COLOR,
    OOD_MAP,
    color_classes,
    color_confidence,
    color_ood,
    nice_length_m,
    ood_limits,
)
from berunda.assess.report_data import ClassInfo, LossCurve, ScenePictures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "class_bars",
    "class_colors",
    "comparison_dots",
    "confusion_heat",
    "confusion_image",
    "figure_png",
    "figure_svg",
    "loss_curves",
    "map_panels",
    "new_figure",
    "percent",
    "reliability_diagram",
    "styled",
]

INK, FAINT, ACCENT, SECOND = "#1d2826", "#c9cfca", "#0b6e69", "#c26a1b"
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlecolor": INK,
    "axes.grid": False,
    "text.color": INK,
    "text.parse_math": False,  # names of classes and sites are words, whatever signs they hold
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "svg.hashsalt": "berunda",
    "svg.fonttype": "path",
}


F = TypeVar("F", bound=Callable[..., Any])


def styled(draw: F) -> F:
    """Run a drawing function in the house style: matplotlib reads settings when a text is made."""

    @wraps(draw)
    def in_style(*args: Any, **options: Any) -> Any:
        import matplotlib

        with matplotlib.rc_context(STYLE):
            return draw(*args, **options)

    return cast(F, in_style)


def new_figure(width_in: float, height_in: float, **grid: Any) -> tuple[Figure, npt.NDArray[Any]]:
    """Return a figure and its axes as a 2-D array."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(squeeze=False, **grid)


@styled
def figure_svg(figure: Figure) -> str:
    """Return the figure as SVG text; equal figures give equal text."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


@styled
def figure_png(figure: Figure, dpi: int = 150) -> bytes:
    """Return the figure as PNG bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


@styled
def reliability_diagram(before: CalibrationFigures | None, after: CalibrationFigures, unit: str = "pixels") -> Figure:
    """Draw accuracy against confidence, before and after calibration, with the pixels (`unit`) of each bin below."""
    figure, axes = new_figure(4.8, 4.9, nrows=2, sharex=True, gridspec_kw={"height_ratios": [4, 1]})
    top, bottom = axes[:, 0]
    top.plot([0, 1], [0, 1], color=FAINT, linewidth=1.2, linestyle="--", zorder=1)
    top.annotate("perfect", (0.12, 0.15), rotation=45, color="#66706b", fontsize=9, rotation_mode="anchor")
    for figures, color, marker, name in ((before, SECOND, "s", "before"), (after, ACCENT, "o", "after")):
        if figures is None:
            continue
        table = figures.reliability
        used = table.count > 0
        label = f"{name} calibration (ECE {100 * figures.ece:.1f}%)"
        top.plot(
            table.confidence[used],
            table.accuracy[used],
            color=color,
            marker=marker,
            markersize=4.5,
            label=label,
        )
    top.set(ylabel=f"share of {unit} that are right", xlim=(0, 1), ylim=(0, 1))
    top.legend(loc="upper left", fontsize=9)
    table = after.reliability
    share = table.count / max(1, table.count.sum())
    bottom.bar(table.edges[:-1], share, width=np.diff(table.edges), align="edge", color=ACCENT, alpha=0.5)
    bottom.set(xlabel="stated confidence", ylabel=unit)
    for axis in (top.xaxis, top.yaxis, bottom.xaxis, bottom.yaxis):
        axis.set_major_formatter(percent)
    return figure


def percent(value: float, _: object = None) -> str:
    """Return a fraction of 1 as percent, for an axis or a label."""
    return f"{100 * value:.0f}%"


@styled
def confusion_heat(matrix: npt.ArrayLike, class_names: Sequence[str], *, predicted: str = "on the map") -> Figure:
    """Draw a confusion matrix; each row (true class) is shown in percent of its pixels or images.

    Args:
        matrix: (C, C) counts, truth in rows.
        class_names: C names.
        predicted: title of the columns.
    """
    n = len(class_names)
    side = min(5.2, 1.9 + 0.6 * n + 0.05 * max(map(len, class_names)))
    figure, axes = new_figure(side, side)
    ax: Axes = axes[0, 0]
    confusion_image(ax, matrix)
    ax.set_xticks(range(n), class_names, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(n), class_names)
    ax.set(xlabel=predicted, ylabel="in the reference")
    ax.set_title("% of each reference class")
    ax.tick_params(length=0)
    return figure


def confusion_image(ax: Axes, matrix: npt.ArrayLike, *, fontsize: float = 9) -> None:
    """Draw the cells of a confusion matrix (C, C), truth in rows, in percent of each true class."""
    counts = np.asarray(matrix, dtype=np.float64)
    rows = counts.sum(1, keepdims=True)
    share = np.divide(counts, rows, out=np.full_like(counts, np.nan), where=rows > 0)
    ax.imshow(share, cmap="GnBu", vmin=0, vmax=1)
    for i, j in np.ndindex(*share.shape):
        if np.isfinite(share[i, j]):
            color = "white" if share[i, j] > 0.6 else INK
            weight = "bold" if i == j else "normal"
            text = f"{100 * share[i, j]:.0f}"
            ax.text(j, i, text, ha="center", va="center", color=color, fontsize=fontsize, fontweight=weight)
    ax.spines[:].set_visible(False)


@styled
def class_bars(scores: Scores, intervals: ScoreIntervals | None, colors: Sequence[str]) -> Figure:
    """Draw the F1 of each class with its interval; an absent class has no bar and says so."""
    n = len(scores.class_names)
    figure, axes = new_figure(5.2, 0.9 + 0.42 * n)
    ax: Axes = axes[0, 0]
    for i, (value, color) in enumerate(zip(scores.f1, colors, strict=True)):
        if value is None:
            ax.text(0.01, i, "no reference pixels", va="center", color="#66706b", fontsize=9)
            continue
        ax.barh(i, value, color=color, edgecolor=INK, linewidth=0.4, height=0.62)
        interval = intervals.f1[i] if intervals is not None else None
        end = _whisker(ax, i, interval) if interval is not None else value
        ax.text(max(end, value) + 0.015, i, f"{100 * value:.0f}%", va="center", fontsize=9.5)
    ax.set_yticks(range(n), scores.class_names)
    ax.set(xlim=(0, 1.12), xlabel="F1 (0 to 100%)")
    ax.set_xticks(np.linspace(0, 1, 6))
    ax.xaxis.set_major_formatter(percent)
    ax.tick_params(axis="y", length=0)
    ax.invert_yaxis()
    return figure


def _whisker(ax: Axes, position: float, interval: Interval) -> float:
    ax.plot([interval.low, interval.high], [position, position], color=INK, linewidth=1.4, solid_capstyle="butt")
    for x in (interval.low, interval.high):
        ax.plot([x, x], [position - 0.13, position + 0.13], color=INK, linewidth=1.4)
    return interval.high


@styled
def comparison_dots(values: Mapping[str, Sequence[float]], label: str, highlight: str | None = None) -> Figure:
    """Draw one row per method: a dot for each seed, a bar for the mean.

    Args:
        values: method -> metric values, one a seed, fractions of 1.
        label: name of the metric.
        highlight: method drawn in the accent colour.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = new_figure(5.2, 1.0 + 0.48 * len(values))
    ax: Axes = axes[0, 0]
    for i, (name, runs) in enumerate(values.items()):
        color = ACCENT if name == highlight else "#6f7a75"
        mean = float(np.mean(runs))
        ax.axhline(i, color="#eceeeb", linewidth=1, zorder=0)
        ax.scatter(
            runs,
            [i] * len(runs),
            s=34,
            color=color,
            alpha=0.6 if len(runs) > 1 else 1,
            linewidths=0,
            zorder=2,
        )
        if len(runs) > 1:
            ax.plot([mean, mean], [i - 0.24, i + 0.24], color=color, linewidth=2.6, zorder=3)
        ax.annotate(percent(mean), (max(runs), i), (9, 0), textcoords="offset points", va="center", color=INK)
    everything = [v for runs in values.values() for v in runs]
    spread = max(max(everything) - min(everything), 0.05)
    ax.set_xlim(max(0.0, min(everything) - 0.25 * spread), max(everything) + 0.35 * spread)
    ax.set_yticks(range(len(values)), list(values))
    ax.set_ylim(len(values) - 0.5, -0.5)
    ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], min_n_ticks=3))
    ax.xaxis.set_major_formatter(percent)
    ax.set_xlabel(label)
    ax.tick_params(axis="y", length=0)
    return figure


@styled
def loss_curves(curves: Sequence[LossCurve]) -> Figure:
    """Draw each loss term over the training steps, in panels that share the step axis."""
    figure, axes = new_figure(5.2, 0.6 + 1.25 * len(curves), nrows=len(curves), sharex=True)
    for ax, curve in zip(axes[:, 0], curves, strict=True):
        values = np.asarray(curve.values, dtype=np.float64)
        smooth = max(1, len(values) // 25)
        ax.plot(curve.steps, values, color=FAINT, linewidth=0.9)
        if smooth > 1:
            mean = np.convolve(values, np.full(smooth, 1 / smooth), mode="valid")
            ax.plot(curve.steps[smooth - 1 :], mean, color=ACCENT, linewidth=1.7)
        ax.set_title(curve.name)
        ax.set_ylim(bottom=min(0.0, float(values.min(initial=0.0))))
    axes[-1, 0].set_xlabel("training step")
    return figure


@styled
def map_panels(scene: ScenePictures, classes: Sequence[ClassInfo], threshold: float | None) -> Figure:
    """Draw scene, map, confidence and layer of unlikeness in one figure, 8 inches wide, for a README.

    Args:
        scene: quick-looks; a panel is drawn for each layer that it has.
        classes: in the order of the map's codes.
        threshold: distance above which a pixel is flagged.
    """
    height, width = scene.rgb.shape[:2]
    panels: list[tuple[str, npt.NDArray[np.uint8], Any]] = [("Scene", scene.rgb, None)]
    if scene.classes is not None:
        panels.append(("Map", color_classes(scene.classes, [c.color for c in classes]), _legend_of(classes)))
    if scene.confidence is not None:
        panels.append(("Confidence", color_confidence(scene.confidence), (CONFIDENCE_MAP, 0.0, 1.0, "probability")))
    if scene.distance is not None and threshold is not None:
        low, high = ood_limits(scene.distance, threshold)
        picture = color_ood(scene.distance, threshold, scene.rgb)
        panels.append(("Unlike the training data", picture, (OOD_MAP, low, high, "feature distance")))
    n_cols = 2 if width <= 2.5 * height else 1
    n_rows = -(-len(panels) // n_cols)
    figure, axes = new_figure(8.0, n_rows * (8.0 / n_cols * height / width + 0.75), nrows=n_rows, ncols=n_cols)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, (title, picture, legend) in zip(axes.flat, panels, strict=False):
        _panel(figure, ax, title, picture)
        _panel_legend(figure, ax, legend)
    _scale_bar(axes[0, 0], scene)
    return figure


def _panel(figure: Figure, ax: Axes, title: str, picture: npt.NDArray[np.uint8]) -> None:
    ax.imshow(picture, interpolation="nearest")
    ax.set_title(title, loc="left", fontweight="bold", color=INK, fontsize=10.5)


def _legend_of(classes: Sequence[ClassInfo]) -> list[tuple[str, str]]:
    return [*((c.name, c.color) for c in classes), ("no data", NODATA_COLOR)]


def _panel_legend(figure: Figure, ax: Axes, legend: Any) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.patches import Patch

    if isinstance(legend, list):
        handles = [Patch(facecolor=color, edgecolor="#8a918d", linewidth=0.4, label=name) for name, color in legend]
        box = {"bbox_to_anchor": (-0.02, -0.01), "ncols": 3, "fontsize": 8, "handlelength": 1.1}
        ax.legend(handles=handles, loc="upper left", frameon=False, **box)
    elif legend is not None:
        name, low, high, label = legend
        mappable = ScalarMappable(Normalize(low, high), name)
        bar = figure.colorbar(mappable, ax=ax, orientation="horizontal", shrink=0.6, aspect=34, pad=0.02)
        bar.set_label(label, fontsize=8)
        bar.ax.tick_params(labelsize=8)
        bar.outline.set_visible(False)


def _scale_bar(ax: Axes, scene: ScenePictures) -> None:
    if scene.pixel_m is None:
        return
    height, width = scene.rgb.shape[:2]
    length_m = nice_length_m(width * scene.pixel_m)
    x, y = 0.03 * width, 0.94 * height
    ax.plot([x, x + length_m / scene.pixel_m], [y, y], color="white", linewidth=5, solid_capstyle="butt")
    ax.plot([x, x + length_m / scene.pixel_m], [y, y], color=INK, linewidth=2.4, solid_capstyle="butt")
    text = f"{length_m / 1000:g} km" if length_m >= 1000 else f"{length_m:g} m"
    box = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.5}
    ax.text(x, y - 0.035 * height, text, fontsize=8, color=INK, va="bottom", bbox=box)
