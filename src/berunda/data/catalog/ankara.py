"""Ankara: 216 hyperspectral tiles of 63x63 pixels and 119 bands with several labels.

Layout as published code reads it: `AnkaraHSIArchive/<number>_<name>.mat` with an array `patch` (63, 63, 119), and
`Labels.xlsx` whose sheet "Land-Cover Classes" has a row a tile and a column a class, with an x where it is present. The
publisher's page does not describe it.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from berunda.data.catalog._labels import home_of
from berunda.data.catalog.contract import Download, Entry
from berunda.data.listing import Blobs, File, Listing, Sample
from berunda.data.order import Randomness
from berunda.data.subsets import stratified_parts
from berunda.errors import DataError
from berunda.models.spec import Task

__all__ = ["Ankara"]

FOLDER, TABLE, SHEET, ARRAY = "AnkaraHSIArchive", "Labels.csv", "Land-Cover Classes", "patch"
N_BANDS = 119
MAX_BYTES = 1 << 26
TEST_SHARE, VALIDATION_SHARE = 0.2, 0.1
_NUMBER = re.compile(r"0*(\d{1,6})(?!\d)")
_VALUES = {"": 0.0, "0": 0.0, "x": 1.0, "1": 1.0}


class Ankara(Entry):
    """Ankara HSI archive, unpacked, with the sheet of land-cover classes saved as `Labels.csv` beside its tiles.

    Cells of the table are x or 1 where a class is present, empty or 0 where not. Its rows are those of the tiles in the
    order of their numbers. There is no official split: 70/10/20, stratified.
    """

    name = "ankara"
    title = "Ankara HSI archive"
    tasks = ("multilabel",)
    folders = ("ankara", "Ankara")
    about = "216 tiles of EO-1 Hyperion, 30 m, 63x63 px, 119 bands, 29 labels"
    licence = "no licence stated. Cite Omruuzun et al. 2016, WHISPERS (bag of endmembers)"
    downloads = (
        Download(f"{FOLDER} (its sheet {SHEET!r} of Labels.xlsx saved as {TABLE})", "https://bigearth.eu/datasets"),
    )

    def is_here(self, root: Path) -> bool:
        """Say whether there is a folder with the tiles and the table."""
        return _home(root) is not None

    def list_samples(self, root: Path, task: Task) -> Listing:
        """Return the tiles with the columns of the table as labels."""
        home = _home(root)
        assert home is not None
        tiles = _tiles(home)
        classes, rows = _read_table(home / TABLE)
        if len(rows) != len(tiles):
            raise DataError(
                f"{home / TABLE}: {len(rows)} rows and {len(tiles)} tiles found, expected a row for each tile; fetch "
                "the tiles again, or save the whole sheet"
            )
        n = len(tiles)
        rng = Randomness(0).numpy("ankara split")
        parts = stratified_parts(np.array(rows), round(TEST_SHARE * n), round(VALIDATION_SHARE * n), rng)
        files = []
        for path in tiles:
            state = path.stat()
            files.append(File(path, "", state.st_size, state.st_mtime_ns))
        samples = map(Sample, (path.name for path in tiles), files, rows, parts.tolist())
        bands = tuple(f"b{number}" for number in range(1, N_BANDS + 1))
        return Listing(self.name, task, classes, tuple(samples), bands, load=_load)


def _home(root: Path) -> Path | None:
    """Return the folder with the tiles and the table."""
    found = home_of(root, TABLE)
    return found if found is not None and any(found.glob("*.mat")) else None


def _tiles(home: Path) -> list[Path]:
    """Return the tiles by their numbers.

    Raises:
        DataError: one has none, or two have the same.
    """
    numbered: dict[int, Path] = {}
    for path in sorted(home.glob("*.mat")):
        found = _NUMBER.match(path.name)
        if found is None or int(found[1]) in numbered:
            raise DataError(f"{path}: found no number of its own before the name, expected one as in 001_<name>.mat")
        numbered[int(found[1])] = path
    return [numbered[number] for number in sorted(numbered)]


def _read_table(path: Path) -> tuple[tuple[str, ...], list[tuple[float, ...]]]:
    """Return the classes and the values of each row; the first column, which names the tile, is left out.

    Raises:
        DataError: it cannot be read, or a cell holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = [row for row in csv.reader(io.StringIO(text)) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: table cannot be read: {error}; save the sheet as .csv in UTF-8") from error
    if len(rows) < 2 or len(rows[0]) < 2:
        raise DataError(f"{path}: {len(rows)} rows found, expected a header with classes and a row for each tile")
    values = []
    for number, row in enumerate(rows[1:], 2):
        odd = next((cell for cell in row[1:] if cell.strip().lower() not in _VALUES), None)
        if odd is not None or len(row) != len(rows[0]):
            what = f"{len(row)} cells" if odd is None else repr(odd)
            raise DataError(f"{path} row {number}: {what} found, expected x or nothing in {len(rows[0]) - 1} columns")
        values.append(tuple(_VALUES[cell.strip().lower()] for cell in row[1:]))
    return tuple(cell.strip() for cell in rows[0][1:]), values


def _load(samples: Sequence[Sample]) -> Blobs:
    """Return tiles as (119, 63, 63)."""
    return [_tile(sample.file.path) for sample in samples]


def _tile(path: Path) -> np.ndarray | str:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    if path.stat().st_size > MAX_BYTES:
        return f"{path.stat().st_size} bytes, at most {MAX_BYTES} expected of a tile"
    try:
        values = loadmat(path, variable_names=[ARRAY])[ARRAY]
    except (OSError, ValueError, TypeError, KeyError, NotImplementedError, MatReadError) as error:
        return f"no array {ARRAY!r} can be read ({error})"
    if values.ndim != 3 or values.shape[2] != N_BANDS or values.dtype.kind not in "uif":
        return f"array {ARRAY!r} of shape {values.shape} {values.dtype} found, expected (63, 63, {N_BANDS}) numbers"
    kind = values.dtype if values.dtype in (np.uint8, np.uint16, np.int16) else np.float32
    return np.ascontiguousarray(values.transpose(2, 0, 1)).astype(kind)
