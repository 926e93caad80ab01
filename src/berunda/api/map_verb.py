"""The main job: a scene and a few polygons become a land-cover map with an honest report."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from berunda.api.choices import check_choices
from berunda.api.out_folder import check_out
from berunda.api.outcome import MapOutcome
from berunda.api.prepare import prepare
from berunda.config import MapConfig
from berunda.mapping.backends import require_dask
from berunda.mapping.lock import output_lock
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

    The options get their verdict before a scene is read, and scenes and labels theirs before anything heavy is imported
    or written. An interrupted run goes on from its last
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
    check_out(folder, [*config.scenes, config.labels, config.mask])
    check_choices(config)
    if config.dask is not None:
        require_dask()
    with ExitStack() as held:
        if config.synthetic:
            from berunda.api.demo_verb import synthetic_config

            held.enter_context(output_lock(folder))
            config = synthetic_config(folder / "synthetic", config)
        prepared = prepare(config)
        for scene in prepared.scenes:
            held.enter_context(scene)
        from berunda.api.pipeline import run_map

        held.enter_context(output_lock(folder))
        return run_map(config, prepared, folder, progress or Silent(), attribution)
