"""The main job: a scene and a few polygons become a land-cover map with an honest report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from berunda.api.outcome import MapOutcome
from berunda.api.prepare import prepare
from berunda.config import MapConfig
from berunda.methods import method_names
from berunda.progress import Progress, Silent

__all__ = ["map_scene"]


def map_scene(
    config: MapConfig,
    out: Path | str,
    *,
    progress: Progress | None = None,
    attribution: Sequence[str] = (),
) -> MapOutcome:
    """Train on a few labels and all the imagery around them, map every scene, and report.

    The input gets its verdict before anything heavy is imported or written. An interrupted run goes on from its last
    checkpoint and its last tile when it is called again alike.

    Args:
        config: every option, see `MapConfig`.
        out: folder for `map.tif`, `confidence.tif`, `ood.tif`, `legend.qml`, `report.html`, `report.json`,
            `run.yaml` and `model/`.
        progress: told of training and mapping.
        attribution: sources and licences to print in the report, one sentence each.

    Returns:
        Where everything is, and the figures.

    Raises:
        BerundaError: the input is wrong or the run failed; the message says what, where and what to do.

    Example:
        >>> map_scene(MapConfig(scenes=["scene.tif"], labels="p.gpkg", field="class"), "out")  # doctest: +SKIP
    """
    folder = Path(out).absolute()
    if config.synthetic:
        from berunda.api.demo_verb import synthetic_config

        config = synthetic_config(folder / "synthetic", config)
    _check_method(config.method)
    prepared = prepare(config)
    from berunda.api.pipeline import run_map
    from berunda.mapping.lock import output_lock

    with output_lock(folder):
        return run_map(config, prepared, folder, progress or Silent(), attribution)


def _check_method(name: str) -> None:
    """Refuse an unknown method by its name, before the scene is read."""
    if name not in method_names():
        import difflib

        from berunda.errors import ConfigError

        near = difflib.get_close_matches(name, method_names(), n=1)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(method_names())}"
        raise ConfigError(f"--method: no method is named '{name}'; {hint}")
