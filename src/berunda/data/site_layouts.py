"""Where sites lie: a folder a site, folders of roles (MiniFrance's layout among them), a table, scenes, a data set."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from berunda.data import catalog
from berunda.data.catalog._france import IGNORED, MASK_FOLDERS
from berunda.data.images import ImageSet, open_images
from berunda.data.listing import PHOTO_SUFFIXES, RASTER_SUFFIXES, File, files_of
from berunda.data.site_maker import Blocks, Cutting, Known, SiteMaker, drawn, left_out_note
from berunda.data.sites import NO_ROLE, Item, Site, SiteSet, role_of
from berunda.data.tables import FILES_JOINT, WINDOW_COLUMNS, window_of, without_left_out
from berunda.errors import DataError, SecurityError
from berunda.geo.grid import Window
from berunda.geo.raster import Scene, open_scenes

__all__ = ["Cutting", "file_below", "find_sites", "read_columns"]

SUFFIXES = (*PHOTO_SUFFIXES, *RASTER_SUFFIXES)
IMAGE_FOLDERS = ("bdortho", "images", "image", "img")
"""Folders of a site that hold its images, where it has one of them; MiniFrance's is BDORTHO."""
_FRENCH = tuple(name.lower() for name in MASK_FOLDERS)
TRUTH_FOLDERS = (*_FRENCH, "labels", "masks", "gt", "truth")
"""Folders of a site that hold a raster of classes for each image; MiniFrance's is UA, or UrbanAtlas."""
SITES_A_SIDE = 4
_ROLE_OF_PART = ("labelled", "labelled", "test", "unlabelled")
_PATH_COLUMNS = ("path", "file", "image", "filename")
_MAX_TABLE = 1 << 28


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
        return _parts(open_images(inputs[0], skip_broken=cutting.skip_broken), cutting)
    if len(inputs) == 1 and first.suffix.lower() == ".csv":
        return _table(first, cutting)
    if len(inputs) == 1 and first.is_dir() and any(_folders(first)):
        return _site_folders(first, cutting)
    if len(inputs) == 1 and first.is_dir() and not any(p.suffix.lower() in RASTER_SUFFIXES for p in first.iterdir()):
        raise DataError(
            f"{first}: found neither sub-directories nor rasters, expected one folder a site, a .csv table with the "
            "columns site and path, or scenes; put the images of each site into a folder of its own"
        )
    return _scenes(open_scenes(list(inputs), bands=cutting.bands), cutting)


def _parts(images: ImageSet, cutting: Cutting) -> SiteSet:
    names = ("train", "validation", "test", "unlabelled")
    present = [part for part in range(len(names)) if (images.parts == part).any()]
    sites = tuple(Site(names[part], _ROLE_OF_PART[part]) for part in present)
    scene = images.task == "scene"
    items: list[Item] = []
    rows_of = [np.flatnonzero(images.parts == part) for part in present]
    for number, chosen in enumerate(drawn(cutting, [len(rows) for rows in rows_of])):
        items += [_row_of(images, number, int(row), scene) for row in rows_of[number][chosen]]
    n_all = sum(len(rows) for rows in rows_of)
    notes = left_out_note(cutting, n_all - len(items), n_all)
    return SiteSet(images.name, sites, tuple(items), arrays=(images,), notes=notes)


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
    made = SiteMaker(root.resolve().name, root, cutting)
    empty: list[str] = []
    lost: list[str] = []
    unused: Counter[str] = Counter()
    for site, place in places:
        files = _images_of(place)
        if not files:
            empty.append(site.name)
            continue
        number = made.add_site(site)
        is_by_class = all(name.count("/") >= 1 for name in files) and _image_folder(place) == place
        truth = _truth_of(place, files)
        unused.update(_unused_folders(place))
        truth_folder = _truth_folder(place)
        ignored = _ignored([truth_folder.name] if truth_folder else [])
        lost += [f"{site.name}/{key}" for key in sorted({*truth} - {_key(name) for name in files})]
        for name, file in files.items():
            label = name.split("/")[0] if is_by_class else ""
            made.add_file(number, file.path, Known(label, truth.get(_key(name)), ignored))
    if empty:
        made.notes.append(f"{len(empty)} folders without an image are left out: {', '.join(empty[:5])}.")
    if lost:
        made.notes.append(
            f"{len(lost)} rasters of classes have no image of their path and name: {', '.join(lost[:5])}."
        )
    if unused:
        told = ", ".join(f"{name} (of {n})" for name, n in sorted(unused.items())[:5])
        made.notes.append(f"Folders of sites that are not used, as others hold the images and classes: {told}.")
    return made.done()


def _unused_folders(place: Path) -> Iterator[str]:
    """Yield the folders beside a folder of images, of which neither pixels nor classes are read."""
    images, truth = _image_folder(place), _truth_folder(place)
    if images != place:
        yield from (folder.name for folder in _folders(place) if folder not in (images, truth))


def _ignored(folders: Iterable[str]) -> tuple[int, ...]:
    """Return the values that are no class in rasters below folders of these names; MiniFrance's have some."""
    return IGNORED if any(name.lower() in _FRENCH for name in folders) else ()


def _image_folder(place: Path) -> Path:
    return next((p for p in _folders(place) if p.name.lower() in IMAGE_FOLDERS), place)


def _truth_folder(place: Path) -> Path | None:
    return next((p for p in _folders(place) if p.name.lower() in TRUTH_FOLDERS), None)


def _images_of(place: Path) -> dict[str, File]:
    """Return the images of a site by their path in it; a folder of rasters of classes beside them holds none."""
    folder, truth = _image_folder(place), _truth_folder(place)
    files = files_of(folder, SUFFIXES)
    if folder != place or truth is None:
        return files
    return {name: file for name, file in files.items() if name.split("/")[0] != truth.name}


def _key(name: str) -> str:
    """Return what an image and its raster of classes have in common: the path in their folder, without suffix."""
    return PurePosixPath(name).with_suffix("").as_posix()


def _truth_of(place: Path, images: Iterable[str]) -> dict[str, Path]:
    """Return the rasters of classes by the key of their image.

    It is their own, or what is left of it without a suffix such as _UA2012, where no other image bears the whole name.
    """
    folder, keys = _truth_folder(place), {_key(name) for name in images}
    files = files_of(folder, (*RASTER_SUFFIXES, ".png")) if folder else {}
    found = {_key(name): file.path for name, file in files.items() if _key(name) in keys}
    for name, file in files.items():
        path = PurePosixPath(_key(name))
        if path.as_posix() not in keys and "_" in path.name.strip("_"):
            found.setdefault(path.with_name(path.name.rpartition("_")[0]).as_posix(), file.path)
        else:
            found.setdefault(path.as_posix(), file.path)
    return found


def _table(path: Path, cutting: Cutting) -> SiteSet:
    """Read a table of images: site, path, and perhaps role (or split), label (or class), truth and a window."""
    columns, rows = read_columns(path)
    if columns.get("site") is None or columns.get("path") is None:
        found = ", ".join(columns) or "(none)"
        raise DataError(f"{path}: columns {found} found, expected site and path (and perhaps role, label, truth)")
    made = SiteMaker(path.resolve().stem, path.resolve().parent, cutting)
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
        ignored = _ignored(truth.replace("\\", "/").split("/")[:-1])
        more = Known(label, file_below(path, truth, where) if truth else None, ignored)
        window = window_of([row[columns[name]] for name in WINDOW_COLUMNS], where) if has_windows else None
        if window is None and len(files) == 1:
            made.add_file(numbers[name], files[0], more)
        else:
            made.add_window(numbers[name], files, window, more)
    return made.done()


def read_columns(path: Path) -> tuple[dict[str, int], list[list[str]]]:
    """Return the columns of a table of images, name -> position, and its rows.

    Path, role and label are found under their usual names (file, image; split, part; class). Rows that a split leaves
    out are not among them.

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
    return columns, without_left_out(header, rows[1:])


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


def _scenes(scenes: Sequence[Scene], cutting: Cutting) -> SiteSet:
    """Return each scene as a site, or the squares of a single one."""
    made = SiteMaker(scenes[0].name if len(scenes) == 1 else f"{len(scenes)} scenes", None, cutting)
    made.scenes = list(scenes)
    for number, scene in enumerate(scenes):
        for name, part in _site_windows(scene, len(scenes) == 1, cutting):
            blocks = Blocks(scene.name, len(made.sites), number, part, cutting.block_px, scene.paths[0])
            if len(blocks):
                made.add_site(Site(name))
                made.add_blocks(blocks)
    if not made.sites:
        shape = scenes[0].grid.shape
        raise DataError(
            f"scene {scenes[0].name}: {shape.rows} x {shape.cols} px found, expected at least one block of "
            f"{cutting.block_px} px; give a smaller --block-px"
        )
    return made.done()


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
