"""So2Sat LCZ42: 400,673 Sentinel-2 patches of 32x32 pixels, 10 bands, 17 local climate zones, as HDF5."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from berunda.data.catalog.contract import Download, Entry
from berunda.data.images import TEST, TRAIN, VALIDATION
from berunda.data.listing import Blobs, File, Listing, Sample
from berunda.errors import ConfigError, DataError, SecurityError
from berunda.models.spec import Task

__all__ = ["So2Sat"]

FILES = {"training.h5": TRAIN, "validation.h5": VALIDATION, "testing.h5": TEST}
PIXELS, LABELS = "sen2", "label"
SCALE = 10_000
"""The files hold reflectances, which came from whole numbers of this fraction: stored so again, as uint16."""

PAGE = "https://mediatum.ub.tum.de/1483140"


class So2Sat(Entry):
    """So2Sat LCZ42, second version: `training.h5`, `validation.h5` and `testing.h5`, of which the first must be there.

    The ten Sentinel-2 bands are used; Sentinel-1 is not. The split is the official one: training in 42 cities,
    validation and test in the halves of ten others. Needs the package h5py (`pip install 'berunda[so2sat]'`).
    """

    name = "so2sat"
    title = "So2Sat LCZ42"
    folders = ("so2sat", "So2Sat_LCZ42")
    about = "400,673 Sentinel-2 patches with 10 bands, 32x32 px, 17 local climate zones"
    licence = "CC BY 4.0. Cite Zhu et al. 2020, doi:10.1109/MGRS.2020.2964708"
    downloads = (
        Download("training.h5", PAGE, "md5:702bc6a9368ebff4542d791e53469244"),
        Download("validation.h5", PAGE, "md5:71cfa6795de3e22207229d06d6f8775d"),
        Download("testing.h5", PAGE, "md5:e81426102b488623a723beab52b31a8a"),
    )
    bands = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
    classes = (
        "Compact high rise",
        "Compact mid rise",
        "Compact low rise",
        "Open high rise",
        "Open mid rise",
        "Open low rise",
        "Lightweight low rise",
        "Large low rise",
        "Sparsely built",
        "Heavy industry",
        "Dense trees",
        "Scattered trees",
        "Bush, scrub",
        "Low plants",
        "Bare rock or paved",
        "Bare soil or sand",
        "Water",
    )

    def is_here(self, root: Path) -> bool:
        """Say whether the training file is there."""
        return (root / "training.h5").is_file()

    def list_samples(self, root: Path, task: Task) -> Listing:
        """Return the patches with their climate zones."""
        samples: list[Sample] = []
        for name, part in FILES.items():
            path = root / name
            if path.is_file():
                labels = self._labels(path)
                state = path.stat()
                samples += [
                    Sample(f"{path.stem}/{row}", File(path, str(row), state.st_size, state.st_mtime_ns), label, part)
                    for row, label in enumerate(labels.tolist())
                ]
        return Listing(self.name, task, self.classes, tuple(samples), self.bands, load=_load)

    def _labels(self, path: Path) -> np.ndarray:
        with _opened(path) as file:
            pixels, labels = _table(path, file, PIXELS, 4), _table(path, file, LABELS, 2)
            n, found = len(labels), (len(pixels), pixels.shape[3], labels.shape[1])
            if found != (n, len(self.bands), len(self.classes)):
                raise DataError(
                    f"{path}: {found[0]} images of {found[1]} bands and {n} labels of {found[2]} classes found, "
                    f"expected as many images as labels, {len(self.bands)} bands, {len(self.classes)} classes; "
                    "fetch it again"
                )
            one_hot = labels[:]
        is_odd = ~((one_hot == 1).sum(axis=1) == 1)
        if is_odd.any():
            raise DataError(f"{path}: label of image {int(np.argmax(is_odd))} is not exactly one class; fetch it again")
        return one_hot.argmax(axis=1)


def _load(samples: Sequence[Sample]) -> Blobs:
    """Return patches as (10, 32, 32) uint16; neighbours in the file are read at once."""
    blobs: list[bytes | np.ndarray | str] = []
    for path, group in groupby(samples, key=lambda sample: sample.file.path):
        rows = [int(sample.file.member) for sample in group]
        try:
            with _opened(path) as file:
                values = _table(path, file, PIXELS, 4)[rows[0] : rows[-1] + 1]
        except DataError as error:
            blobs += [str(error)] * len(rows)
            continue
        whole = np.clip(np.rint(np.nan_to_num(values) * SCALE), 0, 65535).astype(np.uint16)
        blobs += [whole[row - rows[0]].transpose(2, 0, 1) for row in rows]
    return blobs


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        import h5py
    except ImportError as error:
        raise ConfigError("data set so2sat: package h5py is not installed; pip install 'berunda[so2sat]'") from error
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise DataError(f"{path}: cannot be read as HDF5: {error}; fetch it again") from error


def _table(path: Path, file: Any, name: str, n_axes: int) -> Any:
    """Return a table of the file itself; one that is a link, or kept in other files, is refused."""
    import h5py

    if not isinstance(file.get(name, getlink=True) if name in file else None, h5py.HardLink):
        if name in file:
            raise SecurityError(f"{path}: table {name!r} is a link: refused, expected the table itself")
        raise DataError(f"{path}: no table {name!r} found, expected {PIXELS} and {LABELS}; fetch it again")
    table = file[name]
    if not isinstance(table, h5py.Dataset) or table.ndim != n_axes:
        raise DataError(f"{path}: {name!r} is no table with {n_axes} axes; fetch it again")
    if table.is_virtual or table.external:
        raise SecurityError(f"{path}: table {name!r} lies in other files: refused, expected the table itself")
    return table
