"""Which files an input means; what is no plain local file or folder is refused before GDAL sees it."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from berunda.errors import GeoError, SecurityError

__all__ = ["gdal_name", "is_remote", "resolve_inputs"]

RASTER_SUFFIXES = frozenset({".tif", ".tiff", ".gtiff", ".btf", ".jp2", ".j2k", ".jpx"})
PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})
MAX_ENTRIES = 50_000
"""A folder with more entries below it is no scene; without a bound `/` would be searched whole."""
NOT_REFLECTANCE = re.compile(r"(?:^|_)(?:TCI|PVI|AOT|WVP|SCL|MSK_[A-Z0-9]+)(?:_\d+m)?$", re.IGNORECASE)
PREVIEW = re.compile(r"(?:thumb|preview|quicklook|browse|[-_]ql$)", re.IGNORECASE)
SENTINEL_BAND = re.compile(r"^(?P<product>.*_B(?:\d\d|8A))_(?P<metres>10|20|60)m$", re.IGNORECASE)


def resolve_inputs(inputs: Iterable[str | Path], allow_remote: bool = False) -> list[Path]:
    """Return the files that the inputs mean, folders expanded, in the order given.

    A folder stands for the rasters directly in it, sorted by name; when there are none, for those in its
    subfolders (in a Sentinel-2 product for those under `IMG_DATA`). From a folder are left out: true-colour
    pictures, previews and Sentinel-2 files that are not reflectances (TCI, PVI, AOT, WVP, SCL, MSK_*), a band
    that is there at a finer resolution too (B02_20m beside B02_10m), and PNG and JPEG files when there is any
    other raster. A file that is named is always taken.

    Args:
        inputs: paths of files or folders.
        allow_remote: whether http(s) addresses are let through; they come back as a Path that `gdal_name`
            undoes.

    Raises:
        SecurityError: an input names a remote host, a GDAL virtual file system or an inline dataset.
        GeoError: a file is missing, is not a file, or a folder holds no raster.
    """
    files: list[Path] = []
    for item in inputs:
        text = os.fspath(item)
        if _refuse_unless_plain(text, allow_remote):
            files.append(Path(text))
            continue
        files.extend(_files_at(Path(text)))
    if not files:
        raise GeoError("no scene was given: expected at least one raster file or folder")
    doubles = sorted({str(f) for f in files if files.count(f) > 1}) if len(set(files)) < len(files) else []
    if doubles:
        raise GeoError(f"{doubles[0]} is given twice: give each file once")
    return files


def is_remote(path: str | Path) -> bool:
    """Whether a path is an http(s) address that `resolve_inputs` let through."""
    return re.match(r"https?:/", os.fspath(path)) is not None


def gdal_name(path: Path) -> Path | str:
    """Return what to hand to rasterio: an absolute local path, or the GDAL name of an http(s) address."""
    if is_remote(path):
        return "/vsicurl/" + re.sub(r"^(https?):/+", r"\1://", os.fspath(path))
    return path.absolute()


def _refuse_unless_plain(text: str, allow_remote: bool) -> bool:
    """Raise for anything but a local file name; return whether it is an address that is allowed."""
    stripped = text.strip()
    if not stripped or "\0" in text:
        raise GeoError(f"an input path is empty or not a file name: found {text!r}; expected a file or a folder")
    if stripped.startswith("<"):
        raise SecurityError(
            f"'{_short(stripped)}' is an inline dataset, not a path: refused; give the path of a GeoTIFF or"
            " JPEG 2000 file"
        )
    if re.match(r"[/\\]*vsi[a-z0-9_]*[/\\]", stripped, re.IGNORECASE):
        raise SecurityError(
            f"'{_short(stripped)}' names a GDAL virtual file system: refused; expected a local file, unpack"
            " or download it"
        )
    if re.match(r"https?:/", stripped, re.IGNORECASE) and allow_remote:
        return True
    if "://" in stripped or (re.match(r"[A-Za-z][A-Za-z0-9_+.-]+:", stripped) and not os.path.exists(text)):
        raise SecurityError(
            f"'{_short(stripped)}' names a remote host or a subdataset: refused; expected a local file,"
            " download it first"
        )
    return False


def _files_at(path: Path) -> list[Path]:
    """Return the file at a path, or the rasters that the folder there stands for."""
    try:
        return _expand(path) if path.is_dir() else [_existing(path)]
    except OSError as error:  # a name that is too long, a folder that may not be listed
        reason = error.strerror or str(error)
        raise GeoError(f"{_short(str(path))} cannot be looked up: {reason}; expected a file or a folder") from error


def _existing(path: Path) -> Path:
    """Return the path of a regular file, or say what is there instead."""
    if path.is_file():
        return path
    if path.exists():
        raise GeoError(f"{path} is not a regular file: expected a raster or vector file")
    folder = path.parent
    names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    near = difflib.get_close_matches(path.name, names, 1)
    if not folder.is_dir():
        hint = f"its folder {folder} does not exist either"
    else:
        hint = f"did you mean {folder / near[0]}?" if near else f"check the spelling, {folder} has {len(names)} entries"
    raise GeoError(f"{path} does not exist: {hint}")


def _expand(folder: Path) -> list[Path]:
    """Return the rasters that a folder stands for."""
    found = _rasters(p for p in folder.iterdir())
    if not found:
        below = _all_below(folder)
        images = [p for p in below if "IMG_DATA" in p.relative_to(folder).parts]
        found = _rasters(images or below)
    if not found:
        raise GeoError(
            f"folder {folder} holds no raster: expected {', '.join(sorted(RASTER_SUFFIXES | PICTURE_SUFFIXES))} files"
        )
    return found


def _all_below(folder: Path) -> list[Path]:
    """Return the rasters in all subfolders, or give up when there is too much to be one scene."""
    found: list[Path] = []
    n_seen, suffixes = 0, RASTER_SUFFIXES | PICTURE_SUFFIXES
    for top, folders, names in os.walk(folder):
        n_seen += len(names) + len(folders)
        if n_seen > MAX_ENTRIES:
            raise GeoError(f"folder {folder} holds over {MAX_ENTRIES} entries: name the folder of the scene's rasters")
        found += [Path(top) / name for name in names if os.path.splitext(name)[1].lower() in suffixes]
    return found


def _rasters(candidates: Iterable[Path]) -> list[Path]:
    """Return the rasters among files of one folder, previews and doubles left out, sorted."""
    files = sorted(p for p in candidates if p.is_file() and not p.name.startswith("."))
    wanted = [p for p in files if not (NOT_REFLECTANCE.search(p.stem) or PREVIEW.search(p.stem))]
    for suffixes in (RASTER_SUFFIXES, PICTURE_SUFFIXES):
        chosen = [p for p in wanted if p.suffix.lower() in suffixes]
        if chosen:
            return _finest(chosen)
    return []


def _finest(files: list[Path]) -> list[Path]:
    """Keep, of a Sentinel-2 band that is there at several resolutions, the finest."""
    best: dict[str, int] = {}
    keys = [SENTINEL_BAND.match(p.stem) for p in files]
    for match in keys:
        if match:
            product, metres = match["product"].lower(), int(match["metres"])
            best[product] = min(metres, best.get(product, metres))
    return [
        p
        for p, match in zip(files, keys, strict=True)
        if not match or int(match["metres"]) == best[match["product"].lower()]
    ]


def _short(text: str) -> str:
    """Return the beginning of a long text for a message, in one line."""
    line = " ".join(text.split())
    return line if len(line) <= 80 else line[:77] + "..."
