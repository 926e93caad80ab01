"""Decode once: images and masks of a listing become two memory-mapped arrays in the cache, keyed by their content.

They lie in `<cache>/masks/<data set>-<key>/`: `pixels.npy`, `labels.npy` and `about.json`. Sizes are compared before
any pixel is read; the folder is filled beside its place under a lock and renamed when it is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from berunda.cache import cache_folder
from berunda.data.listing import File
from berunda.data.masks.files import Header, MaskFiles
from berunda.data.masks.images import MaskSet
from berunda.data.masks.listing import MaskListing, MaskSample
from berunda.data.masks.schema import NO_DATA, NO_LABEL
from berunda.data.store import content_key, folder_name, locked_folder, writing_store
from berunda.errors import DataError, OutputError
from berunda.geo.fingerprint import fingerprint_files
from berunda.progress import Progress, Silent

__all__ = ["decoded_masks"]

VERSION = 1
"""Part of every key: a change in how images or masks are decoded gives another number, and so other arrays."""
_ARRAYS = ("pixels.npy", "labels.npy")
_N_NAMED = 5


def decoded_masks(listing: MaskListing, *, cache: Path | None = None, progress: Progress | None = None) -> MaskSet:
    """Return the images and masks of a listing; those seen before come from the cache.

    Args:
        listing: the images, their masks and parts.
        cache: folder of the cache; None for `berunda.cache.cache_folder()`.
        progress: told how the decoding goes.

    Raises:
        DataError: a file cannot be decoded, a mask has another size than its image or values outside the schema, or
            images differ in bands or type.
        SecurityError: a file was refused by policy.
        OutputError: the cache cannot be written.
    """
    start, decoding_s = time.perf_counter(), 0.0
    store, told = (cache or cache_folder()) / "masks", progress or Silent()
    with writing_store(store):
        schema = listing.schema
        head = json.dumps([VERSION, schema.kind, sorted(schema.codes), [len(s.images) for s in listing.samples]])
        key = content_key(head, _named_files(listing), store)
        folder = store / folder_name(listing.name, key)
        about = _read(folder)
        if about is None:
            missing_at = time.perf_counter()
            with locked_folder(folder, told):
                about = _read(folder) or _fill(folder, listing, told)
            decoding_s = time.perf_counter() - missing_at
        masks = _mask_set(listing, key, folder, about)
        return replace(masks, opening_s=time.perf_counter() - start - decoding_s)


def _named_files(listing: MaskListing) -> list[tuple[str, File]]:
    named: list[tuple[str, File]] = []
    for sample in listing.samples:
        named += [(f"{sample.name}|{number}", file) for number, file in enumerate(sample.images)]
        named += [(f"{sample.name}|mask", sample.mask)] if sample.mask is not None else []
    return named


def _mask_set(listing: MaskListing, key: str, folder: Path, about: dict[str, Any]) -> MaskSet:
    samples = listing.samples
    bands: tuple[str, ...] = tuple(about["bands"])
    if listing.bands and len(listing.bands) != len(bands):
        raise DataError(
            f"data set {listing.name}: {len(bands)} bands found in {samples[0].name!r}, expected {len(listing.bands)} "
            f"({', '.join(listing.bands)}); check that it is the data set named"
        )
    parts = np.array([sample.part for sample in samples], np.int8)
    digest = hashlib.sha256(json.dumps([key, listing.schema.names, [s.site for s in samples]]).encode())
    digest.update(parts.tobytes())
    pixels, labels = (np.asarray(np.load(folder / name, mmap_mode="r", allow_pickle=False)) for name in _ARRAYS)
    return MaskSet(
        name=listing.name,
        classes=listing.schema.names,
        colors=listing.schema.colors,
        bands=listing.bands or bands,
        names=tuple(sample.name for sample in samples),
        parts=parts,
        sites=tuple(sample.site for sample in samples),
        has_mask=np.array([sample.mask is not None for sample in samples]),
        sizes=np.array(about["sizes"], np.int64).reshape(-1, 2),
        flat_pixels=pixels,
        flat_labels=labels,
        fingerprint=digest.hexdigest(),
    )


def _read(folder: Path) -> dict[str, Any] | None:
    """Return what a folder of the cache tells of itself, None when it is missing or damaged."""
    try:
        about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        is_whole = about["checks"] == [fingerprint_files([folder / name]) for name in _ARRAYS]
        n_pixels = sum(rows * cols for rows, cols in about["sizes"])
        pixels, labels = (np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in _ARRAYS)
        fits = pixels.shape == (n_pixels * len(about["bands"]),) and labels.shape == (n_pixels,)
    except (OSError, ValueError, KeyError, TypeError, EOFError, AttributeError):
        return None
    return dict(about) if is_whole and fits else None


def _fill(folder: Path, listing: MaskListing, progress: Progress) -> dict[str, Any]:
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        with MaskFiles() as files:
            headers = _headers(files, listing)
            _decode(files, listing, headers, partial, progress)
        about: dict[str, Any] = {
            "version": VERSION,
            "bands": headers[0].bands,
            "sizes": [[header.rows, header.cols] for header in headers],
            "checks": [fingerprint_files([partial / name]) for name in _ARRAYS],
        }
        with (partial / "about.json").open("w", encoding="utf-8") as text:
            json.dump(about, text)
            text.flush()
            os.fsync(text.fileno())
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    found = _read(folder)
    if found is None:
        raise OutputError(f"{folder}: decoded images did not verify after writing; check the disk")
    return found


def _headers(files: MaskFiles, listing: MaskListing) -> list[Header]:
    """Return the headers of all images, after comparing their bands and the sizes of their masks.

    Raises:
        DataError: images differ in bands, or masks have other sizes; all are counted, the first ones named.
    """
    headers, unlike = [], []
    for sample in listing.samples:
        header = files.header(sample.name, sample.images)
        headers.append(header)
        if sample.mask is not None:
            rows, cols = files.whole_size(_mask_name(sample), (sample.mask,))
            is_part = sample.mask.window is not None  # its image's file and its own are on one grid all the same
            size = files.whole_size(sample.name, sample.images) if is_part else (header.rows, header.cols)
            if (rows, cols) != size:
                unlike.append(f"{_mask_name(sample)} has {cols} x {rows} px, {sample.name} {size[1]} x {size[0]}")
    if unlike:
        more = f"; and {len(unlike) - _N_NAMED} more" if len(unlike) > _N_NAMED else ""
        raise DataError(
            f"data set {listing.name}: {len(unlike)} masks of another size than their image: "
            f"{'; '.join(unlike[:_N_NAMED])}{more}; expected equal sizes: correct the pairs, or export the masks anew"
        )
    first = headers[0]
    for sample, header in zip(listing.samples, headers, strict=True):
        if len(header.bands) != len(first.bands) or header.kind != first.kind:
            raise DataError(
                f"data set {listing.name}: images differ: {listing.samples[0].name!r} has {len(first.bands)} bands of "
                f"{first.kind}, {sample.name!r} {len(header.bands)} of {header.kind}; expected the same of all"
            )
    return headers


def _decode(
    files: MaskFiles, listing: MaskListing, headers: Sequence[Header], folder: Path, progress: Progress
) -> None:
    """Write the arrays."""
    n_pixels, first = sum(header.rows * header.cols for header in headers), headers[0]
    n_bands = len(first.bands)
    needed, free = n_pixels * (n_bands * first.kind.itemsize + 1), shutil.disk_usage(folder).free
    if needed > free:
        raise OutputError(
            f"{folder}: {free >> 20} MiB free, the decoded images of {listing.name} need {(needed >> 20) + 1}; free "
            "some space, set BERUNDA_CACHE to another folder, or take a smaller set (tinyminifrance for minifrance)"
        )
    pixels = np.lib.format.open_memmap(folder / _ARRAYS[0], "w+", first.kind, (n_pixels * n_bands,))
    labels = np.lib.format.open_memmap(folder / _ARRAYS[1], "w+", np.uint8, (n_pixels,))
    labels[:] = NO_LABEL
    progress.start(f"decode {listing.name}", len(headers))
    try:
        start = 0
        for sample, header in zip(listing.samples, headers, strict=True):
            stop = start + header.rows * header.cols
            image = pixels[start * n_bands : stop * n_bands].reshape(n_bands, header.rows, header.cols)
            plane = labels[start:stop].reshape(header.rows, header.cols)
            files.fill(sample.name, sample.images, image, plane, NO_DATA)
            _fill_labels(files, listing, sample, plane)
            start = stop
            progress.advance()
    finally:
        progress.finish()
    pixels.flush()
    labels.flush()


def _fill_labels(files: MaskFiles, listing: MaskListing, sample: MaskSample, plane: np.ndarray) -> None:
    """Write a mask's class numbers into `plane` (rows, columns), where the image has data."""
    if sample.mask is None:
        return
    name = _mask_name(sample)
    values, has_value = files.mask(name, sample.mask, listing.schema.kind)
    if has_value is not None:  # what a raster declares as nodata is no value: any that the schema knows stands in
        values = np.where(has_value, values, listing.schema.codes[0][0])
    codes = listing.schema.classes_of(values, name)
    if has_value is not None:
        codes = np.where(has_value, codes, np.uint8(NO_LABEL))
    plane[:] = np.where(plane == NO_DATA, plane, codes)


def _mask_name(sample: MaskSample) -> str:
    """Return the name of a mask's file, for messages."""
    assert sample.mask is not None
    return sample.mask.member or "/".join(sample.mask.path.parts[-3:])
