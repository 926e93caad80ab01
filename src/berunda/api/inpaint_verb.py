"""Filling what a mask hides of a scene from what lies around it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from berunda.api.outcome import InpaintOutcome
from berunda.errors import ConfigError
from berunda.geo.raster import open_scenes
from berunda.mapping.bundle import load_bundle
from berunda.mapping.inpaint import check_can_fill, fill_scene
from berunda.mapping.run import radiometry_of, with_bands
from berunda.models.device import resolve_device
from berunda.progress import Progress

__all__ = ["inpaint"]


def inpaint(
    bundle: Path | str,
    scene: Sequence[str | Path],
    *,
    mask: Path | str,
    out: Path | str,
    bands: Sequence[str] | None = None,
    device: str = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> InpaintOutcome:
    """Fill the pixels of a scene under a mask, such as clouds, from their surroundings.

    Args:
        bundle: the folder `model/` of a method that can fill gaps (`berunda methods` tells which), or the folder of the
            run that holds it.
        scene: raster files or a folder; several files are the bands of one scene.
        mask: a raster whose non-zero pixels are filled; any resolution and CRS.
        out: the GeoTIFF to write: the bundle's bands in float32, in the units of the scene; nodata is NaN.
        bands: names of the scene's bands, in order, where the files do not carry them.
        device: "auto", "cpu", "cuda" or "cuda:N".
        seed: of the draws of methods that draw what they fill; the same seed fills alike on the same machine.
        progress: told of the pixels.

    Raises:
        BerundaError: the bundle cannot fill gaps, the mask hides everything, a file cannot be read or written; the
            message says what to do.
    """
    target = Path(out)
    _check_target(target, [*scene, mask])
    resolve_device(device)
    loaded = load_bundle(bundle)
    check_can_fill(loaded)
    with ExitStack() as held:
        opened = [held.enter_context(s) for s in open_scenes(list(scene), bands=bands, mask=mask)]
        if len(opened) != 1:
            names = ", ".join(s.name for s in opened[:4])
            raise ConfigError(f"found {len(opened)} scenes ({names}), expected one; fill them one after the other")
        chosen = with_bands(opened[0], loaded.manifest)
        unlike = radiometry_of(chosen, loaded.manifest)
        filled = fill_scene(loaded, chosen, target, device=device, seed=seed, progress=progress)
    warnings = [*_warnings(filled.n_filled, filled.n_left), *unlike]
    return InpaintOutcome(filled.path, filled.n_filled, filled.n_left, tuple(warnings))


def _check_target(out: Path, inputs: Sequence[str | Path]) -> None:
    """Refuse a file that is an input, or no GeoTIFF by its name."""
    if out.suffix.lower() not in (".tif", ".tiff"):
        raise ConfigError(f"--out {out}: expected the name of a GeoTIFF, such as {out.with_suffix('.tif')}")
    target = Path(os.path.realpath(out))
    for text in inputs:
        path = Path(os.path.realpath(text))
        if target == path or (path.is_dir() and target.parent == path):
            raise ConfigError(f"--out {out} would lie over or among the inputs ({text}); choose another place")


def _warnings(n_filled: int, n_left: int) -> list[str]:
    if n_left:
        return [
            f"{n_left} pixels under the mask are too far from anything known and are nodata; a model of larger images "
            "sees further"
        ]
    return [] if n_filled else ["the mask hides no pixel of the scene: the output is the scene as it was"]
