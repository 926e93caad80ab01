"""From files to what training needs: scenes, labels, an honest split and the radiometry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import shapely

from berunda.api.label_rule import LabelRule
from berunda.config import MapConfig
from berunda.data.scaling import Scaling, measure_scaling
from berunda.data.splits import BLOCK_PX, UNUSED, BlockSplit, SplitSettings, split_blocks
from berunda.errors import ConfigError, DataError, GeoError
from berunda.geo.features import is_vector
from berunda.geo.grid import Window, same_crs
from berunda.geo.raster import Scene, open_scenes
from berunda.geo.vector import Labels, count_conflicts, rasterize, read_labels

__all__ = ["Prepared", "prepare"]


@dataclass(frozen=True)
class Prepared:
    """What every step of a map run works on.

    Attributes:
        scenes: the scenes, all with the same bands.
        labels: the polygons in the scenes' coordinate reference system.
        split: which polygon serves what.
        scaling: low and high of every band.
        left_out: indices of polygons left out by the label rule (for example under cloud).
        warnings: what a reader should know about the labels and the split.
    """

    scenes: tuple[Scene, ...]
    labels: Labels
    split: BlockSplit
    scaling: Scaling
    left_out: np.ndarray
    warnings: tuple[str, ...]

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.labels.class_names)

    @property
    def band_names(self) -> tuple[str, ...]:
        """Names of the bands, in the order of the net's input."""
        return self.scenes[0].band_names


def prepare(config: MapConfig) -> Prepared:
    """Open the scenes and labels of `config`, leave out labels by rule, and split the rest.

    Raises:
        GeoError, DataError, ConfigError, SecurityError: the input is wrong; the message says what and where.
    """
    scenes = tuple(
        open_scenes(list(config.scenes), bands=config.bands, mask=config.mask, allow_remote=config.allow_remote)
    )
    _check_alike(scenes)
    if config.labels is None:
        raise ConfigError("--labels is needed: the polygons or the label raster that hold the classes")
    labels = read_labels(
        config.labels,
        config.field or "",
        grids=[s.grid for s in scenes],
        classes=config.classes or None,
        zero_is_class=config.zero_is_class,
        cut_px=config.block_px or BLOCK_PX,
    )
    if len(labels.class_names) < 2:
        absent = "".join(f", none of '{name}'" for name in labels.absent_classes)
        raise DataError(
            f"{labels.source}: only one class found on the scene ({', '.join(labels.class_names)}{absent}); a map needs"
            " at least two"
        )
    warnings = _label_warnings(labels)
    left_out = np.zeros(0, np.int64)
    if config.drop_labels_where is not None:
        labels, left_out, told = _without_ruled_out(config.drop_labels_where, scenes, labels)
        warnings += told
    warnings += _conflict_warnings(labels, scenes)
    kept = labels.subset(np.setdiff1d(np.arange(len(labels.class_ids)), left_out))
    split = split_blocks(kept, [s.grid for s in scenes], settings_of(config))
    part = np.full(len(labels.class_ids), UNUSED, np.int8)
    scene_of = np.full(len(labels.class_ids), -1, np.int16)
    kept_index = np.setdiff1d(np.arange(len(labels.class_ids)), left_out)
    part[kept_index], scene_of[kept_index] = split.part, split.scene
    return Prepared(
        scenes=scenes,
        labels=labels,
        split=replace(split, part=part, scene=scene_of),
        scaling=measure_scaling(list(scenes)),
        left_out=left_out,
        warnings=(*warnings, *split.warnings),
    )


def settings_of(config: MapConfig) -> SplitSettings:
    """Return the split's settings: the buffer is half the training crop."""
    return SplitSettings(
        block_px=config.block_px,
        buffer_px=config.crop_px // 2,
        test_share=config.test_share,
        polygons_per_class=config.polygons_per_class,
        seed=config.seed,
    )


def _check_alike(scenes: Sequence[Scene]) -> None:
    first = scenes[0]
    for scene in scenes[1:]:
        if scene.band_names != first.band_names:
            raise DataError(
                f"scene {scene.name} has bands {', '.join(scene.band_names)}, {first.name} has "
                f"{', '.join(first.band_names)}; expected the same bands: choose them with --bands"
            )
        if not same_crs(scene.grid.crs, first.grid.crs):
            raise GeoError(
                f"scene {scene.name} is in {scene.grid}, {first.name} in {first.grid}; expected one coordinate "
                "reference system: reproject one of them (gdalwarp), or map them one by one"
            )


def _without_ruled_out(text: str, scenes: Sequence[Scene], labels: Labels) -> tuple[Labels, np.ndarray, list[str]]:
    """Return the labels without the classes that a rule leaves nothing of, what else it leaves out, and warnings.

    Args:
        text: the rule.
        scenes: to measure the polygons on.
        labels: all polygons.

    Raises:
        DataError: fewer than two classes are left.
    """
    counted = np.ones(len(labels), bool)
    counted[_ruled_out(LabelRule.parse(text), scenes, labels)] = False
    left = labels.without_empty_classes(counted)
    lost = [f"'{name}'" for name in labels.class_names if name not in left.class_names]
    if len(left.class_names) < 2:
        raise DataError(
            f"{labels.source}: --drop-labels-where {text} leaves no polygon of class {', '.join(lost)}; a map needs at"
            " least two classes: choose another bound"
        )
    told = [f"Class {name} has no polygon left by the rule {text}; it is not mapped." for name in lost]
    n_out = int((~counted).sum())
    if n_out:
        name = Path(labels.source).name
        told.insert(0, f"{n_out} of the {_n_polygons(labels)} polygons of {name} are left out by the rule {text}.")
    stays = np.isin(labels.class_ids, np.unique(labels.class_ids[counted]))
    return left, np.flatnonzero(~counted[stays]), told


def _ruled_out(rule: LabelRule, scenes: Sequence[Scene], labels: Labels) -> np.ndarray:
    """Return the indices of polygons whose median in the rule's band passes its bound."""
    found: set[int] = set()
    for scene in scenes:
        band = scene.select([rule.band])
        for polygon, values in _values_by_polygon(band, labels):
            if rule.holds(float(np.median(values))):
                found.add(polygon)
    return np.array(sorted(found), dtype=np.int64)


def _values_by_polygon(scene: Scene, labels: Labels, strip_px: int = 1024) -> list[tuple[int, np.ndarray]]:
    """Return (polygon, valid values of the scene's only band), reading the scene strip by strip."""
    shape = scene.grid.shape
    gathered: dict[int, list[np.ndarray]] = {}
    for top in range(0, shape.rows, strip_px):
        for left in range(0, shape.cols, strip_px):
            window = Window(top, left, min(strip_px, shape.rows - top), min(strip_px, shape.cols - left))
            polygon = rasterize(labels, scene.grid, window)
            if not (polygon >= 0).any():
                continue
            block = scene.read(window)
            here = (polygon >= 0) & block.valid
            owner, values = polygon[here], block.values[0][here]
            order = np.argsort(owner, kind="stable")
            owner, values = owner[order], values[order]
            starts = np.flatnonzero(np.diff(owner, prepend=-1))
            for number, part in zip(owner[starts], np.split(values, starts[1:]), strict=True):
                gathered.setdefault(int(number), []).append(part)
    return [(number, np.concatenate(parts)) for number, parts in gathered.items()]


def _conflict_warnings(labels: Labels, scenes: Sequence[Scene]) -> list[str]:
    """Return a warning when polygons of different classes claim the same pixels, which then count for neither."""
    if not is_vector(Path(labels.source)):
        return []
    one, two = shapely.STRtree(labels.geometries).query(labels.geometries)
    mixed = labels.subset(np.unique(one[labels.class_ids[one] != labels.class_ids[two]]))
    n_px = sum(
        count_conflicts(mixed, scene.grid, window)
        for scene in scenes
        for window in scene.grid.tiles(1024)
        if len(mixed.touching(scene.grid, window)) > 1
    )
    if not n_px:
        return []
    return [f"{n_px} pixels lie in polygons of different classes of {Path(labels.source).name}; they are not used."]


def _label_warnings(labels: Labels) -> list[str]:
    n = _n_polygons(labels)
    said = (
        (labels.n_outside, "lie outside the scene and are not used"),
        (labels.n_partly_outside, "reach beyond the scene; the part inside is used"),
        (labels.n_empty, "have no geometry and are not used"),
        (labels.n_null, "have no class and are not used"),
        (labels.n_repaired, "cross themselves and were repaired"),
    )
    name = Path(labels.source).name
    told = [f"{count} of the {n} polygons of {name} {what}." for count, what in said if count]
    return told + [f"Class '{c}' has no polygon on the scene; it is not mapped." for c in labels.absent_classes]


def _n_polygons(labels: Labels) -> int:
    """Return how many features the file holds, those without use included."""
    return len(labels) + labels.n_outside + labels.n_empty + labels.n_null
