"""Training on a data set: few labels and all images become a calibrated classifier or mapper with an honest report."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from berunda.api.choices import check_choices
from berunda.api.out_folder import check_no_map, check_out
from berunda.api.outcome import TrainOutcome
from berunda.api.task_of_data import task_of_data
from berunda.data.images import open_images
from berunda.data.masks.images import open_masks
from berunda.errors import ConfigError
from berunda.mapping.lock import output_lock
from berunda.options.train import TrainOptions
from berunda.progress import Progress, Silent
from berunda.ranks import started_ranks

if TYPE_CHECKING:
    from berunda.train.distributed import Group

__all__ = ["train"]


def train(options: TrainOptions, out: Path | str, *, progress: Progress | None = None) -> TrainOutcome:
    """Train on a data set of images, with a class or a mask each, and write the bundle and the report.

    Options and data get their verdict before anything is trained. An interrupted run goes on from its last checkpoint
    when it is called again alike. Under `torchrun` every rank calls it alike: they train together, and the first one
    does all the rest.

    Args:
        options: every option, see `TrainOptions`.
        out: folder for `model/`, `report.html`, `report.json` and `run.yaml`; with masks `test_images.png` as well.
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
    check_choices(options)
    with _ranks() as ranks:
        if ranks is None or ranks.rank == 0:
            with output_lock(folder):
                return _train(options, folder, progress or Silent())
        return _train(options, folder, Silent(), along=True)


@contextmanager
def _ranks() -> Iterator[Group | None]:
    """Join the ranks that `torchrun` started, within the block; None without them."""
    if started_ranks()[1] == 1:
        yield None
        return
    from berunda.train.distributed import together

    with together() as ranks:
        yield ranks


def _train(options: TrainOptions, folder: Path, progress: Progress, *, along: bool = False) -> TrainOutcome:
    start = time.perf_counter()
    data = None if options.data is None else Path(options.data)
    if task_of_data(options.dataset, data, options.task) == "segmentation":
        _check_for_masks(options)
        masks = open_masks(options.dataset, folder=data, progress=progress)
        from berunda.api.mask_pipeline import start_mask_run, train_along_masks, train_and_report_masks

        mask_run = start_mask_run(options, masks)
        mask_run.seconds["reading"] = time.perf_counter() - start
        return train_along_masks(mask_run, folder) if along else train_and_report_masks(mask_run, folder, progress)
    if options.labelled_images is not None:
        raise ConfigError(
            "--labelled-images: for images with masks, found a data set of whole images; use --labels-per-class"
        )
    images = open_images(
        options.dataset,
        folder=data,
        task="scene",
        skip_broken=options.skip_broken,
        progress=progress,
    )
    from berunda.api.scene_pipeline import start_run, train_along, train_and_report

    run = start_run(options, images)
    run.seconds["reading"] = time.perf_counter() - start
    return train_along(run, folder) if along else train_and_report(run, folder, progress)


def _check_for_masks(options: TrainOptions) -> None:
    """Refuse options that have no meaning for images with masks.

    Raises:
        ConfigError: naming them.
    """
    given = {
        "--labels-per-class": options.labels_per_class is not None,
        "--image-px": options.image_px is not None,
        "--skip-broken": options.skip_broken,
    }
    needless = [name for name, is_given in given.items() if is_given]
    if needless:
        raise ConfigError(
            f"{', '.join(needless)}: for whole images, found images with masks; leave it out (--labelled-images counts "
            "images with masks, --crop-px sets the side of a crop)"
        )
