"""Tables of a benchmark on images with masks: IoU by class, scores by site, paired differences, and weights."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from berunda.assess.intervals import Interval, paired_bootstrap
from berunda.assess.plots import new_figure, percent, styled
from berunda.bench.cells import Cell, markdown_table, with_spread

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["difference_lines", "mask_parts", "stronger_baseline", "sweep_lines", "swept"]

N_DRAWS = 10_000
_COLORS = ("#0b6e69", "#c26a1b", "#4a5fa5", "#a23b72", "#6f7a75", "#b8a11f", "#2f9e44", "#7a4b2a")


def mask_parts(cells: Sequence[Cell], baseline: str) -> list[str]:
    """Return the tables that images with masks have beside those of every task."""
    parts = ["**IoU by class, %**", _by_class(cells)]
    if any(len(_site_scores(cell)) > 1 for cell in cells):
        parts += ["**Mean IoU by test site, %** (in brackets: overall accuracy)", _by_site(cells)]
    counted = [cell for cell in cells if all("is_collapsed" in row["metrics"] for row in cell.rows)]
    if counted:
        parts += [_STABILITY, _stability(counted)]
    differences = list(difference_lines(cells, baseline))
    if differences:
        parts += [
            f"**Difference in mean IoU to {baseline}**, in points: paired bootstrap over the test images, an image "
            f"counting with its mean over the seeds; against that {baseline} run of the same net which has the highest "
            "mean, chosen by the test itself, which favours the baseline",
            markdown_table(["method", "labels", "against", "difference", "95% interval"], differences),
        ]
    return parts


_STABILITY = (
    "**Stability**: runs, of which collapsed (mean IoU within noise of naming every pixel by the commonest class of "
    "the test images: the 95% interval of the difference, by paired bootstrap over test images, reaches 0), mean IoU "
    "from the worst run to the best, and how often trainings diverged and went back"
)


def _stability(cells: Sequence[Cell]) -> str:
    lines = []
    for cell in cells:
        scores, least = cell.values("miou"), cell.values("majority_miou")
        between = f"{100 * min(scores):.1f} to {100 * max(scores):.1f}"
        n_collapsed = sum(bool(row["metrics"]["is_collapsed"]) for row in cell.rows)
        n_back = sum(len(row.get("returned") or ()) for row in cell.rows)
        constant = f"{100 * max(least):.1f}" if least else ""
        lines.append([cell.method, cell.labels, str(len(cell.rows)), str(n_collapsed), between, constant, str(n_back)])
    head = ["method", "labels", "runs", "collapsed", "mean IoU, %", "commonest class, %", "went back"]
    return markdown_table(head, lines)


def _by_class(cells: Sequence[Cell]) -> str:
    names = list(dict.fromkeys(name for cell in cells for row in cell.rows for name in row["metrics"].get("iou", {})))
    lines = []
    for cell in cells:
        found = [row["metrics"].get("iou", {}) for row in cell.rows]
        figures = [[100 * iou[name] for iou in found if iou.get(name) is not None] for name in names]
        lines.append([cell.method, cell.labels, *(with_spread(values, 1) or "absent" for values in figures)])
    return markdown_table(["method", "labels", *names], lines)


def _site_scores(cell: Cell) -> dict[str, list[tuple[float, float]]]:
    """Return (mean IoU, accuracy) of every seed by test site."""
    found: dict[str, list[tuple[float, float]]] = {}
    for row in cell.rows:
        for site, scores in (row["metrics"].get("by_site") or {}).items():
            if scores.get("miou") is not None:
                found.setdefault(site, []).append((scores["miou"], scores["oa"]))
    return found


def _by_site(cells: Sequence[Cell]) -> str:
    sites = sorted({site for cell in cells for site in _site_scores(cell)})
    lines = []
    for cell in cells:
        scores = _site_scores(cell)
        told = [
            f"{with_spread([100 * m for m, _ in scores[s]], 1)} ({with_spread([100 * a for _, a in scores[s]], 1)})"
            if s in scores
            else ""
            for s in sites
        ]
        lines.append([cell.method, cell.labels, *told])
    return markdown_table(["method", "labels", *sites], lines)


def difference_lines(cells: Sequence[Cell], baseline: str) -> Iterator[list[str]]:
    """Yield method, labels, what it is compared with, the difference in mean IoU, and its interval."""
    for cell in cells:
        other = stronger_baseline(cell, cells, baseline)
        found = None if other is None or other is cell else _difference(cell, other)
        if other is not None and found is not None:
            interval = f"{100 * found.low:+.1f} to {100 * found.high:+.1f}"
            yield [cell.method, cell.labels, other.method, f"{100 * found.estimate:+.1f}", interval]


def stronger_baseline(cell: Cell, cells: Sequence[Cell], baseline: str) -> Cell | None:
    """Return the cell of the method `baseline` with the highest first metric, on the same labelled images as `cell`.

    Those with the same decoder come first; where there is none, those with any.
    """
    own = cell.rows[0]
    found = [
        other
        for other in cells
        if other.rows[0]["method"] == baseline
        and other.labels == cell.labels
        and (other.rows[0].get("site") or "") == (own.get("site") or "")
    ]
    alike = [other for other in found if own.get("decoder") in (None, other.rows[0].get("decoder"))]
    metric = cell.setting.headline[0]
    return max(alike or found, key=lambda other: statistics.mean(other.values(metric)), default=None)


def _difference(cell: Cell, other: Cell) -> Interval | None:
    """Return the paired difference in mean IoU; None where the rows do not hold the same test images."""
    n = math.lcm(len(cell.rows), len(other.rows))
    a, b = (_summed(one, n // len(one.rows)) for one in (cell, other))
    if a is None or b is None or a.shape != b.shape or not np.array_equal(a.sum(2), b.sum(2)):
        return None
    return paired_bootstrap(a, b, unit="images", n_draws=N_DRAWS).miou


def _summed(cell: Cell, times: int) -> np.ndarray | None:
    """Return (G, C, C) confusion matrices of groups of test images, summed over the seeds, `times` over.

    So methods of different numbers of seeds have equal numbers of true pixels, and every image counts with its mean.
    """
    found = [row["metrics"].get("by_image") for row in cell.rows]
    if any(matrices is None for matrices in found) or len({np.shape(m) for m in found}) != 1:
        return None
    return np.asarray(times * np.sum(found, axis=0), np.int64)


def swept(cells: Sequence[Cell]) -> dict[str, list[tuple[float, Cell]]]:
    """Return the cells of a study of weights, each with its weight, in order, by what else tells them apart.

    Args:
        cells: of one number of labels.

    Returns:
        By the auxiliary loss, with further options, decoder and site where they differ from the defaults.
    """
    found: dict[str, list[tuple[float, Cell]]] = {}
    for cell in cells:
        row = cell.rows[0]
        options: Mapping[str, Any] = row.get("options") or {}
        if "lambda_u" in options:
            rest = str(row.get("variant") or "").split(", ")
            told = [text for text in rest if text and text.split("=")[0] not in ("aux", "lambda_u")]
            name = ", ".join([str(options.get("aux", row["method"])), *told])
            found.setdefault(name, []).append((float(options["lambda_u"]), cell))
    return {name: sorted(pairs, key=lambda pair: pair[0]) for name, pairs in found.items() if len(pairs) > 1}


@styled
def sweep_lines(cells: Sequence[Cell], baseline: str) -> Figure:
    """Draw mean IoU against the weight of the auxiliary loss, a line a loss, bars of one deviation over seeds.

    Args:
        cells: of one number of labels.
        baseline: the method whose stronger runs are drawn as a level line.
    """
    figure, axes = new_figure(5.2, 4.0)
    ax, lines = axes[0, 0], swept(cells)
    for number, (name, pairs) in enumerate(lines.items()):
        values = [cell.values("miou") for _, cell in pairs]
        ax.errorbar(
            [weight for weight, _ in pairs],
            [statistics.mean(v) for v in values],
            yerr=[statistics.stdev(v) if len(v) > 1 else 0.0 for v in values],
            color=_COLORS[number % len(_COLORS)],
            marker="o",
            markersize=4,
            capsize=3,
            label=name.replace("_", " "),
        )
    others = {}
    for (_, cell), *_ in lines.values():
        other = stronger_baseline(cell, cells, baseline)
        if other is not None:
            others[other.method] = other
    for (name, other), style in zip(others.items(), ("--", ":", "-.") * len(others), strict=False):
        level = statistics.mean(other.values("miou"))
        ax.axhline(level, color="#6f7a75", linestyle=style, linewidth=1, label=name)
    ax.set_xscale("log")
    ax.set(xlabel="weight of the auxiliary loss", ylabel="Mean IoU", title=f"labels: {cells[0].labels}")
    ax.yaxis.set_major_formatter(percent)
    ax.grid(axis="y", color="#eceeeb")
    figure.legend(fontsize=8, loc="outside lower center", ncols=3)
    return figure
