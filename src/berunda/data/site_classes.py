"""How much of each class every image holds: of image labels, of class rasters beside the images, or of polygons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from berunda.data.sites import Item, SiteSet
from berunda.errors import DataError
from berunda.geo.grid import Shape
from berunda.geo.labelraster import label_grid, read_label_raster
from berunda.geo.vector import Labels, rasterize, read_labels

__all__ = ["ClassCounts", "count_classes"]


@dataclass(frozen=True)
class ClassCounts:
    """Classes of N images.

    Attributes:
        classes: names of the C classes, sorted.
        counts: (N, C) float64; a row of zeros is an image without labels.
        unit: what is counted, "images", "labels" or "pixels".
    """

    classes: tuple[str, ...]
    counts: np.ndarray
    unit: str

    def subset(self, index: np.ndarray) -> ClassCounts:
        """Return the counts of some images, by index (n,)."""
        return ClassCounts(self.classes, self.counts[index], self.unit)

    def by_site(self, site_of: np.ndarray, n_sites: int) -> np.ndarray:
        """Return the counts (S, C) of all images of each site."""
        summed = np.zeros((n_sites, len(self.classes)))
        np.add.at(summed, site_of, self.counts)
        return summed


def count_classes(
    sites: SiteSet, labels: str | None = None, field: str = "", *, zero_is_class: bool = False
) -> ClassCounts | None:
    """Return what is known of the images' classes, None where nothing is.

    Args:
        sites: the images.
        labels: polygons or a raster of classes over the scenes; None for what lies beside the images.
        field: of the polygons, that holds the class.
        zero_is_class: whether 0 in a raster is a class.

    Raises:
        DataError: labels are given, but the images are no windows of scenes; or a raster does not fit its image.
        GeoError: the labels cannot be read.
    """
    if labels is not None:
        return _of_scenes(sites, labels, field, zero_is_class)
    if any(item.truth is not None for item in sites.items):
        return _of_rasters(sites, zero_is_class)
    if len(sites.arrays) == 1 and sites.arrays[0].task == "multilabel":
        images = sites.arrays[0]
        known = np.asarray(images.labels)[[item.row for item in sites.items]]
        return ClassCounts(images.classes, np.nan_to_num(known).astype(float), "labels")
    names = tuple(sorted({item.label for item in sites.items if item.label}))
    if not names:
        return None
    number = {name: i for i, name in enumerate(names)}
    counts = np.zeros((len(sites), len(names)))
    for index, item in enumerate(sites.items):
        if item.label:
            counts[index, number[item.label]] = 1
    return ClassCounts(names, counts, "images")


def _of_scenes(sites: SiteSet, path: str, field: str, zero_is_class: bool) -> ClassCounts:
    if not sites.scenes:
        raise DataError(
            f"--labels {path}: the images of {sites.name} are no parts of a scene, expected labels beside them: a "
            "column "
            "label in the table, one folder a class in each site, or a folder labels with a raster for each image"
        )
    grids = [scene.grid for scene in sites.scenes]
    found: Labels = read_labels(path, field, grids=grids, zero_is_class=zero_is_class)
    counts = np.zeros((len(sites), len(found.class_names)))
    for index, item in enumerate(sites.items):
        if item.window is None:
            continue
        polygon = rasterize(found, grids[item.scene], item.window)
        ids = found.class_ids[polygon[polygon >= 0]]
        counts[index] = np.bincount(ids, minlength=len(found.class_names) + 1)[1:]
    return ClassCounts(found.class_names, counts, "pixels")


def _of_rasters(sites: SiteSet, zero_is_class: bool) -> ClassCounts:
    tallies: list[Mapping[str, int]] = []
    for item in sites.items:
        tallies.append({} if item.truth is None else _tally(sites, item, item.truth, zero_is_class))
    names = tuple(sorted({name for tally in tallies for name in tally}))
    counts = np.array([[tally.get(name, 0) for name in names] for tally in tallies], float)
    return ClassCounts(names, counts.reshape(len(tallies), len(names)), "pixels")


def _tally(sites: SiteSet, item: Item, truth: Path, zero_is_class: bool) -> dict[str, int]:
    """Return the pixels of each class of one image."""
    if item.window is not None:
        expected, found = sites.scenes[item.scene].grid.shape, _shape(truth)
        if expected != found:
            raise DataError(
                f"{truth}: {found.rows} x {found.cols} px found, expected {expected.rows} x {expected.cols} as in "
                f"{item.path.name}; give a raster on the image's grid"
            )
    raster = read_label_raster(truth, zero_is_class, item.window)
    values, n = np.unique(raster.values[raster.values >= 0], return_counts=True)
    return {raster.names[int(value)]: int(count) for value, count in zip(values, n, strict=True)}


@lru_cache(maxsize=64)
def _shape(path: Path) -> Shape:
    return label_grid(path).shape
