"""Where sites lie: a folder a site, folders of roles (MiniFrance's layout among them), a table, scenes, a data set."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from berunda.data import catalog
from berunda.data.images import ImageSet, open_images
from berunda.data.listing import PHOTO_SUFFIXES, RASTER_SUFFIXES, files_of
from berunda.data.order import Randomness
from berunda.data.sites import NO_ROLE, Item, Site, SiteSet, role_of
from berunda.data.tables import FILES_JOINT, WINDOW_COLUMNS, window_of
from berunda.errors import DataError, GeoError, SecurityError
from berunda.geo.grid import Window
from berunda.geo.raster import Scene, open_scenes

__all__ = ["Cutting", "file_below", "find_sites", "read_columns"]

SUFFIXES = (*PHOTO_SUFFIXES, *RASTER_SUFFIXES)
IMAGE_FOLDERS = ("bdortho", "images", "image", "img")
"""Folders of a site that hold its images, where it has one of them; MiniFrance's is BDORTHO."""
TRUTH_FOLDERS = ("urbanatlas", "labels", "masks", "gt", "truth")
"""Folders of a site that hold a raster of classes for each image; MiniFrance's is UrbanAtlas."""
LARGE_BLOCKS = 2
"""A raster of at least so many blocks along both sides is cut into them."""
SITES_A_SIDE = 4
_ROLE_OF_PART = ("labelled", "labelled", "test", "unlabelled")
_PATH_COLUMNS = ("path", "file", "image", "filename")
_MAX_TABLE = 1 << 28


@dataclass(frozen=True)
class Cutting:
    """How large rasters become images.

    Attributes:
        block_px: side of a block.
        site_px: side of a site where one scene is all there is; None cuts it into about four by four.
        max_per_site: images of a site that are kept, drawn by seed; the others are left out and counted.
        seed: of that draw.
        bands: names of bands to use, in order; None for all.
        skip_broken: leave out files that cannot be read, where the whole data set is decoded at once.
    """

    block_px: int = 64
    site_px: int | None = None
    max_per_site: int = 2000
    seed: int = 0
    bands: tuple[str, ...] | None = None
    skip_broken: bool = False


def find_sites(inputs: Sequence[str], cutting: Cutting) -> SiteSet:
    """Return the sites that the inputs mean; pixels are not read yet, but for a data set of the catalogue.

    One folder: a folder a site, or folders named after roles that hold those; one .csv table with the columns site,
    path and perhaps role and label; rasters: each a site, or one that is cut into sites; or a name of the catalogue,
    whose parts are the sites.

    Raises:
        DataError, GeoError, SecurityError: nothing is there, or it is refused; the message says what was expected.
    """
    first = Path(inputs[0]).expanduser()
    if len(inputs) == 1 and inputs[0] in catalog.names() and not first.exists():
        return _thinned(_parts(open_images(inputs[0], skip_broken=cutting.skip_broken)), cutting)
    if len(inputs) == 1 and first.suffix.lower() == ".csv":
        return _thinned(_table(first, cutting), cutting)
    if len(inputs) == 1 and first.is_dir() and any(_folders(first)):
        return _thinned(_site_folders(first, cutting), cutting)
    if len(inputs) == 1 and first.is_dir() and not any(p.suffix.lower() in RASTER_SUFFIXES for p in first.iterdir()):
        raise DataError(
            f"{first}: found neither sub-directories nor rasters, expected one folder a site, a .csv table with the "
            "columns site and path, or scenes; put the images of each site into a folder of its own"
        )
    return _thinned(_scenes(open_scenes(list(inputs), bands=cutting.bands), cutting), cutting)


def _thinned(found: SiteSet, cutting: Cutting) -> SiteSet:
    """Return the set with at most `max_per_site` images of each site."""
    kept, left_out = [], 0
    for site in range(len(found.sites)):
        mine = found.items_of([site])
        if len(mine) > cutting.max_per_site:
            draw = Randomness(cutting.seed).numpy("images of a site", site)
            left_out += len(mine) - cutting.max_per_site
            mine = np.sort(draw.choice(mine, cutting.max_per_site, replace=False))
        kept.append(mine)
    if not left_out:
        return found
    note = (
        f"{left_out} of {len(found)} images were left out by a draw (seed {cutting.seed}): at most "
        f"{cutting.max_per_site} of each site are looked at, see --max-per-site."
    )
    return replace(found.subset(np.concatenate(kept)), notes=(*found.notes, note))


def _parts(images: ImageSet) -> SiteSet:
    names = ("train", "validation", "test", "unlabelled")
    present = [part for part in range(len(names)) if (images.parts == part).any()]
    sites = tuple(Site(names[part], _ROLE_OF_PART[part]) for part in present)
    scene = images.task == "scene"
    items = tuple(
        _row_of(images, number, int(row), scene)
        for number, part in enumerate(present)
        for row in np.flatnonzero(images.parts == part)
    )
    return SiteSet(images.name, sites, items, arrays=(images,))


def _row_of(images: ImageSet, site: int, row: int, is_scene: bool) -> Item:
    """Return a row of an array as an image."""
    label = images.classes[int(images.labels[row])] if is_scene and images.labels[row] >= 0 else ""
    return Item(images.names[row], site, Path(images.names[row]), 0, row=row, label=label)


def _folders(root: Path) -> Iterator[Path]:
    yield from sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def _site_folders(root: Path, cutting: Cutting) -> SiteSet:
    """Return a folder a site, or those below folders that are all named after roles."""
    tops = list(_folders(root))
    places: list[tuple[Site, Path]] = []
    try:
        roles = {top: role_of(top.name, str(root)) for top in tops}
    except DataError:
        roles = {}
    has_sites = bool(roles) and all(any(_folders(top)) for top in tops)
    if has_sites:
        below = [(Site(place.name, roles[top]), place) for top in tops for place in _folders(top)]
        names = [site.name for site, _ in below]
        places = [
            (site if names.count(site.name) == 1 else replace(site, name=f"{site.role}/{site.name}"), place)
            for site, place in below
        ]
    else:
        places = [(Site(top.name, roles.get(top, NO_ROLE)), top) for top in tops]
    return _from_places(root, places, cutting)


def _from_places(root: Path, places: Sequence[tuple[Site, Path]], cutting: Cutting) -> SiteSet:
    made = _Maker(root.resolve().name, root, cutting)
    empty = []
    for site, place in places:
        files = files_of(_image_folder(place), SUFFIXES)
        if not files:
            empty.append(site.name)
            continue
        number = made.add_site(site)
        is_by_class = all(name.count("/") >= 1 for name in files) and _image_folder(place) == place
        truth = _truth_of(place)
        for name, file in files.items():
            label = name.split("/")[0] if is_by_class else ""
            made.add_file(number, file.path, _Known(label, truth.get(Path(name).stem)))
    if empty:
        made.notes.append(f"{len(empty)} folders without an image are left out: {', '.join(empty[:5])}.")
    return made.done()


def _image_folder(place: Path) -> Path:
    return next((p for p in _folders(place) if p.name.lower() in IMAGE_FOLDERS), place)


def _truth_of(place: Path) -> dict[str, Path]:
    """Return the rasters of classes by the stem of their image; a suffix such as _UA2012 behind it is dropped."""
    folder = next((p for p in _folders(place) if p.name.lower() in TRUTH_FOLDERS), None)
    found: dict[str, Path] = {}
    for name, file in files_of(folder, (*RASTER_SUFFIXES, ".png")).items() if folder else ():
        stem = Path(name).stem
        found[stem] = file.path
        found.setdefault(stem.rpartition("_")[0] or stem, file.path)
    return found


def _table(path: Path, cutting: Cutting) -> SiteSet:
    """Read a table of images: site, path, and perhaps role (or split), label (or class), truth and a window."""
    columns, rows = read_columns(path)
    if columns.get("site") is None or columns.get("path") is None:
        found = ", ".join(columns) or "(none)"
        raise DataError(f"{path}: columns {found} found, expected site and path (and perhaps role, label, truth)")
    made = _Maker(path.resolve().stem, path.resolve().parent, cutting)
    has_windows = all(name in columns for name in WINDOW_COLUMNS)
    numbers: dict[str, int] = {}
    for line, row in enumerate(rows, 2):
        where = f"{path} row {line}"
        name = row[columns["site"]].strip()
        if not name:
            raise DataError(f"{where}: no site found, expected its name in the column site")
        role = role_of(row[columns["role"]], where) if "role" in columns else NO_ROLE
        if name not in numbers:
            numbers[name] = made.add_site(Site(name, role))
        elif made.sites[numbers[name]].role != role:
            raise DataError(f"{where}: site {name!r} has role {role!r}, above {made.sites[numbers[name]].role!r}; one")
        label = row[columns["label"]].strip() if "label" in columns else ""
        truth = row[columns["truth"]].strip() if "truth" in columns else ""
        files = tuple(file_below(path, text, where) for text in row[columns["path"]].split(FILES_JOINT))
        more = _Known(label, file_below(path, truth, where) if truth else None)
        window = window_of([row[columns[name]] for name in WINDOW_COLUMNS], where) if has_windows else None
        if window is None:
            made.add_file(numbers[name], files[0], more)
        else:
            made.add_window(numbers[name], files, window, more)
    return made.done()


def read_columns(path: Path) -> tuple[dict[str, int], list[list[str]]]:
    """Return the columns of a table of images, name -> position, and its rows.

    Path, role and label are found under their usual names (file, image; split, part; class).

    Raises:
        DataError: it cannot be read, is empty or ragged.
    """
    try:
        if path.stat().st_size > _MAX_TABLE:
            raise DataError(f"{path}: {path.stat().st_size} bytes found, at most {_MAX_TABLE} expected of a table")
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: table cannot be read: {error}; expected a .csv file in UTF-8") from error
    if len(rows) < 2:
        raise DataError(f"{path}: {len(rows)} rows found, expected a header and at least one image")
    header = [name.strip().lower() for name in rows[0]]
    bad = next((i for i, row in enumerate(rows[1:], 2) if len(row) != len(header)), None)
    if bad is not None:
        raise DataError(f"{path} row {bad}: {len(rows[bad - 1])} cells found, expected {len(header)} as in the header")
    columns = {name: header.index(name) for name in header}
    for key, others in (("path", _PATH_COLUMNS), ("role", ("role", "split", "part")), ("label", ("label", "class"))):
        found = next((columns[name] for name in others if name in columns), None)
        if found is not None:
            columns[key] = found
    return columns, rows[1:]


def file_below(table: Path, name: str, where: str) -> Path:
    """Return a file that a table names; its path counts from the table's folder.

    Raises:
        SecurityError: it leads out of that folder.
        DataError: it is not there.
    """
    text = name.strip().replace("\\", "/")
    if not text or text.startswith("/") or ".." in text.split("/") or ":" in text:
        raise SecurityError(f"{where}: path {name!r} refused: expected one below {table.parent} without '..'")
    path = table.resolve().parent / text
    if not path.is_file():
        raise DataError(f"{where}: {text!r} is not in {table.parent}; correct the path")
    return path


class _Known(NamedTuple):
    """What is known of an image beside its pixels: the class of all of it, and a raster of classes."""

    label: str = ""
    truth: Path | None = None


class _Maker:
    """Gathers sites and images; rasters of several blocks are cut into them."""

    def __init__(self, name: str, root: Path, cutting: Cutting) -> None:
        self.name, self.root, self.cutting = name, root, cutting
        self.sites: list[Site] = []
        self.items: list[Item] = []
        self.scenes: list[Scene] = []
        self.notes: list[str] = []
        self._scene_of: dict[tuple[Path, ...], int] = {}

    def add_site(self, site: Site) -> int:
        """Add a site and return its number."""
        self.sites.append(site)
        return len(self.sites) - 1

    def add_file(self, site: int, path: Path, known: _Known) -> None:
        """Add an image, or the blocks of a large raster."""
        scene = self._large(path)
        if scene is None:
            self.items.append(Item(self._name(path), site, path, label=known.label, truth=known.truth))
            return
        number = len(self.scenes)
        self.scenes.append(scene)
        for window in _blocks(scene.grid.full_window, self.cutting.block_px):
            self.items.append(_item_of(self._name(path), site, number, window, (path, known.truth, known.label)))

    def add_window(self, site: int, files: tuple[Path, ...], window: Window, known: _Known) -> None:
        """Add a window of a raster, or of several on one ground.

        Raises:
            GeoError: the raster cannot be read.
            DataError: the window does not lie in it.
        """
        path = files[0]
        if files not in self._scene_of:
            self._scene_of[files] = len(self.scenes)
            self.scenes.append(open_scenes(files, bands=self.cutting.bands)[0])
        number = self._scene_of[files]
        whole = self.scenes[number].grid.full_window
        if window.intersect(whole) != window:
            raise DataError(
                f"image {self._name(path)}: {window} found, expected a window inside its {whole.n_rows} x "
                f"{whole.n_cols} pixels; correct the table"
            )
        self.items.append(_item_of(self._name(path), site, number, window, (path, known.truth, known.label)))

    def _name(self, path: Path) -> str:
        return os.path.relpath(path, self.root).replace(os.sep, "/")

    def _large(self, path: Path) -> Scene | None:
        if path.suffix.lower() not in RASTER_SUFFIXES:
            return None
        try:
            scene = open_scenes([path], bands=self.cutting.bands)[0]
        except GeoError:
            return None  # it is counted among those that cannot be read, when it comes to that
        shape = scene.grid.shape
        is_large = min(shape.rows, shape.cols) >= LARGE_BLOCKS * self.cutting.block_px
        if not is_large:
            scene.close()
        return scene if is_large else None

    def done(self) -> SiteSet:
        """Return the set."""
        order = sorted(range(len(self.items)), key=lambda i: self.items[i].site)
        items = tuple(self.items[i] for i in order)
        notes = tuple(self.notes)
        return SiteSet(self.name, tuple(self.sites), items, tuple(self.scenes), root=self.root, notes=notes)


def _item_of(name: str, site: int, scene: int, window: Window, more: tuple[Path, Path | None, str]) -> Item:
    path, truth, label = more
    title = f"{name}@{window.row},{window.col}"
    return Item(title, site, path, scene=scene, window=window, label=label, truth=truth)


def _blocks(part: Window, block_px: int) -> Iterator[Window]:
    """Yield the whole blocks of a part of a grid, row by row; what is left at its edges belongs to none."""
    for row in range(part.row, part.row_stop - block_px + 1, block_px):
        for col in range(part.col, part.col_stop - block_px + 1, block_px):
            yield Window(row, col, block_px, block_px)


def _scenes(scenes: Sequence[Scene], cutting: Cutting) -> SiteSet:
    """Return each scene as a site, or the squares of a single one."""
    sites: list[Site] = []
    items: list[Item] = []
    for number, scene in enumerate(scenes):
        for name, part in _site_windows(scene, len(scenes) == 1, cutting):
            blocks = list(_blocks(part, cutting.block_px))
            if not blocks:
                continue
            site = len(sites)
            sites.append(Site(name))
            more = (scene.paths[0], None, "")
            items += [_item_of(scene.name, site, number, window, more) for window in blocks]
    if not items:
        shape = scenes[0].grid.shape
        raise DataError(
            f"scene {scenes[0].name}: {shape.rows} x {shape.cols} px found, expected at least one block of "
            f"{cutting.block_px} px; give a smaller --block-px"
        )
    name = scenes[0].name if len(scenes) == 1 else f"{len(scenes)} scenes"
    return SiteSet(name, tuple(sites), tuple(items), tuple(scenes))


def _site_windows(scene: Scene, is_alone: bool, cutting: Cutting) -> Iterator[tuple[str, Window]]:
    """Yield the sites of a scene: all of it, or squares where it is the only one."""
    if not is_alone:
        yield scene.name, scene.grid.full_window
        return
    shape, block = scene.grid.shape, cutting.block_px
    least = max(1, min(shape.rows, shape.cols) // SITES_A_SIDE // block) * block
    side = cutting.site_px or least
    for row in range(0, shape.rows, side):
        for col in range(0, shape.cols, side):
            part = Window(row, col, side, side).intersect(scene.grid.full_window)
            if part is not None:
                yield f"r{row // side}c{col // side}", part
