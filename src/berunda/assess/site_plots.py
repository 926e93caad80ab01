"""Figures of an analysis of sites: heat maps of overlap, supports, class shares, histograms of classes and colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from berunda.assess.colors import CYCLE, class_colors
from berunda.assess.description import BINS, SPAN
from berunda.assess.overlap import Overlap
from berunda.assess.plots import FAINT, INK, new_figure, styled
from berunda.assess.representativeness import shares
from berunda.assess.support import PlaneGrid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "MAX_MAPS",
    "ROLE_COLORS",
    "Frame",
    "band_histograms",
    "class_bars_by_site",
    "class_maps",
    "distance_heat",
    "overlap_heat",
    "site_colors",
    "support_map",
]

ROLE_COLORS = {"labelled": "#0072b2", "unlabelled": "#8a918d", "test": "#c2257f", "all": "#0b6e69"}
_DARK = 0.55
MAX_MAPS = 48
"""Classes whose share over the plane is drawn, at most."""


def site_colors(n: int) -> list[str]:
    """Return one colour for each of `n` sites; beyond sixteen they are spread over a colour map."""
    if n <= len(CYCLE):
        return list(CYCLE[:n])
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colormaps["turbo"](v)) for v in np.linspace(0.03, 0.97, n)]


@dataclass(frozen=True)
class Frame:
    """The part of a plane that is shown.

    Attributes:
        x_low, x_high, y_low, y_high: its edges.
    """

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    @classmethod
    def around(cls, plane: np.ndarray) -> Frame:
        """Return the frame of all places (N, 2) with a margin, at most twice as long one way as the other."""
        low, high = plane.min(axis=0), plane.max(axis=0)
        longest = max(float((high - low).max()), 1e-6)
        half = np.maximum(high - low, longest / 2) / 2 + 0.07 * longest
        middle = (low + high) / 2
        (x_low, y_low), (x_high, y_high) = (middle - half).tolist(), (middle + half).tolist()
        return cls(x_low, x_high, y_low, y_high)


@styled
def overlap_heat(overlap: Overlap, values: npt.NDArray[np.float64], title: str) -> Figure:
    """Return a heat map of overlaps 0..1: S1 in rows, S2 in columns; grey where there is no figure.

    Args:
        overlap: its names are written.
        values: (R, C) its `iou` or `iot`.
        title: above it.
    """
    n_rows, n_cols = values.shape
    cell = 0.52 if max(n_rows, n_cols) <= 12 else 0.3
    figure, axes = new_figure(2.2 + cell * n_cols, 1.5 + cell * n_rows)
    axis = axes[0, 0]
    _heat(axis, values, "viridis")
    if max(n_rows, n_cols) <= 16:
        for i, j in np.ndindex(n_rows, n_cols):
            if np.isfinite(values[i, j]):
                ink = INK if values[i, j] > _DARK else "white"
                axis.text(j, i, f"{100 * values[i, j]:.0f}", ha="center", va="center", color=ink, fontsize=9)
    _ticks(axis, overlap.rows, overlap.cols)
    axis.set_title(title)
    return figure


@styled
def distance_heat(names: Sequence[str], values: npt.NDArray[np.float64], title: str) -> Figure:
    """Return a heat map of distances 0..1 between sites; grey where there is no figure."""
    n = len(names)
    cell = 0.48 if n <= 12 else 0.28
    figure, axes = new_figure(2.0 + cell * n, 1.4 + cell * n)
    axis = axes[0, 0]
    _heat(axis, values, "magma_r")
    if n <= 16:
        for i, j in np.ndindex(n, n):
            if np.isfinite(values[i, j]):
                ink = "white" if values[i, j] > _DARK else INK
                axis.text(j, i, f"{values[i, j]:.2f}", ha="center", va="center", color=ink, fontsize=7.5)
    _ticks(axis, names, names)
    axis.set_title(title)
    return figure


def _heat(axis: Any, values: npt.NDArray[np.float64], name: str) -> None:
    from matplotlib import colormaps

    colors = colormaps[name].with_extremes(bad="#e7e9e6")
    axis.imshow(np.ma.masked_invalid(values), cmap=colors, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    for side in axis.spines.values():
        side.set_visible(False)


def _ticks(axis: Any, rows: Sequence[str], cols: Sequence[str]) -> None:
    size = 9 if max(len(rows), len(cols)) <= 16 else 7
    axis.set_xticks(range(len(cols)), [_cut(name) for name in cols], rotation=40, ha="right", fontsize=size)
    axis.set_yticks(range(len(rows)), [_cut(name) for name in rows], fontsize=size)
    axis.tick_params(length=0)


def _cut(name: str, n: int = 24) -> str:
    return name if len(name) <= n else name[: n - 1] + "…"


@styled
def support_map(
    masks: Mapping[str, npt.NDArray[np.bool_]], grid: PlaneGrid, colors: Sequence[str], plane: np.ndarray
) -> Figure:
    """Return the outlines of supports over the places of all images, which are pale grey.

    Args:
        masks: name -> (cells,) bool.
        grid: of the cells.
        colors: one for each mask.
        plane: (N, 2) places.
    """
    figure, axes = new_figure(5.8, 3.6)
    axis = axes[0, 0]
    axis.scatter(plane[:, 0], plane[:, 1], s=3, color=FAINT, linewidths=0, rasterized=True)
    extent = (grid.x_low, grid.x_high, grid.y_low, grid.y_high)
    for (name, mask), color in zip(masks.items(), colors, strict=True):
        if not mask.any():
            continue
        picture = mask.reshape(grid.n, grid.n).astype(float)
        axis.contourf(picture, levels=[0.5, 1.5], colors=[color], alpha=0.16, extent=extent)
        axis.contour(picture, levels=[0.5], colors=[color], linewidths=1.4, extent=extent)
        axis.plot([], [], color=color, label=_cut(name))
    frame = Frame.around(plane)
    _bare(axis, (frame.x_low, frame.x_high, frame.y_low, frame.y_high))
    if len(masks) <= 12:
        axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _bare(axis: Any, extent: tuple[float, float, float, float]) -> None:
    axis.set_xlim(extent[0], extent[1])
    axis.set_ylim(extent[2], extent[3])
    axis.set_aspect("equal")
    axis.set_xticks([])
    axis.set_yticks([])
    for side in axis.spines.values():
        side.set_visible(True)
        side.set_color(FAINT)


@styled
def class_maps(maps: npt.NDArray[np.float64], names: Sequence[str], grid: PlaneGrid) -> Figure:
    """Return the share of each class over the plane, at most `MAX_MAPS`, those of the largest mean first.

    Args:
        maps: (C, n, n) 0..1, NaN where there are no images.
        names: of the classes.
        grid: whose extent they have.
    """
    mean = np.nan_to_num([np.nanmean(m) if np.isfinite(m).any() else 0.0 for m in maps])
    order = np.argsort(-mean, kind="stable")[:MAX_MAPS]
    n_cols = min(4, len(order))
    n_rows = -(-len(order) // n_cols)
    figure, axes = new_figure(2.0 * n_cols + 0.7, 2.15 * n_rows, nrows=n_rows, ncols=n_cols)
    extent = (grid.x_low, grid.x_high, grid.y_low, grid.y_high)
    shown = None
    for axis, c in zip(axes.ravel(), order, strict=False):
        masked = np.ma.masked_invalid(maps[c])
        shown = axis.imshow(
            masked, origin="lower", extent=extent, cmap="YlGnBu", vmin=0, vmax=1, interpolation="nearest"
        )
        axis.set_title(_cut(names[c], 20), fontsize=9)
        _bare(axis, extent)
    for axis in axes.ravel()[len(order) :]:
        axis.set_visible(False)
    if shown is not None:
        bar = figure.colorbar(shown, ax=axes, fraction=0.025, ticks=[0, 0.5, 1])
        bar.ax.set_yticklabels(["0%", "50%", "100%"], fontsize=8)
    return figure


@styled
def class_bars_by_site(counts: Mapping[str, npt.NDArray[np.float64]], classes: Sequence[str]) -> Figure:
    """Return stacked bars of class shares, one for each site or role.

    Args:
        counts: name -> (C,); those without labels are left out.
        classes: names.
    """
    rows = {name: shares(values) for name, values in counts.items() if values.sum() > 0}
    figure, axes = new_figure(5.2, 1.2 + 0.27 * len(rows) + 0.2 * -(-len(classes) // 3))
    axis = axes[0, 0]
    left = np.zeros(len(rows))
    for c, (name, color) in enumerate(zip(classes, class_colors(classes), strict=True)):
        width = np.array([share[c] for share in rows.values()])
        axis.barh(range(len(rows)), width, left=left, color=color, label=_cut(name), height=0.74)
        left += width
    axis.set_yticks(range(len(rows)), [_cut(name) for name in rows], fontsize=8.5)
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.set_xticks([0, 0.5, 1], ["0%", "50%", "100%"])
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    axis.legend(fontsize=8, ncol=3, loc="upper left", bbox_to_anchor=(0, -0.35 / (1 + 0.27 * len(rows)) - 0.08))
    return figure


@styled
def band_histograms(
    by_role: Mapping[str, npt.NDArray[np.float64]], bands: Sequence[str], low_high: np.ndarray
) -> Figure:
    """Return the distributions of pixel values of each band, role against role.

    Args:
        by_role: role -> (B, bins) shares.
        bands: names of the B bands.
        low_high: (2, B) values at -1 and 1 of the scale that the bins lie on.
    """
    n_cols = min(3, len(bands))
    n_rows = -(-len(bands) // n_cols)
    figure, axes = new_figure(2.35 * n_cols, 1.55 * n_rows + 0.3, nrows=n_rows, ncols=n_cols)
    centres = -SPAN + (np.arange(BINS) + 0.5) * 2 * SPAN / BINS
    for b, axis in enumerate(axes.ravel()[: len(bands)]):
        low, high = low_high[:, b]
        values = low + (centres + 1) / 2 * (high - low)
        for role, shown in by_role.items():
            color = ROLE_COLORS.get(role, INK)
            axis.plot(values, shown[b], color=color, linewidth=1.5, label=role if b == 0 else None)
            axis.fill_between(values, shown[b], color=color, alpha=0.12, linewidth=0)
        axis.set_title(_cut(bands[b], 18), fontsize=9)
        axis.set_yticks([])
        axis.set_ylim(0)
        axis.tick_params(labelsize=7.5)
        axis.locator_params(axis="x", nbins=4)
        axis.spines["left"].set_visible(False)
    for axis in axes.ravel()[len(bands) :]:
        axis.set_visible(False)
    figure.legend(fontsize=8.5, ncol=3, loc="outside upper left")
    return figure
