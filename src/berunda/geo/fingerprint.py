"""Fingerprints of files: what they hold, not where they lie or when they were touched."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from berunda.geo.resolve import is_remote

__all__ = ["fingerprint_files"]

WHOLE_BYTES = 1 << 24
"""Up to this size the whole content counts."""

EDGE_BYTES = 1 << 20
SAMPLE_BYTES = 1 << 16
N_SAMPLES = 64


def fingerprint_files(paths: Sequence[Path], extra: Sequence[str] = ()) -> str:
    """Return a sha256 over the contents of files, in order, and further texts.

    Of a file over 16 MiB the size, the first and last MiB and 64 samples spread evenly count: a change
    elsewhere goes unseen. The side files that change what is read (`.msk`, `.aux.xml`) belong to their
    raster.
    """
    digest = hashlib.sha256()
    for text in extra:
        digest.update(text.encode() + b"\0")
    for path in paths:
        digest.update(_content(path))
        for suffix in (".msk", ".aux.xml"):
            side = path.with_name(path.name + suffix)
            if not is_remote(path) and side.is_file():
                digest.update(suffix.encode() + _content(side))
    return digest.hexdigest()


def _content(path: Path) -> bytes:
    """Return the digest of one file (of a remote one: of its address)."""
    digest = hashlib.sha256()
    if is_remote(path):
        digest.update(str(path).encode())
        return digest.digest()
    size = path.stat().st_size
    digest.update(str(size).encode() + b"\0")
    with path.open("rb") as file:
        if size <= WHOLE_BYTES:
            digest.update(file.read())
            return digest.digest()
        digest.update(file.read(EDGE_BYTES))
        for i in range(N_SAMPLES):
            file.seek(size * i // N_SAMPLES)
            digest.update(file.read(SAMPLE_BYTES))
        file.seek(size - EDGE_BYTES)
        digest.update(file.read(EDGE_BYTES))
    return digest.digest()
