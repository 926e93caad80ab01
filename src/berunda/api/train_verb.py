"""Training on a data set: few labels and all images become a calibrated classifier or mapper with an honest report."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from berunda.api.choices import check_choices, check_for_masks, check_net_options
from berunda.api.out_folder import check_no_map, check_out
from berunda.api.outcome import TrainOutcome
from berunda.api.ranks_here import ranks_here
from berunda.api.task_of_data import task_of_data
from berunda.data.images import ImageSet, open_images
from berunda.data.masks.images import open_masks
from berunda.errors import ConfigError
from berunda.mapping.lock import output_lock
from berunda.options.train import TrainOptions
from berunda.progress import Progress, Silent

__all__ = ["train"]


def train(
    options: TrainOptions, out: Path | str, *, images: ImageSet | None = None, progress: Progress | None = None
) -> TrainOutcome:
    """Train on a data set of images, with a class or a mask each, and write the bundle and the report.

    Options and data get their verdict before anything is trained. An interrupted run goes on from its last checkpoint
    when it is called again alike. Under `torchrun` every rank calls it alike: they train together, and the first one
    does all the rest.

    Args:
        options: every option, see `TrainOptions`.
        out: folder for `model/`, `report.html`, `report.json` and `run.yaml`; with masks `test_images.png` as well.
        images: to train on instead of a data set on disk, such as `from_dataset` returns; `options.dataset` then is
            their name.
        progress: told of reading and training.

    Returns:
        Where everything is, and the figures; on a rank other than the first, where everything will be.

    Raises:
        BerundaError: the input is wrong or the run failed; the message says what, where and what to do.

    Example:
        >>> train(TrainOptions(dataset="eurosat", labels_per_class=5), "out")  # doctest: +SKIP
    """
    folder = Path(out).absolute()
    check_out(folder, [options.data] if images is not None else [options.dataset, options.data])
    check_no_map(folder)
    if images is None:
        task = task_of_data(options.dataset, _folder_of(options), options.task)
        train_on = _train_on_masks if task == "segmentation" else _train_on_images
    else:
        _check_given(options, images)
        train_on = partial(_train_on_images, given=images)
    check_choices(options)
    with ranks_here() as ranks:
        if ranks is None or ranks.rank == 0:
            with output_lock(folder):
                return train_on(options, folder, progress or Silent())
        return train_on(options, folder, Silent(), along=True)


def _train_on_masks(options: TrainOptions, folder: Path, progress: Progress, *, along: bool = False) -> TrainOutcome:
    start = time.perf_counter()
    check_for_masks(options)
    masks = open_masks(options.dataset, folder=_folder_of(options), progress=progress)
    from berunda.api.mask_pipeline import start_mask_run, train_along_masks, train_and_report_masks

    run = start_mask_run(options, masks)
    run.seconds["reading"] = time.perf_counter() - start
    return train_along_masks(run, folder) if along else train_and_report_masks(run, folder, progress)


def _check_given(options: TrainOptions, images: ImageSet) -> None:
    """Refuse images of several labels, and options that speak of other images.

    Raises:
        ConfigError: saying what was found and expected.
    """
    faults = []
    other = [task for task in (options.task, images.task) if task not in (None, "scene")]
    if other:
        faults.append(f"task {other[0]} found, expected scene, one class an image")
    if options.dataset != images.name:
        faults.append(f"dataset {options.dataset!r} found, expected {images.name!r}, the name of the images given")
    if options.data is not None:
        faults.append(f"data {options.data!r} found, expected none")
    if faults:
        raise ConfigError("training on images given: " + "; ".join(faults))


def _train_on_images(
    options: TrainOptions, folder: Path, progress: Progress, *, along: bool = False, given: ImageSet | None = None
) -> TrainOutcome:
    start = time.perf_counter()
    if options.labelled_images is not None:
        raise ConfigError(
            "--labelled-images: for images with masks, found a data set of whole images; use --labels-per-class"
        )
    check_net_options(options)
    images = given
    if images is None:
        images = open_images(
            options.dataset,
            folder=_folder_of(options),
            task=options.task,
            skip_broken=options.skip_broken,
            progress=progress,
        )
    from berunda.api.scene_pipeline import start_run, train_along, train_and_report

    run = start_run(options, images, is_given=given is not None)
    run.seconds["reading"] = time.perf_counter() - start
    return train_along(run, folder) if along else train_and_report(run, folder, progress)


def _folder_of(options: TrainOptions) -> Path | None:
    return None if options.data is None else Path(options.data)
