"""Pictures of a benchmark: accuracy against labels, reliability, confusion, learned weights, all from its rows."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from berunda.assess.classify import N_BINS
from berunda.assess.plots import confusion_heat, confusion_image, figure_png, new_figure, percent, styled
from berunda.bench.cells import Cell, Setting, file_name, labels_order
from berunda.bench.mask_tables import sweep_lines, swept
from berunda.bench.weight_tables import FIELD, has_weight

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "accuracy_lines",
    "confusion_panels",
    "half_interval",
    "pooled_bins",
    "reliability_panels",
    "weight_lines",
    "write_pictures",
]

_COLORS = ("#0b6e69", "#c26a1b", "#4a5fa5", "#a23b72", "#6f7a75", "#b8a11f", "#2f9e44", "#7a4b2a", "#0f89b8", "#8f5fbf")
_MARKERS = "osD^vPX<>*"
_N_COLUMNS, _N_CONFUSIONS = 4, 3


def write_pictures(cells: Sequence[Cell], folder: Path, stem: str) -> list[Path]:
    """Write all pictures of the cells and return their files.

    For each setting: accuracy against labels where there are two numbers of labels or more; for each number of labels
    the reliability and the confusion matrix of every method, and the curves of weights that were learned.
    """
    written = []
    groups = [(setting, list(group)) for setting, group in groupby(cells, key=lambda cell: cell.setting)]
    for setting, group in groups:
        for name, figure in _figures(group):
            words = [stem, *(_distinct(setting, [s for s, _ in groups])), name]
            path = folder / f"{file_name('_'.join(words))}.png"
            path.write_bytes(figure_png(figure))
            written.append(path)
    return written


def _distinct(setting: Setting, settings: Sequence[Setting]) -> list[str]:
    """Return the words of a setting that tell it from the others."""
    names = ("dataset", "task", "encoder", "labels_unit")
    return [str(getattr(setting, name)) for name in names if len({getattr(s, name) for s in settings}) > 1]


def _figures(cells: Sequence[Cell]) -> Iterator[tuple[str, Figure]]:
    if len({cell.labels for cell in cells}) > 1:
        yield "accuracy", accuracy_lines(cells)
    numbers = sorted({cell.labels for cell in cells}, key=labels_order)
    for labels in numbers:
        here = [cell for cell in cells if cell.labels == labels]
        if swept(here):
            yield "weights" if len(numbers) == 1 else f"weights_{labels}", sweep_lines(here, "supervised")
        learned = [cell for cell in here if has_weight(cell)]
        if learned:
            yield f"learned_weight_{labels}", weight_lines(learned)
        with_bins = [cell for cell in here if all("reliability" in row["metrics"] for row in cell.rows)]
        if with_bins:
            yield f"reliability_{labels}", reliability_panels(with_bins)
        with_matrix = [cell for cell in here if all("confusion" in row["metrics"] for row in cell.rows)]
        if with_matrix:
            yield f"confusion_{labels}", confusion_panels(with_matrix)


@styled
def accuracy_lines(cells: Sequence[Cell]) -> Figure:
    """Draw the headline metric of each method against the number of labels, with 95% t-intervals over the seeds.

    Numbers of labels stand at equal distances, "all" last.
    """
    key, title = cells[0].setting.headline
    ticks = sorted({cell.labels for cell in cells}, key=labels_order)
    methods = list(dict.fromkeys(cell.method for cell in cells))
    figure, axes = new_figure(5.2, 3.6 + 0.2 * -(-len(methods) // 2))
    ax = axes[0, 0]
    for number, method in enumerate(methods):
        own = sorted((c for c in cells if c.method == method), key=lambda c: labels_order(c.labels))
        values = [cell.values(key) for cell in own]
        shift = 0.05 * (number - (len(methods) - 1) / 2) / max(1, len(methods) / 4)
        ax.errorbar(
            [ticks.index(cell.labels) + shift for cell in own],
            [statistics.mean(v) for v in values],
            yerr=[half_interval(v) for v in values],
            color=_COLORS[number % len(_COLORS)],
            marker=_MARKERS[number % len(_MARKERS)],
            markersize=5,
            capsize=3,
            linewidth=1.5,
            label=method,
        )
    ax.set_xticks(range(len(ticks)), ticks)
    ax.set(xlabel=f"labels ({cells[0].setting.labels_unit.replace('_', ' ')})", ylabel=title)
    ax.yaxis.set_major_formatter(percent)
    ax.grid(axis="y", color="#eceeeb")
    title = "mean and 95% t-interval over seeds (none of one seed)"
    figure.legend(fontsize=8, loc="outside lower center", ncols=2, title=title, title_fontsize=8)
    return figure


@styled
def weight_lines(cells: Sequence[Cell]) -> Figure:
    """Draw the learned weight of each method over its training, a line a seed; the dashed line is the fixed weight."""
    figure, axes = new_figure(5.2, 3.4 + 0.2 * -(-len(cells) // 2))
    ax = axes[0, 0]
    ax.axhline(0.5, color="#6f7a75", linestyle="--", linewidth=1)
    for number, cell in enumerate(cells):
        curves = [row[FIELD] for row in cell.rows if FIELD in row]
        for turn, curve in enumerate(curves):
            name = cell.method if turn == 0 else None
            ax.plot(curve["step"], curve["value"], color=_COLORS[number % len(_COLORS)], linewidth=1.3, label=name)
    ax.set(xlabel="training step", ylabel="share of the supervised loss", ylim=(0, 1))
    ax.grid(axis="y", color="#eceeeb")
    figure.legend(fontsize=8, loc="outside lower center", ncols=2)
    return figure


def half_interval(values: Sequence[float]) -> float:
    """Return half the width of the 95% interval of a mean over seeds, by Student's t; NaN of fewer than two.

    Example:
        >>> round(half_interval([0.0, 1.0, 2.0]), 3)
        2.484
    """
    from scipy.stats import t

    n = len(values)
    return float(t.ppf(0.975, n - 1)) * statistics.stdev(values) / n**0.5 if n > 1 else float("nan")


def pooled_bins(tables: Sequence[Sequence[Mapping[str, Any]]]) -> npt.NDArray[np.float64]:
    """Pool the reliability bins of several seeds.

    Args:
        tables: one list of bins a seed, with "low", "n", "confidence" and "accuracy".

    Returns:
        (k, 3) of the bins that hold images, in order: mean confidence, accuracy, number of images.
    """
    sums = np.zeros((N_BINS, 3))
    for row in (row for table in tables for row in table):
        n = float(row["n"])
        sums[min(N_BINS - 1, round(row["low"] * N_BINS))] += (n * row["confidence"], n * row["accuracy"], n)
    used = sums[sums[:, 2] > 0]
    used[:, :2] /= used[:, 2:]
    return used


@styled
def reliability_panels(cells: Sequence[Cell]) -> Figure:
    """Draw a panel for each method: accuracy against confidence, before and after temperature scaling, seeds pooled."""
    n_columns = min(_N_COLUMNS, len(cells))
    n_rows = -(-len(cells) // n_columns)
    figure, axes = new_figure(2.1 * n_columns + 0.5, 2.3 * n_rows + 0.4, nrows=n_rows, ncols=n_columns)
    for ax in axes.flat[len(cells) :]:
        ax.set_axis_off()
    for ax, cell in zip(axes.flat, cells, strict=False):
        ax.plot([0, 1], [0, 1], color="#c9cfca", linewidth=1, linestyle="--")
        for ending, color, marker in (("_before", _COLORS[1], "s"), ("", _COLORS[0], "o")):
            bins = pooled_bins([row["metrics"].get(f"reliability{ending}", ()) for row in cell.rows])
            ax.plot(bins[:, 0], bins[:, 1], color=color, marker=marker, markersize=3, linewidth=1.2)
        ece = "ECE " + " → ".join(f"{100 * statistics.mean(v):.1f}" for v in _eces(cell)) + "%"
        ax.set_title(f"{cell.method}\n{ece}", fontsize=8.5)
        ax.set(xlim=(0, 1), ylim=(0, 1), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        ax.tick_params(labelsize=8)
        ax.xaxis.set_major_formatter(percent)
        ax.yaxis.set_major_formatter(percent)
    figure.supxlabel("stated confidence (orange: before scaling, green: after)", fontsize=9)
    figure.supylabel("share that is right", fontsize=9)
    return figure


def _eces(cell: Cell) -> list[list[float]]:
    found = [cell.values("ece_before"), cell.values("ece")]
    return [values for values in found if values]


@styled
def confusion_panels(cells: Sequence[Cell]) -> Figure:
    """Draw the confusion matrix of every method, seeds pooled: in percent of each true class."""
    if len(cells) == 1:
        predicted = f"predicted by {cells[0].method}, {_seeds(cells[0])}"
        return confusion_heat(_pooled(cells[0]), _class_names(cells[0]), predicted=predicted)
    n_columns = min(_N_CONFUSIONS, len(cells))
    n_rows = -(-len(cells) // n_columns)
    figure, axes = new_figure(2.4 * n_columns + 1.3, 2.75 * n_rows + 1.3, nrows=n_rows, ncols=n_columns)
    for ax in axes.flat[len(cells) :]:
        ax.set_axis_off()
    for number, (ax, cell) in enumerate(zip(axes.flat, cells, strict=False)):
        confusion_image(ax, _pooled(cell), fontsize=5.5)
        names = _class_names(cell)
        is_lowest, is_left = number // n_columns == n_rows - 1, number % n_columns == 0
        ax.set_xticks(range(len(names)), names if is_lowest else [], rotation=90)
        ax.set_yticks(range(len(names)), names if is_left else [])
        ax.tick_params(length=0, labelsize=7)
        ax.set_title(f"{cell.method}\n{_seeds(cell)}", fontsize=8.5)
    figure.supxlabel("predicted, in % of each true class", fontsize=9)
    figure.supylabel("in the reference", fontsize=9)
    return figure


def _pooled(cell: Cell) -> npt.NDArray[np.float64]:
    return np.sum([row["metrics"]["confusion"] for row in cell.rows], axis=0, dtype=np.float64)


def _class_names(cell: Cell) -> list[str]:
    metrics = cell.rows[0]["metrics"]
    return list(metrics.get("recall") or map(str, range(1, len(metrics["confusion"]) + 1)))


def _seeds(cell: Cell) -> str:
    return f"{len(cell.rows)} seed{'s' if len(cell.rows) > 1 else ''}"
