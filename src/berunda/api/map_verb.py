"""The main job: a scene and a few polygons become a land-cover map with an honest report."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from berunda.api.choices import check_choices, check_serves
from berunda.api.out_folder import check_out
from berunda.api.outcome import MapOutcome
from berunda.api.prepare import Prepared, prepare
from berunda.api.ranks_here import ranks_here
from berunda.config import MapConfig
from berunda.mapping.backends import require_dask
from berunda.mapping.lock import output_lock
from berunda.progress import Progress, Silent

if TYPE_CHECKING:
    from berunda.train.distributed import Group

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

    Under `torchrun` every rank calls it alike. They train together; the first one does all the rest, while the others
    wait for the next training and return after the last.

    Args:
        config: every option, see `MapConfig`.
        out: folder for `map.tif`, `confidence.tif`, `ood.tif`, `legend.qml`, `report.html`, `report.json`,
            `run.yaml` and `model/`.
        progress: told of training and mapping.
        attribution: sources and licences to print in the report, one sentence each.

    Returns:
        Where everything is, and the figures; on a rank other than the first, where everything will be.

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
    progress = progress or Silent()
    with ExitStack() as held:
        with ranks_here() as ranks:
            config, prepared = _prepared(config, folder, held, ranks)
            from berunda.api.pipeline import map_and_report, method_of, start_run, train_along, train_and_compare

            check_serves(method_of(config), "segmentation")
            if ranks is not None and ranks.rank > 0:
                train_along(start_run(config, prepared), folder)
                return MapOutcome(folder, folder / "report.html", folder / "model", (), {}, (), ())
            held.enter_context(output_lock(folder))
            run = start_run(config, prepared, attribution)
            train_and_compare(run, folder, progress)
        return map_and_report(run, folder, progress)


def _prepared(config: MapConfig, folder: Path, held: ExitStack, ranks: Group | None) -> tuple[MapConfig, Prepared]:
    """Return the configuration with the scenes it stands for, and these; they are closed by `held`.

    A synthetic scene is written by the first rank, which locks `folder` by `held`; the others wait for it.
    """
    if config.synthetic:
        from berunda.api.demo_verb import synthetic_config

        writes = ranks is None or ranks.rank == 0
        if writes:
            held.enter_context(output_lock(folder))
            synthetic_config(folder / "synthetic", config)
        if ranks is not None:
            ranks.meet()
        config = synthetic_config(folder / "synthetic", config, writes=False)
    prepared = prepare(config)
    for scene in prepared.scenes:
        held.enter_context(scene)
    return config, prepared
