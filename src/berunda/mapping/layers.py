"""The rasters of a map: what each holds, by the task of its model.

Of a model of one class a pixel: confidence, unlikeness, and the classes. Of one of several labels, by patch, also the
probability of each label, one band a label; its map has one band a label too, which says whether the label is there by
the threshold that was tuned on validation images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from berunda.mapping.manifest import Manifest
from berunda.mapping.predictor import Planes

__all__ = [
    "ABSENT",
    "LIKELIHOOD_NAME",
    "PRESENT",
    "Entry",
    "Layer",
    "layers_of",
    "legend_of",
    "likelihood_share",
    "named_planes",
]

ABSENT, PRESENT = 1, 2
"""Values of a label in a map of several; 0 is nodata, as in every map."""
LIKELIHOOD_NAME = "log p(x), as share of validation data"


class Entry(NamedTuple):
    """An entry of a legend: the value in the map, its name, its colour as "#rrggbb"."""

    value: int
    name: str
    color: str


_PRESENCE = (Entry(ABSENT, "absent", "#e3e6e2"), Entry(PRESENT, "present", "#0b6e69"))


@dataclass(frozen=True)
class Layer:
    """A raster of a map.

    Attributes:
        bands: their names.
        dtype: numpy name.
        nodata: what stands where there is no data.
        overview: how the overviews are made.
        values: from planes of (rows, cols) to what is written, (bands, rows, cols).
        legend: names of the values, from 1 on; empty for a measure.
        tags: of the dataset.
    """

    bands: tuple[str, ...]
    dtype: str
    nodata: float
    overview: Literal["mode", "average"]
    values: Callable[[Planes], npt.NDArray[np.generic]]
    legend: tuple[Entry, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)


def layers_of(manifest: Manifest) -> list[Layer]:
    """Return the rasters of a map by this bundle, in the order of `MapFiles.rasters`."""
    labels = manifest.label_names
    classes = partial(_presence, named_from=manifest.named_from) if labels else _classes
    of_labels = {f"THRESHOLD_{i}": repr(value) for i, value in enumerate(manifest.named_from, start=1)}
    shares = [Layer(labels, "float32", np.nan, "average", _probabilities, tags=of_labels)] if labels else []
    return [
        _sureness(manifest.ood.energy_quantiles if manifest.ood else ()),
        Layer(("feature distance", "energy"), "float32", np.nan, "average", _unlikeness, tags=_limits(manifest)),
        *shares,
        Layer(labels or ("class",), "uint8", 0, "mode", classes, legend_of(manifest)),
    ]


def legend_of(manifest: Manifest) -> tuple[Entry, ...]:
    """Return what the values of the map mean; of several labels the same in every band."""
    return _PRESENCE if manifest.label_names else tuple(Entry(c.id, c.name, c.color) for c in manifest.classes)


def likelihood_share(energies: npt.NDArray[np.float32], quantiles: Sequence[float]) -> npt.NDArray[np.float32]:
    """Return which share of the validation data is at most as likely as each pixel or patch: log p(x) within 0..1.

    Args:
        energies: -log p(x) up to a constant, NaN where there is no data.
        quantiles: energies of the validation data at even shares from 0 to 1, rising.

    Returns:
        Same shape; 1 for what is likelier than all validation data, 0 for what is less likely; NaN where there is none.
    """
    shares = 1 - np.interp(energies, quantiles, np.linspace(0, 1, len(quantiles)))
    return shares.astype(np.float32)


def named_planes(planes: Planes, named_from: Sequence[float]) -> list[npt.NDArray[np.bool_]]:
    """Return for each of several labels where it is named: where it is as probable as `named_from` says, or more."""
    pairs = zip(planes.probabilities, named_from, strict=True)
    return [plane >= np.float32(threshold) for plane, threshold in pairs]


def _sureness(quantiles: Sequence[float]) -> Layer:
    """Return the raster of confidence; with `quantiles` of an energy that is a density it also says how likely."""
    if not quantiles:
        return Layer(("confidence",), "float32", np.nan, "average", _confidence)
    values = partial(_confidence_and_likelihood, quantiles=quantiles)
    return Layer(("confidence", LIKELIHOOD_NAME), "float32", np.nan, "average", values)


def _confidence(planes: Planes) -> npt.NDArray[np.generic]:
    return planes.confidence[None]


def _confidence_and_likelihood(planes: Planes, quantiles: Sequence[float]) -> npt.NDArray[np.generic]:
    return np.stack([planes.confidence, likelihood_share(planes.energy, quantiles)])


def _unlikeness(planes: Planes) -> npt.NDArray[np.generic]:
    return np.stack([planes.distance, planes.energy])


def _probabilities(planes: Planes) -> npt.NDArray[np.generic]:
    return np.stack(planes.probabilities)


def _classes(planes: Planes) -> npt.NDArray[np.generic]:
    return planes.classes[None]


def _presence(planes: Planes, named_from: Sequence[float]) -> npt.NDArray[np.generic]:
    there = np.where(np.stack(named_planes(planes, named_from)), np.uint8(PRESENT), np.uint8(ABSENT))
    return there * (planes.classes > 0)


def _limits(manifest: Manifest) -> dict[str, str]:
    """Return the thresholds of unlikeness as tags, those that there are."""
    ood = manifest.ood
    pairs = {
        "OOD_THRESHOLD": ood.threshold if ood else None,
        "OOD_THRESHOLD_ENERGY": ood.threshold_energy if ood else None,
    }
    return {name: repr(value) for name, value in pairs.items() if value is not None}
