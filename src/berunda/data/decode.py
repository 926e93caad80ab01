"""Decode once: the images of a listing become one memory-mapped array in the cache, keyed by their content.

The array lies in `<cache>/images/<data set>-<key>/pixels.npy`, with `about.json` beside it. It is written beside its
place under a lock and renamed when it is whole. What is damaged is decoded again. Changed labels or splits do not
touch it: it holds pixels only.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from berunda.cache import cache_folder
from berunda.cores import allowed_cores
from berunda.data.images import ImageSet
from berunda.data.listing import Blobs, Listing, Sample
from berunda.data.photo import Decoded, Undecodable, decode_image, decode_window, resampled
from berunda.data.store import FileReader, content_key, folder_name, locked_folder, writing_store
from berunda.errors import DataError, OutputError
from berunda.geo.fingerprint import fingerprint_files
from berunda.progress import Progress, Silent

__all__ = ["decoded"]

VERSION = 1
"""Part of every key: a change in how images are decoded gives another number, and so another array."""

MAX_THREADS = 8
_CHUNK = 64  # images that one thread decodes at a time
_N_NAMED = 5  # broken images that an error names


@dataclass(frozen=True)
class _Stored:
    """What the cache holds of a listing: pixels of the images that could be decoded, and why others could not."""

    pixels: np.ndarray
    bands: tuple[str, ...]
    zero_is_missing: bool
    broken: dict[int, str]


def decoded(
    listing: Listing, *, skip_broken: bool = False, cache: Path | None = None, progress: Progress | None = None
) -> ImageSet:
    """Return the images of a listing; those seen before come from the cache.

    Args:
        listing: the images, their labels and parts.
        skip_broken: leave images out that cannot be decoded; they are listed in `skipped`.
        cache: folder of the cache; None for `berunda.cache.cache_folder()`.
        progress: told how the decoding goes.

    Raises:
        DataError: images are broken (unless skipped), or differ in size, bands or type.
        SecurityError: a file was refused by policy.
        OutputError: the cache cannot be written.
    """
    start, decoding_s = time.perf_counter(), 0.0
    store = (cache or cache_folder()) / "images"
    progress = progress or Silent()
    with writing_store(store):
        named = [(sample.name, sample.file) for sample in listing.samples]
        key = content_key(json.dumps([VERSION, listing.side_px]), named, store)
        folder = store / folder_name(listing.name, key)
        stored = _read(folder, len(listing.samples))
        if stored is None:
            missing_at = time.perf_counter()
            with locked_folder(folder, progress):
                stored = _read(folder, len(listing.samples)) or _fill(folder, listing, progress)
            decoding_s = time.perf_counter() - missing_at
    images = _image_set(listing, key, stored, skip_broken)
    return replace(images, opening_s=time.perf_counter() - start - decoding_s)


def _image_set(listing: Listing, key: str, stored: _Stored, skip_broken: bool) -> ImageSet:
    if stored.broken and not skip_broken:
        raise DataError(_broken_text(listing, stored.broken))
    kept = [sample for index, sample in enumerate(listing.samples) if index not in stored.broken]
    if listing.bands and len(listing.bands) != len(stored.bands):
        raise DataError(
            f"data set {listing.name}: {len(stored.bands)} bands found in {kept[0].name!r}, expected "
            f"{len(listing.bands)} ({', '.join(listing.bands)}); check that it is the data set named"
        )
    kind = np.int64 if listing.task == "scene" else np.float32
    labels = np.array([sample.label for sample in kept], kind)
    parts = np.array([sample.part for sample in kept], np.int8)
    digest = hashlib.sha256(json.dumps([key, listing.task, listing.classes, sorted(stored.broken)]).encode())
    digest.update(labels.tobytes() + parts.tobytes())
    for array in (labels, parts):
        array.flags.writeable = False
    return ImageSet(
        name=listing.name,
        task=listing.task,
        pixels=stored.pixels,
        labels=labels,
        classes=listing.classes,
        bands=listing.bands or stored.bands,
        parts=parts,
        names=tuple(sample.name for sample in kept),
        fingerprint=digest.hexdigest(),
        skipped=tuple(listing.samples[index].name for index in sorted(stored.broken)),
        zero_is_missing=stored.zero_is_missing,
    )


def _broken_text(listing: Listing, broken: dict[int, str]) -> str:
    named = "; ".join(f"{listing.samples[i].name!r} ({broken[i][:120]})" for i in sorted(broken)[:_N_NAMED])
    more = f"; and {len(broken) - _N_NAMED} more" if len(broken) > _N_NAMED else ""
    return (
        f"data set {listing.name}: {len(broken)} of {len(listing.samples)} images cannot be decoded: {named}{more}; "
        "fetch them again, or leave them out with --skip-broken"
    )


def _read(folder: Path, n_images: int) -> _Stored | None:
    """Return what a folder of the cache holds, None when it is missing or damaged."""
    try:
        about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        pixels = np.load(folder / "pixels.npy", mmap_mode="r", allow_pickle=False)
        broken = {int(index): str(reason) for index, reason in about["broken"].items()}
        bands = tuple(str(name) for name in about["bands"])
        is_whole = (
            about["check"] == fingerprint_files([folder / "pixels.npy"])
            and pixels.ndim == 4
            and pixels.shape[:2] == (n_images, len(bands))
            and all(0 <= index < n_images for index in broken)
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError):
        return None
    if not is_whole:
        return None
    return _Stored(np.asarray(pixels)[: n_images - len(broken)], bands, bool(about["zero_is_missing"]), broken)


def _fill(folder: Path, listing: Listing, progress: Progress) -> _Stored:
    """Decode all images into a folder of the cache."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    progress.start(f"decode {listing.name}", len(listing.samples))
    try:
        with (partial / "pixels.npy").open("wb") as file:
            writer = _Writer(listing, file)
            for images in _images(listing):
                for image in images:
                    writer.add(image)
                progress.advance(len(images))
            about = writer.finish()
        about["check"] = fingerprint_files([partial / "pixels.npy"])
        with (partial / "about.json").open("w", encoding="utf-8") as text:
            json.dump(about, text)
            text.flush()
            os.fsync(text.fileno())
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(partial, folder)
    finally:
        progress.finish()
        shutil.rmtree(partial, ignore_errors=True)
    stored = _read(folder, len(listing.samples))
    if stored is None:
        raise OutputError(f"{folder}: decoded images did not verify after writing; check the disk")
    return stored


class _Writer:
    """Writes images one behind the other; the places of broken ones stay empty at the end of the file."""

    def __init__(self, listing: Listing, file: BinaryIO) -> None:
        self.listing = listing
        self.file = file
        self.n_seen = 0
        self.first: tuple[str, Decoded] | None = None
        self.broken: dict[int, str] = {}

    def add(self, image: Decoded | str) -> None:
        """Write the next image, or note why there is none."""
        name = self.listing.samples[self.n_seen].name
        if isinstance(image, str):
            self.broken[self.n_seen] = image
        else:
            if self.first is None:
                self.first = (name, image)
                self._begin(image.pixels)
            _check_alike(self.listing.name, self.first, (name, image))
            self.file.write(np.ascontiguousarray(image.pixels).data)
        self.n_seen += 1

    def _begin(self, pixels: np.ndarray) -> None:
        shape = (len(self.listing.samples), *pixels.shape)
        needed, free = (
            len(self.listing.samples) * pixels.nbytes,
            shutil.disk_usage(os.path.dirname(self.file.name)).free,
        )
        if needed > free:
            raise OutputError(
                f"{self.file.name}: {free >> 20} MiB free, the decoded images of {self.listing.name} need "
                f"{(needed >> 20) + 1}; free some space, or set BERUNDA_CACHE to another folder"
            )
        header = {"descr": np.lib.format.dtype_to_descr(pixels.dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self.file, header)

    def finish(self) -> dict[str, object]:
        """Fill the file up, and return what there is to know of it."""
        if self.first is None:
            raise DataError(_broken_text(self.listing, self.broken))
        image = self.first[1]
        for _ in self.broken:
            self.file.write(bytes(image.pixels.nbytes))
        self.file.flush()
        os.fsync(self.file.fileno())
        return {
            "version": VERSION,
            "bands": image.bands,
            "zero_is_missing": image.is_raster and image.pixels.dtype.kind != "f",
            "broken": {str(index): reason for index, reason in self.broken.items()},
        }


def _check_alike(where: str, first: tuple[str, Decoded], other: tuple[str, Decoded]) -> None:
    """Raise unless two images agree in bands, size and type."""
    a, b = first[1].pixels, other[1].pixels
    if a.shape == b.shape and a.dtype == b.dtype:
        return
    told = [
        f"{name!r} has {p.shape[0]} bands of {p.shape[1]}x{p.shape[2]} px {p.dtype}"
        for name, p in ((first[0], a), (other[0], b))
    ]
    raise DataError(
        f"data set {where}: images differ: {told[0]}, {told[1]}; expected one size, number of bands and type of all: "
        "bring them to one, or keep them as data sets of their own"
    )


def _images(listing: Listing) -> Iterator[list[Decoded | str]]:
    """Yield the decoded images in order, some at a time; a text says why one cannot be decoded."""
    n_threads = min(MAX_THREADS, allowed_cores())
    samples = listing.samples
    waiting: deque[Future[list[Decoded | str]]] = deque()
    with FileReader() as files, ThreadPoolExecutor(n_threads, thread_name_prefix="decode") as pool:
        load = listing.load or (lambda samples: [_blob(files, sample) for sample in samples])
        for start in range(0, len(samples), _CHUNK):
            chunk = samples[start : start + _CHUNK]
            waiting.append(pool.submit(_decode_chunk, chunk, load(chunk), listing.side_px))
            if len(waiting) > 2 * n_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _blob(files: FileReader, sample: Sample) -> bytes | str:
    """Return a file's bytes; none of a raster of which a window is wanted, as that is read by itself."""
    return files.read(sample.file) if sample.file.window is None else b""


def _decode_chunk(samples: Sequence[Sample], blobs: Blobs, side_px: int | None) -> list[Decoded | str]:
    done: list[Decoded | str] = []
    for sample, blob in zip(samples, blobs, strict=True):
        if isinstance(blob, str):
            done.append(blob)
            continue
        try:
            if sample.file.window is not None:
                image = decode_window(sample.file.path, sample.file.window)
            elif isinstance(blob, np.ndarray):
                image = Decoded(blob, tuple(f"b{i}" for i in range(1, len(blob) + 1)), is_raster=False)
            else:
                image = decode_image(blob, sample.name, None if sample.file.member else sample.file.path)
        except Undecodable as error:
            done.append(str(error))
            continue
        done.append(image if side_px is None else image._replace(pixels=resampled(image.pixels, side_px)))
    return done
