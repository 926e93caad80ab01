"""What the forms of BigEarthNet share: classes, bands, split files, and how a patch is read.

First version (2019, with Sentinel-1 in 2021): `BigEarthNet-v1.0/<patch>/<patch>_B01.tif` and so on with
`<patch>_labels_metadata.json`, `BigEarthNet-S1-v1.0/<patch>/<patch>_VV.tif` and `_VH.tif`, and the authors' lists
`train.csv`, `val.csv` and `test.csv` of pairs (Sentinel-2 patch, Sentinel-1 patch). Classes, their grouping, names,
checksums and addresses are those of torchgeo's BigEarthNet.
"""

from __future__ import annotations

import csv
import json
import re
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal
from zipfile import BadZipFile

import numpy as np

from berunda.cache import cache_folder
from berunda.data.catalog.contract import Download, Entry
from berunda.data.images import TEST, TRAIN, VALIDATION
from berunda.data.listing import Blobs, File, Listing, Sample
from berunda.data.photo import Undecodable, decode_image, resampled
from berunda.data.store import writing_store
from berunda.errors import DataError, SecurityError
from berunda.files import digest_of
from berunda.models.spec import Task

__all__ = ["CLASSES_19", "CLASSES_43", "BigEarthNetEntry", "downloads_of"]

_AGRICULTURE = "Land principally occupied by agriculture, with significant areas of natural vegetation"
_GRASS, _MOORS = "Natural grassland and sparsely vegetated areas", "Moors, heathland and sclerophyllous vegetation"
_GROUPS: tuple[tuple[str, str], ...] = (
    ("Continuous urban fabric", "Urban fabric"),
    ("Discontinuous urban fabric", "Urban fabric"),
    ("Industrial or commercial units", "Industrial or commercial units"),
    ("Road and rail networks and associated land", ""),
    ("Port areas", ""),
    ("Airports", ""),
    ("Mineral extraction sites", ""),
    ("Dump sites", ""),
    ("Construction sites", ""),
    ("Green urban areas", ""),
    ("Sport and leisure facilities", ""),
    ("Non-irrigated arable land", "Arable land"),
    ("Permanently irrigated land", "Arable land"),
    ("Rice fields", "Arable land"),
    ("Vineyards", "Permanent crops"),
    ("Fruit trees and berry plantations", "Permanent crops"),
    ("Olive groves", "Permanent crops"),
    ("Pastures", "Pastures"),
    ("Annual crops associated with permanent crops", "Permanent crops"),
    ("Complex cultivation patterns", "Complex cultivation patterns"),
    (_AGRICULTURE, _AGRICULTURE),
    ("Agro-forestry areas", "Agro-forestry areas"),
    ("Broad-leaved forest", "Broad-leaved forest"),
    ("Coniferous forest", "Coniferous forest"),
    ("Mixed forest", "Mixed forest"),
    ("Natural grassland", _GRASS),
    ("Moors and heathland", _MOORS),
    ("Sclerophyllous vegetation", _MOORS),
    ("Transitional woodland/shrub", "Transitional woodland, shrub"),
    ("Beaches, dunes, sands", "Beaches, dunes, sands"),
    ("Bare rock", ""),
    ("Sparsely vegetated areas", _GRASS),
    ("Burnt areas", ""),
    ("Inland marshes", "Inland wetlands"),
    ("Peatbogs", "Inland wetlands"),
    ("Salt marshes", "Coastal wetlands"),
    ("Salines", "Coastal wetlands"),
    ("Intertidal flats", ""),
    ("Water courses", "Inland waters"),
    ("Water bodies", "Inland waters"),
    ("Coastal lagoons", "Marine waters"),
    ("Estuaries", "Marine waters"),
    ("Sea and ocean", "Marine waters"),
)
"""The 43 classes, and that of the 19 which each belongs to, "" for none.

Source: Sumbul et al. 2021, doi:10.1109/MGRS.2021.3089174, table 2."""

CLASSES_43 = tuple(name for name, _ in _GROUPS)
CLASSES_19 = tuple(dict.fromkeys(group for _, group in _GROUPS if group))

BANDS = {
    "s1": ("VV", "VH"),
    "s2": ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"),
}
FOLDERS = {"s1": "BigEarthNet-S1-v1.0", "s2": "BigEarthNet-v1.0"}
SIDE_PX = 120
MAX_LIST_BYTES, MAX_JSON_BYTES = 1 << 28, 1 << 16
_N_READERS, _N_CHECKED = 8, 64
VERSION = "1"
"""Of what the cache holds of a list."""
_SPLITS = (("train", TRAIN), ("val", VALIDATION), ("test", TEST))
_PATCH = re.compile(r"[\w.-]{1,200}", re.ASCII)
_LISTS = (
    "https://git.tu-berlin.de/rsim/BigEarthNet-MM_19-classes_models/-/raw/9a5be07346ab0884b2d9517475c27ef9db9b5104/"
)
_DOWNLOADS = {
    "s1": Download(
        "BigEarthNet-S1-v1.0.tar.gz",
        "https://zenodo.org/records/12687186/files/BigEarthNet-S1-v1.0.tar.gz",
        "md5:94ced73440dea8c7b9645ee738c5a172",
    ),
    "s2": Download(
        "BigEarthNet-S2-v1.0.tar.gz",
        "https://zenodo.org/records/12687186/files/BigEarthNet-S2-v1.0.tar.gz",
        "md5:5a64e9ce38deb036a435a7b59494924c",
    ),
}
LISTS = (
    Download("train.csv", f"{_LISTS}splits/train.csv", "md5:623e501b38ab7b12fe44f0083c00986d"),
    Download("val.csv", f"{_LISTS}splits/val.csv", "md5:22efe8ed9cbd71fa10742ff7df2b7978"),
    Download("test.csv", f"{_LISTS}splits/test.csv", "md5:697fb90677e30571b9ac7699b7e5b432"),
)

Sensor = Literal["s1", "s2"]


@dataclass(frozen=True)
class _Pair:
    """The folders of a patch by sensor, in the order of the bands."""

    folders: Mapping[Sensor, Path]

    @property
    def first(self) -> Path:
        """The file of the first band, which stands for the patch in the cache."""
        sensor, place = next(iter(self.folders.items()))
        return place / f"{place.name}_{BANDS[sensor][0]}.tif"

    def rasters(self) -> list[Path]:
        """Return the files of all bands in order."""
        return [place / f"{place.name}_{band}.tif" for sensor, place in self.folders.items() for band in BANDS[sensor]]


class BigEarthNetEntry(Entry):
    """BigEarthNet, its archives unpacked, with the authors' lists of patches (those without snow and cloud).

    Bands of 20 and 60 m are brought to 10 m, bilinear. Decoded, all patches take about 120 GB for Sentinel-2 and 60 GB
    for Sentinel-1; shorter lists make a smaller set.

    Attributes:
        sensors: whose bands are used, in this order.
        classes: `CLASSES_19` or `CLASSES_43`.
    """

    tasks: ClassVar[tuple[Task, ...]] = ("multilabel",)
    folders = ("bigearthnet", "BigEarthNet")
    licence = (
        "CDLA-Permissive-1.0. Cite Sumbul et al. 2019, doi:10.1109/IGARSS.2019.8900532, and 2021, "
        "doi:10.1109/MGRS.2021.3089174"
    )
    sensors: ClassVar[tuple[Sensor, ...]]
    classes: ClassVar[tuple[str, ...]]

    def is_here(self, root: Path) -> bool:
        """Say whether the folders of the sensors and a list of training patches are there."""
        return all((root / FOLDERS[sensor]).is_dir() for sensor in self.sensors) and _list(root, "train") is not None

    def missing(self, folder: Path | None = None) -> DataError:
        """Return the error that says what to fetch, and to unpack it."""
        return DataError(f"{super().missing(folder)}; unpack the archives there, so that it holds {self._wanted()}")

    def _wanted(self) -> str:
        return ", ".join((*(FOLDERS[sensor] for sensor in self.sensors), "train.csv, val.csv and test.csv"))

    def list_samples(self, root: Path, task: Task) -> Listing:
        """Return the patches of the lists with their classes; the labels are read patch by patch, and then kept."""
        pairs: dict[str, _Pair] = {}
        parts: list[int] = []
        for word, part in _SPLITS:
            for names in _listed(root, word):
                pair = _Pair({sensor: root / FOLDERS[sensor] / names[sensor] for sensor in self.sensors})
                name = names[self.sensors[-1]]
                if name in pairs:
                    raise DataError(f"data set {self.name}: patch {name!r} is in the lists twice, expected it once")
                pairs[name] = pair
                parts.append(part)
        known = _known(self.classes, list(pairs.values()))
        labels = map(tuple, known.labels.astype(float).tolist())
        states = known.states.tolist()
        files = [File(pair.first, "", n, at) for pair, (n, at) in zip(pairs.values(), states, strict=True)]
        samples = map(Sample, pairs, files, labels, parts)
        bands = tuple(band for sensor in self.sensors for band in BANDS[sensor])
        return Listing(self.name, task, self.classes, tuple(samples), bands, load=partial(_load, pairs))


def downloads_of(*sensors: Sensor) -> tuple[Download, ...]:
    """Return what has to be fetched for the bands of these sensors."""
    return (*(_DOWNLOADS[sensor] for sensor in sensors), *LISTS)


def _list(root: Path, word: str) -> Path | None:
    names = (f"{word}.csv", f"bigearthnet-{word}.csv")
    return next((root / name for name in names if (root / name).is_file()), None)


def _listed(root: Path, word: str) -> list[dict[Sensor, str]]:
    """Return the patches of a list by sensor; a missing list of validation or test patches is empty.

    Raises:
        DataError: the list cannot be read.
        SecurityError: what it names is no plain name of a folder.
    """
    path = _list(root, word)
    if path is None:
        return []
    try:
        if path.stat().st_size > MAX_LIST_BYTES:
            raise DataError(f"{path}: {path.stat().st_size} bytes found, at most {MAX_LIST_BYTES} expected of a list")
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: list cannot be read: {error}; fetch it again") from error
    for number, row in enumerate(rows, 1):
        if len(row) != 2:
            raise DataError(f"{path} row {number}: {len(row)} cells found, expected Sentinel-2 patch, Sentinel-1 patch")
        odd = next((name for name in row if not _PATCH.fullmatch(name) or name.startswith(".")), None)
        if odd is not None:
            raise SecurityError(f"{path} row {number}: patch {odd[:80]!r} refused: expected a plain name of a folder")
    return [{"s2": row[0], "s1": row[1]} for row in rows]


def _labels(classes: Sequence[str], pair: _Pair) -> tuple[float, ...]:
    """Return 1 for each class of a patch.

    Raises:
        DataError: its labels cannot be read, or hold a class that is none of the 43.
    """
    place = list(pair.folders.values())[-1]
    path = place / f"{place.name}_labels_metadata.json"
    try:
        with path.open("rb") as file:
            told = json.loads(file.read(MAX_JSON_BYTES))["labels"]
        names = {str(name) for name in told}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: no labels of this listed patch can be read ({error}); unpack the archive again, or remove the "
            "patch from the list"
        ) from error
    odd = sorted(names - set(CLASSES_43))
    if odd:
        raise DataError(f"{path}: class {odd[0]!r} found, expected one of the 43 of BigEarthNet; fetch it again")
    if len(classes) < len(CLASSES_43):
        names = {group for name, group in _GROUPS if name in names}
    return tuple(float(name in names) for name in classes)


def _state(pair: _Pair) -> tuple[int, int]:
    """Return size and time of change, in nanoseconds, of the first band's file."""
    try:
        state = pair.first.stat()
    except OSError as error:
        raise DataError(
            f"{pair.first}: not found; unpack the archive again, or remove the patch from the list"
        ) from error
    return state.st_size, state.st_mtime_ns


@dataclass(frozen=True)
class _Known:
    """What was read of all patches: labels (n, C) uint8, and `_state` of each (n, 2) int64."""

    labels: np.ndarray
    states: np.ndarray


def _known(classes: Sequence[str], pairs: Sequence[_Pair]) -> _Known:
    """Return what there is to know of the patches, from the cache where it was read before.

    Half a million small files take minutes to an hour. A few of them are looked at each time, evenly spread: where one
    is not as it was, all are read again.
    """
    told = [VERSION, *classes, *(str(place.absolute()) for pair in pairs for place in pair.folders.values())]
    store = cache_folder() / "images" / "listings"
    digest = digest_of("\n".join(told).encode("utf-8", "surrogateescape"))
    note = store / f"{digest}.npz"
    noted, some = _noted(note, (len(pairs), len(classes))), np.linspace(0, len(pairs) - 1, _N_CHECKED).astype(int)
    if noted is not None and all(_is_as_noted(noted, i, classes, pairs[i]) for i in dict.fromkeys(some.tolist())):
        return noted
    with ThreadPoolExecutor(_N_READERS, thread_name_prefix="labels") as pool:
        labels = list(pool.map(partial(_labels, classes), pairs))
        states = list(pool.map(_state, pairs))
    known = _Known(np.array(labels, np.uint8), np.array(states, np.int64))
    with writing_store(store):
        store.mkdir(parents=True, exist_ok=True)
        own = note.with_name(f"{note.name}.{uuid.uuid4().hex}")
        with own.open("wb") as file:
            np.savez_compressed(file, labels=known.labels, states=known.states)
        own.replace(note)
    return known


def _noted(note: Path, shape: tuple[int, int]) -> _Known | None:
    """Return what the cache holds, None if nothing or something damaged."""
    try:
        with np.load(note, allow_pickle=False) as stored:
            known = _Known(stored["labels"], stored["states"])
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None
    is_whole = known.labels.shape == shape and known.states.shape == (shape[0], 2)
    return known if is_whole and known.labels.dtype == np.uint8 and known.states.dtype == np.int64 else None


def _is_as_noted(noted: _Known, i: int, classes: Sequence[str], pair: _Pair) -> bool:
    return tuple(noted.states[i].tolist()) == _state(pair) and tuple(noted.labels[i].tolist()) == _labels(classes, pair)


def _load(pairs: Mapping[str, _Pair], samples: Sequence[Sample]) -> Blobs:
    """Return patches as (bands, 120, 120)."""
    with ThreadPoolExecutor(_N_READERS, thread_name_prefix="patches") as pool:
        return list(pool.map(lambda sample: _patch(pairs[sample.name]), samples))


def _patch(pair: _Pair) -> np.ndarray | str:
    bands = []
    for path in pair.rasters():
        try:
            decoded = decode_image(path.read_bytes(), path.name, path)
        except (OSError, Undecodable) as error:
            return f"{path.name}: {error}"
        if len(decoded.pixels) != 1:
            return f"{path.name}: {len(decoded.pixels)} bands found, expected one"
        bands.append(resampled(decoded.pixels, SIDE_PX))
    return np.concatenate(bands)
