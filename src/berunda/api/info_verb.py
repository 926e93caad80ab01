"""What a model or a scene holds, in a few lines."""

from __future__ import annotations

from pathlib import Path

from berunda.errors import DataError
from berunda.geo.raster import Scene, open_scenes
from berunda.mapping.bundle import MANIFEST_NAME, load_bundle
from berunda.mapping.manifest import Manifest

__all__ = ["info"]


def info(path: Path | str) -> list[tuple[str, str]]:
    """Return (what, value) lines about a bundle, a map run's folder or a scene.

    Raises:
        BerundaError: it is neither, or it is damaged.
    """
    place = Path(path)
    if (place / MANIFEST_NAME).exists() or (place / "model" / MANIFEST_NAME).exists():
        return _of_bundle(place)
    if not place.exists() and "://" not in str(path):
        raise DataError(f"{place}: not found; expected a model folder, the folder of a map run, or a raster")
    lines: list[tuple[str, str]] = []
    for scene in open_scenes([path]):
        with scene:
            lines += _of_scene(scene)
    return lines


def _of_bundle(folder: Path) -> list[tuple[str, str]]:
    m = load_bundle(folder).manifest
    n_bytes = m.weights.bytes if m.weights else 0
    lines = [
        ("model", f"{m.format}, {n_bytes / 1e6:.1f} MB"),
        ("task", m.task),
        ("method", ", ".join([m.method, *(f"{k}={v}" for k, v in m.method_options.items())])),
        ("encoder", f"{m.encoder}, depth {m.net.encoder_depth}"),
        ("window", f"{m.window_px} px, margin {m.margin_px} px"),
        *((f"class {c.id}", f"{c.name} ({c.color})") for c in m.classes),
        *((f"band {b.name}", f"{b.low:.6g} to {b.high:.6g}") for b in m.bands),
    ]
    c = m.calibration
    lines.append(
        ("confidence", f"temperature {c.temperature:.3g}, from {_held_out(m)}")
        if c.is_fitted and not c.warning
        else ("confidence", c.warning or "not calibrated")
    )
    if m.ood is not None:
        found = m.ood.warning if m.ood.threshold is None else f"flagged above {m.ood.threshold:.4g}"
        lines.append(("out of distribution", f"{m.ood.kind}, {found}"))
    lines += [("trained on", o.name) for o in m.training.scenes]
    if m.task == "segmentation":
        lines.append(("labels", f"{len(m.training.labels)} polygons"))
    else:
        lines += [("labels", o.name) for o in m.training.labels]
    return [*lines, *((f"version of {k}", v) for k, v in m.versions.items())]


def _held_out(m: Manifest) -> str:
    c = m.calibration
    return f"{c.n_pixels} pixels of {c.n_groups} polygons" if m.task == "segmentation" else f"{c.n_pixels} images"


def _of_scene(scene: Scene) -> list[tuple[str, str]]:
    shape = scene.grid.shape
    lines = [
        ("scene", scene.name),
        ("size", f"{shape.cols} x {shape.rows} px"),
        ("grid", str(scene.grid)),
        ("bounds", str(scene.grid.bounds)),
    ]
    for band in scene.bands:
        nodata = "none" if band.nodata is None else f"{band.nodata:g}"
        lines.append((f"band {band.name}", f"{band.dtype}, nodata {nodata}, {band.source.path.name}"))
    return lines
