"""What a file is by its content, and whether it is whole, before GDAL reads it. Plain bytes only, no GDAL.

The verdicts are cheap: a few kilobytes are read, whatever a file declares.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from berunda.errors import GeoError, SecurityError

__all__ = ["TiffLayout", "check_sidecars", "check_whole", "driver_of"]

SIGNATURES = (
    (b"II*\0", "GTiff"),
    (b"MM\0*", "GTiff"),
    (b"II+\0", "GTiff"),
    (b"MM\0+", "GTiff"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JP2OpenJPEG"),
    (b"\xff\x4f\xff\x51", "JP2OpenJPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
)
"""The allow-list: content signature and the one GDAL driver that may open it (a COG is opened by GTiff)."""

OTHERS = (
    (b"SQLite format 3\0", "a GeoPackage or SQLite file (vector data belongs to --labels)"),
    (b"\0\0\x27\x0a", "a shapefile (vector data belongs to --labels)"),
    (b"PK\x03\x04", "a zip archive (unpack it first)"),
    (b"\x1f\x8b", "a gzip archive (unpack it first)"),
    (b"\x89HDF", "an HDF5 or netCDF file"),
    (b"CDF", "a netCDF file"),
    (b"{", "a JSON file (vector data belongs to --labels)"),
    (b"EHFA_HEADER_TAG", "an Erdas Imagine file"),
)
XML_DATASETS = (
    b"<VRT",
    b"<OGRVRT",
    b"<GDAL_W",
    b"<GDALTileIndex",
    b"<WMS_",
    b"<WCS",
    b"<Capabilities",
    b"<OGRWFS",
)
TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 6: 1, 8: 2, 9: 4, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
NUMBERS = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}


@dataclass(frozen=True)
class TiffLayout:
    """Where the first image of a TIFF keeps its blocks.

    Attributes:
        data_bytes: bytes of all stored blocks.
        end: the byte after the last stored block.
        compression: the TIFF code, 1 for none.
    """

    data_bytes: int
    end: int
    compression: int


def driver_of(path: Path) -> str:
    """Return the GDAL driver that may open a local file, by its content and whatever its name.

    Raises:
        SecurityError: the file is a VRT or another XML dataset that can point at other files or hosts.
        GeoError: the file is empty or of a format that is not on the allow-list.
    """
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise GeoError(f"{path} cannot be read: {error.strerror or error}; check its permissions") from error
    if not head:
        raise GeoError(f"{path} is empty (0 bytes): expected a raster; copy or download it again")
    for signature, driver in SIGNATURES:
        if head.startswith(signature):
            return driver
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n\0")
    if text.startswith(b"<") and any(mark in head for mark in XML_DATASETS):
        raise SecurityError(
            f"{path} is a VRT or another XML dataset by its content: refused, it can point at any file or host;"
            " expected GeoTIFF, COG, JPEG 2000, PNG or JPEG, convert it with gdal_translate -of COG"
        )
    kind = next((kind for mark, kind in OTHERS if text.startswith(mark) or head.startswith(mark)), "an unknown format")
    raise GeoError(
        f"{path} is {kind} by its content: expected GeoTIFF, COG, JPEG 2000, PNG or JPEG;"
        " other rasters convert with gdal_translate -of COG"
    )


def check_whole(path: Path, driver: str) -> TiffLayout | None:
    """Refuse a truncated TIFF, JPEG 2000 or PNG file from its own tables; return a TIFF's layout.

    GDAL reads a truncated PNG without an error, whatever is missing.

    Raises:
        GeoError: the file ends before the data that its header promises.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if driver == "JP2OpenJPEG":
            _check_end(path, _jp2_end(file, size), size)
        if driver == "PNG":
            _check_end(path, _png_end(file, size), size)
        if driver != "GTiff":
            return None
        try:
            layout = _tiff_layout(file, size)
        except (struct.error, ValueError, OverflowError) as error:
            raise GeoError(
                f"{path} is damaged or truncated: its TIFF directory cannot be read in its {size} bytes ({error});"
                " copy or download it again"
            ) from error
    if layout is not None:
        _check_end(path, layout.end, size)
    return layout


def check_sidecars(path: Path) -> None:
    """Refuse side files that GDAL would open with any driver: an overview or mask file that is no TIFF.

    Raises:
        SecurityError: `<name>.ovr` or `<name>.msk` is something else than a TIFF.
    """
    for side in _sidecars(path):
        with side.open("rb") as file:
            head = file.read(16)
        if not any(head.startswith(mark) for mark, driver in SIGNATURES if driver == "GTiff"):
            raise SecurityError(
                f"{side} beside {path.name} is not a TIFF by its content: refused, GDAL would follow it;"
                " delete it or move the raster elsewhere"
            )


def _sidecars(path: Path) -> list[Path]:
    """Return the overview and mask files of a raster, in any case of their suffix."""
    stems = {path.name.lower(), path.stem.lower()}
    found = []
    with os.scandir(path.parent) as entries:
        for entry in entries:
            stem, suffix = os.path.splitext(entry.name.lower())
            if suffix in {".ovr", ".msk"} and _without_sidecar(stem) in stems and entry.is_file():
                found.append(Path(entry.path))
    return sorted(found)


def _without_sidecar(stem: str) -> str:
    """Undo nested side files (`a.tif.msk.ovr`)."""
    while stem.endswith((".ovr", ".msk")):
        stem = stem[:-4]
    return stem


def _check_end(path: Path, end: int, size: int) -> None:
    """Raise when the data should end after the file does."""
    if end > size:
        raise GeoError(
            f"{path} is truncated: its header promises data up to byte {end}, the file has {size};"
            " copy or download it again"
        )


def _jp2_end(file: BinaryIO, size: int) -> int:
    """Return the byte after the last box of a JPEG 2000 file (of a raw codestream: its size)."""
    position = 0
    if file.read(2) == b"\xff\x4f":
        return size
    while position < size:
        file.seek(position)
        head = file.read(16)
        if len(head) < 8:
            return position + 8
        length = int(struct.unpack(">I", head[:4])[0])
        if length == 1 and len(head) == 16:
            length = int(struct.unpack(">Q", head[8:])[0])
        if length == 0:
            return size
        if length < 8:
            return size + 1
        position += length
    return position


def _png_end(file: BinaryIO, size: int) -> int:
    """Return the byte after the last chunk of a PNG file, beyond the file when its end mark is missing."""
    position = 8
    while position < size:
        file.seek(position)
        head = file.read(8)
        if len(head) < 8:
            return size + 8
        position += 12 + int(struct.unpack(">I", head[:4])[0])
        if head[4:] == b"IEND":
            return position
    return max(position, size + 12)


def _tiff_layout(file: BinaryIO, size: int) -> TiffLayout | None:
    """Read where the blocks of the first image lie; None when there is no table of blocks."""
    file.seek(0)
    head = file.read(16)
    order = "<" if head[:2] == b"II" else ">"
    is_big = head[2:4] in (b"+\0", b"\0+")
    (start,) = struct.unpack(order + ("Q" if is_big else "I"), head[8:16] if is_big else head[4:8])
    entries = _directory(file, start, order, is_big)
    offsets = _numbers(file, entries.get(324, entries.get(273)), order, size)
    counts = _numbers(file, entries.get(325, entries.get(279)), order, size)
    if offsets is None or counts is None:
        return None
    n = min(len(offsets), len(counts))
    stored = counts[:n] > 0
    ends = offsets[:n][stored].astype(np.float64) + counts[:n][stored].astype(np.float64)
    compression = _numbers(file, entries.get(259), order, size)
    return TiffLayout(
        data_bytes=int(counts[:n].sum(dtype=np.float64)),
        end=int(ends.max()) if ends.size else 0,
        compression=int(compression[0]) if compression is not None and compression.size else 1,
    )


@dataclass(frozen=True)
class _Entry:
    """One entry of a TIFF directory: value type, count and the file position of the values."""

    kind: int
    count: int
    position: int


def _directory(file: BinaryIO, start: int, order: str, is_big: bool) -> dict[int, _Entry]:
    """Read a TIFF directory: tag -> entry."""
    file.seek(start)
    (n,) = struct.unpack(order + ("Q" if is_big else "H"), file.read(8 if is_big else 2))
    if n > 4096:
        raise ValueError(f"{n} directory entries")
    step, field = (20, 8) if is_big else (12, 4)
    entries: dict[int, _Entry] = {}
    at = start + (8 if is_big else 2)
    for i in range(n):
        file.seek(at + i * step)
        raw = file.read(step)
        tag, kind, count = struct.unpack(order + ("HHQ" if is_big else "HHI"), raw[: 4 + field])
        position = at + i * step + 4 + field
        if count * TYPE_SIZES.get(kind, 1) > field:
            (position,) = struct.unpack(order + ("Q" if is_big else "I"), raw[4 + field : 4 + 2 * field])
        entries[tag] = _Entry(kind, count, position)
    return entries


def _numbers(file: BinaryIO, entry: _Entry | None, order: str, size: int) -> np.ndarray | None:
    """Read the values of an entry as uint64; refuse a table that does not fit into the file."""
    if entry is None or entry.kind not in NUMBERS:
        return None
    n_bytes = entry.count * TYPE_SIZES[entry.kind]
    if entry.position + n_bytes > size:
        raise ValueError(f"a table of {n_bytes} bytes at byte {entry.position}")
    file.seek(entry.position)
    raw = np.frombuffer(file.read(n_bytes), dtype=order + NUMBERS[entry.kind])
    return raw.astype(np.uint64)
