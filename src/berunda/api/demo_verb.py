"""The main job in its ready-made form: a real Sentinel-2 scene, five polygons a class, a map and a comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from berunda.api.map_verb import map_scene
from berunda.api.outcome import MapOutcome
from berunda.config import MapConfig
from berunda.data.demo_scene import ATTRIBUTION, BANDS, CLASSES, FIELD, demo_scene
from berunda.progress import Progress

__all__ = ["CLOUD_RULE", "demo", "demo_config", "synthetic_config"]

CLOUD_RULE = "B02>1800"
"""Polygons whose median in the blue band passes this lie under cloud; so do pixels, for the check of the ood layer."""

_SETTINGS: dict[str, Any] = {"polygons_per_class": 5, "test_share": 0.5, "effort": "quick", "compare": True}


def demo_config(seed: int, progress: Progress | None = None) -> MapConfig:
    """Fetch the real scene and return the demo's configuration: 5 polygons a class, half the blocks for the test."""
    scene = demo_scene(progress)
    return MapConfig(
        scenes=tuple(str(p) for p in scene.bands),
        labels=str(scene.polygons),
        field=FIELD,
        bands=BANDS,
        classes=dict(CLASSES),
        drop_labels_where=CLOUD_RULE,
        seed=seed,
        **_SETTINGS,
    )


def synthetic_config(folder: Path, config: MapConfig, *, writes: bool = True) -> MapConfig:
    """Write a toy landscape with polygons into `folder`; return `config` with them in the place of scene and labels.

    Without `writes` they are there already.
    """
    if writes:
        from berunda.data.synthetic import Landscape, write_polygons, write_scene, write_truth

        folder.mkdir(parents=True, exist_ok=True)
        landscape = Landscape(seed=config.seed, rows=768, cols=1024)
        write_scene(folder / "scene.tif", landscape)
        write_truth(folder / "truth.tif", landscape)
        write_polygons(folder / "polygons.gpkg", landscape, per_class=20)
    return config.replaced(
        scenes=(str(folder / "scene.tif"),),
        labels=str(folder / "polygons.gpkg"),
        field="class",
        synthetic=False,
    )


def demo(out: Path | str, *, seed: int = 0, synthetic: bool = False, progress: Progress | None = None) -> MapOutcome:
    """Run the demo to the end; it fetches 5 MB on the first call and says so before.

    Args:
        out: folder for everything.
        seed: of every random choice, the split included.
        synthetic: a made-up landscape instead, which needs no network.
        progress: told of every phase.

    Raises:
        BerundaError: the scene cannot be fetched, or an output cannot be written.
    """
    if synthetic:
        config = MapConfig(synthetic=True, seed=seed, **_SETTINGS)
        said = ("Scene and labels: a synthetic landscape, made by Berunda.",)
        return map_scene(config, out, progress=progress, attribution=said)
    return map_scene(demo_config(seed, progress), out, progress=progress, attribution=(ATTRIBUTION,))
