"""Images and masks as files: their headers, their pixels, and the values of their masks."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from berunda.data.listing import File
from berunda.data.masks.schema import pack_colors
from berunda.data.photo import TIFF_MAGIC, Decoded, Undecodable, decode_image, is_photograph, open_photo, reason_of
from berunda.data.store import FileReader
from berunda.errors import DataError, GeoError
from berunda.geo.grid import Window

if TYPE_CHECKING:
    from berunda.geo.raster import Scene

__all__ = ["Header", "MaskFiles"]

_KEPT = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.int16))
_BLOCK_PX = 1024
_N_KEPT = 4  # scenes whose windows are read in turn: image and mask, and those of the next


class Header(NamedTuple):
    """What is known of an image before its pixels are read: `rows`, `cols`, `bands`, `kind` (numpy type)."""

    rows: int
    cols: int
    bands: tuple[str, ...]
    kind: np.dtype


class MaskFiles(FileReader):
    """Reads images and masks, from folders and from archives; rasters of the same ground become one image."""

    def __init__(self) -> None:
        super().__init__()
        self._rasters: dict[tuple[Path, str], bool] = {}
        self._scenes: dict[tuple[Path, ...], Scene] = {}
        self.callback(self._close_scenes)

    def _close_scenes(self) -> None:
        for scene in self._scenes.values():
            scene.close()

    def header(self, name: str, files: tuple[File, ...]) -> Header:
        """Return the header of an image.

        Raises:
            DataError, SecurityError: it cannot be read, its rasters do not fit each other, or its window reaches beyond
                them.
        """
        return _cropped(self._whole(name, files), name, files[0].window)

    def whole_size(self, name: str, files: tuple[File, ...]) -> tuple[int, int]:
        """Return rows and columns of all of an image or a mask, whatever its window, from its header."""
        found = self._whole(name, files)
        return found.rows, found.cols

    def _whole(self, name: str, files: tuple[File, ...]) -> Header:
        if len(files) == 1 and not self._is_raster(files[0]):
            return self._photo_header(name, files[0])
        with self._scene(name, files) as scene:
            kinds = {np.dtype(band.dtype) for band in scene.bands}
            kind = kinds.pop() if len(kinds) == 1 else np.dtype(np.float32)
            kind = kind if kind in _KEPT else np.dtype(np.float32)
            return Header(scene.grid.shape.rows, scene.grid.shape.cols, scene.band_names, kind)

    def fill(self, name: str, files: tuple[File, ...], pixels: np.ndarray, labels: np.ndarray, no_data: int) -> None:
        """Write an image into `pixels` (B, H, W), and `no_data` into `labels` (H, W) where it has no data.

        Raises:
            DataError, SecurityError: it cannot be read.
        """
        if len(files) == 1 and not self._is_raster(files[0]):
            pixels[:] = _part(self._decoded(name, files[0]).pixels, files[0].window)
            return
        with self._scene(name, files) as scene:
            part = files[0].window or scene.grid.full_window
            for window in scene.grid.crop(part).tiles(_BLOCK_PX):
                block = scene.read(replace(window, row=window.row + part.row, col=window.col + part.col))
                rows, cols = window.slices
                pixels[:, rows, cols] = np.where(block.valid, block.values, 0).astype(pixels.dtype)
                labels[rows, cols][~block.valid] = no_data

    def mask(self, name: str, file: File, kind: str) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the values (H, W) of a mask, and where it has any: None for everywhere.

        Args:
            name: of the mask, for messages.
            file: where it lies.
            kind: "index" or "palette".

        Raises:
            DataError, SecurityError: it cannot be read, or is of the other kind.
        """
        if not self._is_raster(file):
            return _part(_photo_values(self._bytes(name, file), name, kind), file.window), None
        with self._scene(name, (file,)) as scene:
            block = scene.read(file.window or scene.grid.full_window)
            return _values_of(block.values, name, kind), None if block.valid.all() else block.valid

    def class_names(self, file: File) -> dict[int, str]:
        """Return the names of classes that a raster keeps beside its values, by value; empty where it keeps none."""
        if file.member or not self._is_raster(file):
            return {}
        from berunda.geo.labelraster import category_names
        from berunda.geo.raster import describe

        return category_names(file.path, dict(describe(file.path).tags))

    def _bytes(self, name: str, file: File) -> bytes:
        content = self.read(file)
        if isinstance(content, str):
            raise DataError(f"{name}: cannot be read: {content}; fetch it again")
        return content

    def _decoded(self, name: str, file: File) -> Decoded:
        try:
            return decode_image(self._bytes(name, file), file.member or name, None if file.member else file.path)
        except Undecodable as error:
            raise DataError(f"image {name}: cannot be decoded: {error}; fetch it again, or leave it out") from error

    def _photo_header(self, name: str, file: File) -> Header:
        try:
            with open_photo(self._bytes(name, file)) as image:
                is_grey = image.mode in ("L", "1", "LA", "I", "I;16", "I;16B", "I;16L")
                kind = np.dtype(np.uint16 if image.mode.startswith("I") else np.uint8)
                bands = ("grey",) if is_grey else ("red", "green", "blue")
                return Header(image.height, image.width, bands, kind)
        except DataError:
            raise
        except Exception as error:  # a decoder meets hostile bytes here, and raises what it likes
            raise DataError(
                f"{name}: cannot be decoded: {reason_of(error)}; fetch it again, or leave it out"
            ) from error

    def _is_raster(self, file: File) -> bool:
        key = (file.path, file.member)
        if key not in self._rasters:
            self._rasters[key] = self._holds_raster(file)
        return self._rasters[key]

    def _holds_raster(self, file: File) -> bool:
        suffix = PurePosixPath(file.member or file.path.name).suffix.lower()
        if suffix == ".jp2":
            return True
        if suffix not in (".tif", ".tiff"):
            return False
        content = self.read(file) if file.member else _head_and_tags(file.path)
        return not isinstance(content, str) and content.startswith(TIFF_MAGIC) and not is_photograph(content)

    @contextmanager
    def _scene(self, name: str, files: tuple[File, ...]) -> Iterator[Scene]:
        """Open rasters as one scene; members of archives as temporary files, as GDAL is let at no archive."""
        from berunda.geo.raster import open_scenes

        with tempfile.TemporaryDirectory(prefix="berunda-") as folder:
            paths = []
            for number, file in enumerate(files):
                path = file.path
                if file.member:
                    path = Path(folder) / f"{number}_{PurePosixPath(file.member).name}"
                    path.write_bytes(self._bytes(name, file))
                paths.append(path)
            key, scene = tuple(paths), self._scenes.pop(tuple(paths), None)
            try:
                if scene is None:
                    scene = _one_scene(name, open_scenes(paths))
                yield scene
            except GeoError as error:
                raise DataError(f"image {name}: cannot be read: {error}") from error
            finally:
                if scene is not None:
                    self._keep(key, scene, is_lasting=files[0].window is not None)

    def _keep(self, key: tuple[Path, ...], scene: Scene, *, is_lasting: bool) -> None:
        """Keep a scene of which further windows will be asked for open, the last few of them; close any other."""
        if not is_lasting:
            scene.close()
            return
        self._scenes[key] = scene
        if len(self._scenes) > _N_KEPT:
            self._scenes.pop(next(iter(self._scenes))).close()


def _one_scene(name: str, scenes: Sequence[Scene]) -> Scene:
    if len(scenes) != 1:
        raise DataError(f"image {name}: {len(scenes)} places found in several rasters, expected the same ground of all")
    return scenes[0]


def _cropped(header: Header, name: str, window: Window | None) -> Header:
    """Return the header of a part of an image.

    Raises:
        DataError: the part reaches beyond the image.
    """
    if window is None:
        return header
    if window.intersect(Window(0, 0, header.rows, header.cols)) != window:
        raise DataError(
            f"image {name}: {window} found, expected a window inside its {header.rows} x {header.cols} pixels; correct "
            "the table"
        )
    return header._replace(rows=window.n_rows, cols=window.n_cols)


def _part(array: np.ndarray, window: Window | None) -> np.ndarray:
    """Return the part of an array (..., rows, columns)."""
    return array if window is None else array[(..., *window.slices)]


def _head_and_tags(path: Path) -> bytes:
    """Return what the kind of a TIFF is told from: all of it, or the head alone of a large one, which is for GDAL."""
    with path.open("rb") as file:
        head = file.read(8)
        return head + file.read() if path.stat().st_size < (1 << 26) else head


def _photo_values(content: bytes, name: str, kind: str) -> np.ndarray:
    """Return the values of a mask that is a photograph: palette numbers or grey, or colours."""
    try:
        with open_photo(content) as image:
            image.load()
            if kind == "palette":
                return pack_colors(np.asarray(image.convert("RGB")).transpose(2, 0, 1))
            is_colour = image.mode not in ("P", "L", "1", "I", "I;16", "I;16B", "I;16L", "LA")
            array = np.asarray(image if image.mode != "LA" else image.convert("L"))
    except Exception as error:  # a decoder meets hostile bytes here, and raises what it likes
        raise DataError(f"mask {name}: cannot be decoded: {reason_of(error)}; fetch it again") from error
    return _values_of(array.transpose(2, 0, 1) if is_colour else array[None].astype(np.int64), name, kind)


def _values_of(values: np.ndarray, name: str, kind: str) -> np.ndarray:
    """Return (H, W) values of bands (B, H, W)."""
    if kind == "palette":
        if len(values) not in (3, 4):
            raise DataError(
                f"mask {name}: {len(values)} bands found, expected 3 (red, green, blue) as the schema gives colours; "
                "give numbers in classes.csv where the masks hold numbers"
            )
        return pack_colors(values[:3].astype(np.uint8))
    if len(values) > 1 and not all(np.array_equal(values[0], band) for band in values[1:3]):
        raise DataError(
            f"mask {name}: colours found, expected one number a pixel as the schema gives numbers; give colours "
            "(#rrggbb) in classes.csv where the masks hold colours"
        )
    plain = values[0]
    if plain.dtype.kind == "f" and not np.array_equal(plain, np.rint(plain)):
        raise DataError(f"mask {name}: numbers with fractions found, expected whole class numbers; is it an image?")
    return plain.astype(np.int64)
