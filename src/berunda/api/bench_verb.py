"""A benchmark: methods on the same images, labels and number of image passes, run by run, each a row."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from berunda.api.choices import check_encoder, check_for_masks, check_net_options
from berunda.api.outcome import BenchOutcome
from berunda.api.task_of_data import task_of_data
from berunda.bench.suite import KNOWN_FLOORS, MASK_FLOORS, Suite
from berunda.bench.suites import load_suite
from berunda.data.images import ImageSet, open_images
from berunda.data.masks.images import open_masks
from berunda.data.resampling import averaged_images
from berunda.data.unlike import HELD_OUT, held_out_images, without_classes
from berunda.errors import ConfigError
from berunda.mapping.lock import output_lock
from berunda.methods import check_method_name
from berunda.options.bench import BenchOptions
from berunda.progress import Progress, Silent

__all__ = ["bench"]

WORK_NAME = ".work"


def bench(options: BenchOptions, out: Path | str, *, progress: Progress | None = None) -> BenchOutcome:
    """Do the missing runs of a suite, and write its tables and pictures anew.

    Every net gets as many image passes. A run that is a row already is not repeated; one that was interrupted goes on
    from its last checkpoint. A run that diverges is told, and the others go on.

    Args:
        options: every option, see `BenchOptions`.
        out: folder for `<suite>.json` (the rows), `<suite>_labels.json` (which images were labelled), `<suite>.md`,
            `<suite>.csv` and `<suite>_*.png`; it may hold those of other suites.
        progress: told of every run.

    Raises:
        BerundaError: the input is wrong, the rows there are of another protocol, or a file cannot be written.

    Example:
        >>> bench(BenchOptions(suite="eurosat", methods="supervised,fixmatch", labels="5"), "out")  # doctest: +SKIP
    """
    suite, told = load_suite(options.suite), progress or Silent()
    options = _with_own(options, suite)
    told.note(f"{suite.name}: {suite.about}")
    check_encoder(options.encoder, options.device)
    for name in options.methods or ():
        if name not in (*KNOWN_FLOORS, *MASK_FLOORS):
            check_method_name(name)
    dataset, folder = _data(options, suite)
    place = Path(out).absolute()
    work = place / WORK_NAME / suite.name
    try:
        with output_lock(work):
            task = task_of_data(dataset, folder, suite.task)
            if task == "segmentation":
                from berunda.api.mask_bench import MaskBench

                check_for_masks(options)
                _refuse_search(options)
                masks = open_masks(dataset, folder=folder, progress=told)
                return MaskBench.planned(options, suite, masks, place, work).run(told)
            check_net_options(options)
            images = open_images(dataset, folder=folder, task=task, skip_broken=options.skip_broken, progress=told)
            from berunda.api.bench_runs import Bench
            from berunda.api.scene_unlike import Beyond

            beyond = Beyond(_unlike(suite, images, told), suite.n_samples)
            return Bench.planned(options, suite, _seen(suite, images), place, work, beyond).run(told)
    finally:
        _tidy(work)


def _with_own(options: BenchOptions, suite: Suite) -> BenchOptions:
    """Return the options with those of the suite where none are given."""
    given = options.model_fields_set
    own = {name: value for name, value in suite.options.items() if name not in given}
    if suite.steps and not given & {"steps", "effort"}:
        own["steps"] = suite.steps
    return options.replaced(**own) if own else options


def _seen(suite: Suite, images: ImageSet) -> ImageSet:
    """Return the images without the classes that the suite holds out, by a name that says so."""
    if not suite.held_out:
        return images
    kept = without_classes(images, suite.held_out)
    return replace(kept, name=f"{len(kept.classes)} classes of {images.name}, without {', '.join(suite.held_out)}")


def _unlike(suite: Suite, images: ImageSet, progress: Progress) -> dict[str, ImageSet]:
    """Return the sets of images unlike the training's, by name, at the size of its images."""
    side = min(images.size)
    sets = {
        name: averaged_images(open_images(dataset, task="scene", progress=progress), side)
        for name, dataset in suite.unlike.items()
    }
    return sets | ({HELD_OUT: held_out_images(images, suite.held_out)} if suite.held_out else {})


def _refuse_search(options: BenchOptions) -> None:
    if options.search:
        raise ConfigError(
            f"--search: found {', '.join(options.search)}, expected it with whole images alone; with masks, give each "
            "value as a run of its own (--option)"
        )


def _tidy(work: Path) -> None:
    """Remove the folder of the checkpoints where it holds none, and the one above it where it holds nothing else."""
    with suppress(OSError):
        if not any(path.is_dir() for path in work.iterdir()):
            shutil.rmtree(work)
            work.parent.rmdir()


def _data(options: BenchOptions, suite: Suite) -> tuple[str, Path | None]:
    """Return the data set and the folder it lies in, if one was named."""
    folder = None if options.data is None else Path(options.data)
    if suite.dataset:
        return suite.dataset, folder
    if options.data is None:
        raise ConfigError(
            f"--data: found none, expected the data set that suite '{suite.name}' is to run on: a folder with one "
            "sub-directory a class or with images/ and masks/, a .csv table, or a name that `berunda datasets` lists"
        )
    return options.data, None
