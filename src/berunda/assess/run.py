"""Assess a finished map: agreement with polygons, or design-based accuracy and area from random points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from berunda.assess.area import AreaEstimate, Design, estimate_area
from berunda.assess.assess_view import assess_view
from berunda.assess.intervals import ScoreIntervals, bootstrap_interval
from berunda.assess.metrics import Scores, score
from berunda.assess.page import json_text, render_page
from berunda.assess.pictures import shrink_step
from berunda.assess.reference import (
    MapSource,
    Points,
    colors_of,
    join_classes,
    open_map,
    points_in,
    read_points,
    refuse_training_polygons,
)
from berunda.assess.report_data import ClassInfo, ReportData, ScenePictures
from berunda.errors import DataError
from berunda.files import write_text
from berunda.geo.grid import crs_name
from berunda.geo.vector import Labels, rasterize, read_labels

__all__ = ["AssessResult", "assess_map"]

FORMAT = "berunda-assess-1"
MAX_GROUPS = 2000
BLOCKS_PER_SIDE = 20
N_CODES = 256
AGREEMENT = (
    "These figures are agreement with the reference given, not the accuracy of the map: the reference was "
    "not drawn at random, so nothing follows for the rest of the map. For the accuracy of the whole map, "
    "and for areas with intervals, draw random reference points (about 50 or more per class) and give "
    "--design."
)
DESIGN = (
    "Estimates for the whole map, with 95% intervals, after Olofsson et al. 2014. They hold if the points "
    "were drawn at random {how} and labelled without looking at the map."
)
HOW = {"stratified": "within each class of the map", "random": "over the whole map"}


@dataclass(frozen=True)
class AssessResult:
    """What an assessment found and where it was written.

    Attributes:
        class_names: classes of map and reference.
        statement: what the figures mean, in plain words.
        scores: agreement; None with a design.
        intervals: their bootstrap intervals; None with a design.
        area: design-based accuracy and area; None without a design.
        area_unit: "ha", or "px" where the map has no projected CRS.
        warnings: plain-language sentences.
        page: the HTML report.
        values: the JSON report.
    """

    class_names: tuple[str, ...]
    statement: str
    scores: Scores | None
    intervals: ScoreIntervals | None
    area: AreaEstimate | None
    area_unit: str
    warnings: tuple[str, ...]
    page: Path
    values: Path

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "statement": self.statement,
            "metrics": self.scores.as_dict() if self.scores else None,
            "intervals": self.intervals.as_dict() if self.intervals else None,
            "area": {"unit": self.area_unit, **self.area.as_dict()} if self.area else None,
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True)
class _Overview:
    """One pass over the map: pixels per code (256,), and a picture of codes, every `step`-th pixel."""

    counts: npt.NDArray[np.int64]
    picture: npt.NDArray[np.uint8]
    step: int


@dataclass(frozen=True)
class _Found:
    """What a comparison with the reference gives, before it is written."""

    class_names: list[str]
    warnings: tuple[str, ...]
    scores: Scores | None = None
    intervals: ScoreIntervals | None = None
    area: AreaEstimate | None = None
    area_unit: str = "ha"
    confusion: npt.NDArray[np.int64] | None = None


def assess_map(
    map_path: str | Path,
    reference: str | Path,
    *,
    field: str,
    out: str | Path,
    design: Design | None = None,
    classes: Mapping[str, str] | None = None,
    zero_is_class: bool = False,
    seed: int = 0,
) -> AssessResult:
    """Assess a class map with reference data and write `assess.json` and `assess.html`.

    Args:
        map_path: one-band class map, 0 = nodata.
        reference: polygons, a label raster, or points; a design needs points.
        field: of the vector file, holds the class names; not used for a raster.
        out: folder for the reports; older ones in it are replaced.
        design: how points were drawn: "stratified" (at random within each class of the map) or "random" (over
            the whole map). Without it only agreement is reported.
        classes: old name -> new name for the reference's classes, "" drops the class.
        zero_is_class: whether 0 in a raster is a class and not "unlabelled".
        seed: of the bootstrap behind the intervals.

    Returns:
        The figures and the paths.

    Raises:
        DataError: the reference trained the model, has other classes, does not fit the design, or meets no
            mapped pixel.
        GeoError, SecurityError: a file cannot be used.
        OutputError: the reports cannot be written.
    """
    source = open_map(map_path)
    with source.scene:
        area_m2 = source.grid.pixel_area_m2()
        features = points_in(reference, field)
        if features is not None:
            points = read_points(features, reference, source.grid, classes)
            overview = _overview(source)
            found = _with_points(source, overview, points, design, seed)
        elif design is None:
            grids = [source.grid]
            labels = read_labels(reference, field, grids=grids, classes=classes, zero_is_class=zero_is_class)
            refuse_training_polygons(source, labels.fingerprints)
            overview = _overview(source)
            found = _agreement(source, overview, labels, seed)
        else:
            raise DataError(
                f"{reference} holds no points: expected a random sample of points for --design {design}; "
                "without --design polygons and rasters give agreement"
            )
    data = _report_data(source, overview, found, area_m2)
    return _written(data, found, Path(out), Path(reference), design)


def _written(data: ReportData, found: _Found, folder: Path, reference: Path, design: Design | None) -> AssessResult:
    """Write both reports and return the result."""
    result = AssessResult(
        class_names=tuple(found.class_names),
        statement=AGREEMENT if design is None else DESIGN.format(how=HOW[design]),
        scores=found.scores,
        intervals=found.intervals,
        area=found.area,
        area_unit=found.area_unit,
        warnings=found.warnings,
        page=folder / "assess.html",
        values=folder / "assess.json",
    )
    view = assess_view(data, found.area, result.statement, found.area_unit, reference.name)
    html = render_page("assess.html.j2", **view)
    values = {"map": data.scenes[0].name, "reference": reference.name, "design": design}
    write_text(result.values, json_text({"format": FORMAT, **values, **result.as_dict()}))
    write_text(result.page, html)
    return result


def _overview(source: MapSource) -> _Overview:
    shape = source.grid.shape
    step = shrink_step((shape.rows, shape.cols))
    counts = np.zeros(N_CODES, np.int64)
    picture = np.zeros((-(-shape.rows // step), -(-shape.cols // step)), np.uint8)
    for window, codes in source.tiles():
        counts += np.bincount(codes.reshape(-1), minlength=N_CODES)
        row, col = -(-window.row // step), -(-window.col // step)
        part = codes[row * step - window.row :: step, col * step - window.col :: step]
        picture[row : row + part.shape[0], col : col + part.shape[1]] = part
    counts[0] = 0
    if not counts.any():
        raise DataError(f"{source.path} has no mapped pixel (all nodata); expected a class map")
    return _Overview(counts, picture, step)


def _agreement(source: MapSource, overview: _Overview, labels: Labels, seed: int) -> _Found:
    names = join_classes(source, overview.counts, labels.class_names)
    truth = np.array([names.index(labels.class_names[i - 1]) for i in labels.class_ids])
    hits = np.zeros((len(truth), N_CODES), np.int64)
    for window, codes in source.tiles():
        index = rasterize(labels, source.grid, window)
        used = index >= 0
        cells = index[used].astype(np.int64) * N_CODES + codes[used]
        hits += np.bincount(cells, minlength=hits.size).reshape(hits.shape)
    mapped = hits[:, 1 : len(names) + 1]
    group, unit = _groups(labels, source)
    matrices = np.zeros((int(group.max(initial=0)) + 1, len(names), len(names)), np.int64)
    np.add.at(matrices, (group, truth), mapped)
    matrices = matrices[matrices.any((1, 2))]
    if not len(matrices):
        raise DataError(f"{labels.source} covers no mapped pixel of {source.path}; expected some overlap")
    warnings = [*_label_warnings(labels), *_extra_warnings(source, overview, names)]
    n_nodata = int(hits[:, 0].sum())
    if n_nodata:
        warnings.append(f"{n_nodata:,} reference pixels lie where the map has no data and were left out.")
    confusion = matrices.sum(0)
    intervals = bootstrap_interval(matrices, unit=unit, seed=seed)
    return _Found(names, tuple(warnings), score(confusion, names), intervals, confusion=confusion)


def _groups(labels: Labels, source: MapSource) -> tuple[npt.NDArray[np.int64], str]:
    """Return the bootstrap group of each polygon: itself, or with very many of them the block it lies in."""
    if len(labels) <= MAX_GROUPS:
        return np.arange(len(labels)), "polygons"
    bounds = source.grid.bounds
    centers = np.array([(g.representative_point().x, g.representative_point().y) for g in labels.geometries])
    size = ((bounds.right - bounds.left) / BLOCKS_PER_SIDE, (bounds.top - bounds.bottom) / BLOCKS_PER_SIDE)
    cells = np.clip((centers - (bounds.left, bounds.bottom)) // size, 0, BLOCKS_PER_SIDE - 1).astype(np.int64)
    return cells[:, 1] * BLOCKS_PER_SIDE + cells[:, 0], "blocks"


def _label_warnings(labels: Labels) -> list[str]:
    told = {
        "lie outside the map and were left out": labels.n_outside,
        "reach over the map's edge; their inner part was used": labels.n_partly_outside,
        "have no class and were left out": labels.n_null,
        "crossed themselves and were repaired": labels.n_repaired,
    }
    return [f"{n:,} reference polygons {text}." for text, n in told.items() if n]


def _extra_warnings(source: MapSource, overview: _Overview, names: list[str]) -> list[str]:
    top = max([*source.names, *np.flatnonzero(overview.counts)[-1:].tolist(), 0])
    return [
        f"Class '{name}' of the reference is not a class of the map, so all of it counts as wrong; "
        f"merge or drop it with --classes {name}=..."
        for name in names[top:]
    ]


def _with_points(source: MapSource, overview: _Overview, points: Points, design: Design | None, seed: int) -> _Found:
    names = join_classes(source, overview.counts, sorted(set(points.class_names)))
    mapped = np.zeros(len(points.rows), np.int64)
    for window, codes in source.tiles():
        row, col = points.rows - window.row, points.cols - window.col
        here = (row >= 0) & (row < window.n_rows) & (col >= 0) & (col < window.n_cols)
        mapped[here] = codes[row[here], col[here]]
    truth = np.array([names.index(n) for n in points.class_names])
    used = mapped > 0
    counts = np.zeros((len(names), len(names)), np.int64)
    np.add.at(counts, (mapped[used] - 1, truth[used]), 1)
    told = {
        "lie outside the map and were left out": points.n_outside,
        "have no class or a dropped one and were left out": points.n_unused,
        "lie where the map has no data and were left out": int((~used).sum()),
    }
    warnings = [f"{n:,} reference points {text}." for text, n in told.items() if n]
    warnings += _extra_warnings(source, overview, names)
    if design is None:
        matrices = np.zeros((int(used.sum()), len(names), len(names)), np.int64)
        matrices[np.arange(len(matrices)), truth[used], mapped[used] - 1] = 1
        intervals = bootstrap_interval(matrices, unit="points", seed=seed)
        return _Found(names, tuple(warnings), score(counts.T, names), intervals, confusion=counts.T)
    area_m2 = source.grid.pixel_area_m2()
    unit, pixel_area = ("px", 1.0) if area_m2 is None else ("ha", area_m2 / 10_000)
    area = estimate_area(counts, overview.counts[1 : len(names) + 1] * pixel_area, names, design=design)
    return _Found(names, tuple(warnings), area=area, area_unit=unit)


def _report_data(source: MapSource, overview: _Overview, found: _Found, area_m2: float | None) -> ReportData:
    names = found.class_names
    infos = tuple(
        ClassInfo(name, color, int(n), float(n) * area_m2 / 10_000 if area_m2 is not None else None)
        for name, color, n in zip(names, colors_of(source, names), overview.counts[1:], strict=False)
    )
    bounds, rgb = source.grid.bounds, np.repeat(overview.picture[..., None], 3, axis=2)
    pixel_m = float(np.sqrt(area_m2)) * overview.step if area_m2 is not None else None
    scene = ScenePictures(
        name=source.path.name,
        rgb=rgb,
        classes=overview.picture,
        pixel_m=pixel_m,
        bounds=(bounds.left, bounds.bottom, bounds.right, bounds.top),
        crs=crs_name(source.grid.crs),
    )
    return ReportData(
        title=f"Assessment of {source.path.name}",
        classes=infos,
        scenes=(scene,),
        scores=found.scores,
        intervals=found.intervals,
        confusion=found.confusion,
        warnings=found.warnings,
    )
