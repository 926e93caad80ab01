"""How much of each class every image holds: of image labels, of class rasters beside the images, or of polygons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from berunda.data.sites import Item, SiteSet
from berunda.errors import DataError, GeoError
from berunda.geo.features import is_vector
from berunda.geo.grid import Shape, crs_name
from berunda.geo.labelraster import label_grid, read_label_raster, read_under
from berunda.geo.resolve import resolve_inputs
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
    files = resolve_inputs([path])
    if len(files) == 1 and not is_vector(files[0]):
        return _of_label_raster(sites, files[0], zero_is_class)
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


def _of_label_raster(sites: SiteSet, path: Path, zero_is_class: bool) -> ClassCounts:
    """Return the classes of a raster's pixels in which those of the images have their middles.

    Only what lies under each image is read, so that a raster of any size and detail will do.

    Raises:
        GeoError: it is no raster of classes, or none of its labelled pixels lies under an image.
    """
    own = label_grid(path)
    tallies: list[Mapping[str, int]] = []
    for item in sites.items:
        if item.window is None:
            tallies.append({})
        else:
            raster = read_under(path, own, sites.scenes[item.scene].grid, item.window, zero_is_class)
            tallies.append(_counted(raster.values, raster.names))
    if not any(tallies):
        first = sites.scenes[0].grid
        raise GeoError(
            f"label raster {path} has no labelled pixel on the scene: it covers {own.bounds} in {crs_name(own.crs)}, "
            f"the scene {first.bounds} in {crs_name(first.crs)}; expected the same ground, and class numbers besides "
            "nodata (0 and 255 unless one is declared); see --zero-is-class"
        )
    return _of_tallies(tallies)


def _counted(values: np.ndarray, names: Mapping[int, str]) -> dict[str, int]:
    """Return how often each class occurs; two numbers may have one name."""
    tally: dict[str, int] = {}
    for value, n in zip(*np.unique(values[values >= 0], return_counts=True), strict=True):
        name = names[int(value)]
        tally[name] = tally.get(name, 0) + int(n)
    return tally


def _of_rasters(sites: SiteSet, zero_is_class: bool) -> ClassCounts:
    tallies: list[Mapping[str, int]] = []
    for item in sites.items:
        tallies.append({} if item.truth is None else _tally(sites, item, item.truth, zero_is_class))
    return _of_tallies(tallies)


def _of_tallies(tallies: Sequence[Mapping[str, int]]) -> ClassCounts:
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
    ignored = [value for value in item.ignored if not (value == 0 and zero_is_class)]
    return _counted(np.where(np.isin(raster.values, ignored), -1, raster.values), raster.names)


@lru_cache(maxsize=64)
def _shape(path: Path) -> Shape:
    return label_grid(path).shape
