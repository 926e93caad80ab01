"""Training on a data set of images: few labels and all images become a calibrated classifier with an honest report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from berunda.api.choices import check_choices
from berunda.api.out_folder import check_no_map, check_out
from berunda.api.outcome import TrainOutcome
from berunda.api.ranks_here import ranks_here
from berunda.data.images import open_images
from berunda.mapping.lock import output_lock
from berunda.options.train import TrainOptions
from berunda.progress import Progress, Silent

if TYPE_CHECKING:
    pass

__all__ = ["train"]


def train(options: TrainOptions, out: Path | str, *, progress: Progress | None = None) -> TrainOutcome:
    """Train a classifier on a data set of images and write its bundle and report.

    Options and data get their verdict before anything is trained. An interrupted run goes on from its last checkpoint
    when it is called again alike. Under `torchrun` every rank calls it alike: they train together, and the first one
    does all the rest.

    Args:
        options: every option, see `TrainOptions`.
        out: folder for `model/`, `report.html`, `report.json` and `run.yaml`.
        progress: told of reading and training.

    Returns:
        Where everything is, and the figures; on a rank other than the first, where everything will be.

    Raises:
        BerundaError: the input is wrong or the run failed; the message says what, where and what to do.

    Example:
        >>> train(TrainOptions(dataset="eurosat", labels_per_class=5), "out")  # doctest: +SKIP
    """
    folder = Path(out).absolute()
    check_out(folder, [options.dataset, options.data])
    check_no_map(folder)
    check_choices(options, "scene")
    with ranks_here() as ranks:
        if ranks is None or ranks.rank == 0:
            with output_lock(folder):
                return _train(options, folder, progress or Silent())
        return _train(options, folder, Silent(), along=True)


def _train(options: TrainOptions, folder: Path, progress: Progress, *, along: bool = False) -> TrainOutcome:
    start = time.perf_counter()
    images = open_images(
        options.dataset,
        folder=None if options.data is None else Path(options.data),
        task=options.task,
        skip_broken=options.skip_broken,
        progress=progress,
    )
    from berunda.api.scene_pipeline import start_run, train_along, train_and_report

    run = start_run(options, images)
    run.seconds["reading"] = time.perf_counter() - start
    return train_along(run, folder) if along else train_and_report(run, folder, progress)
