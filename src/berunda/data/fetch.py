"""Fetching a published data set, when that is asked for: by https alone, into place only when its checksum is right."""

from __future__ import annotations

import hashlib
import os
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any

from berunda.data.catalog import load
from berunda.data.catalog.contract import Download
from berunda.errors import FetchError, SecurityError
from berunda.progress import Progress, Silent

__all__ = ["fetch_dataset"]

TIMEOUT_S = 30.0
_CHUNK = 1 << 20

Open = Callable[[str], IO[bytes]]


def fetch_dataset(
    name: str, folder: Path | None = None, *, progress: Progress | None = None, open_url: Open | None = None
) -> Path:
    """Fetch the files of a data set that are not there yet; return their folder.

    Args:
        name: of the data set in the catalogue.
        folder: where to; None for the first place where the data set is looked for.
        progress: told how it goes, in MiB.
        open_url: opens an address for reading; None for https.

    Raises:
        DataError: there is no such data set, or its files can only be fetched by hand; the message says how.
        SecurityError: what came does not have the pinned checksum; nothing of it is kept.
        FetchError: it could not be fetched.
    """
    entry = load(name)
    places = entry.places()
    into = folder or (places[0] if places else None)
    by_hand = [item for item in entry.downloads if item.checksum is None or not item.url.endswith(item.file)]
    if into is None or by_hand or not entry.downloads:
        raise entry.missing(folder)
    into.mkdir(parents=True, exist_ok=True)
    for item in entry.downloads:
        if not (into / item.file).exists():
            _fetch(item, into, progress or Silent(), open_url or _open_https)
    return into


def _fetch(item: Download, into: Path, progress: Progress, open_url: Open) -> None:
    partial = into / f".{item.file}.{os.getpid()}.partial"
    kind, _, expected = (item.checksum or "").partition(":")
    digest = hashlib.new(kind, usedforsecurity=False)
    try:
        with open_url(item.url) as source, partial.open("xb") as target:
            n_bytes = getattr(source, "length", None) or 1
            progress.start(f"fetch {item.file} (MiB)", -(-n_bytes // _CHUNK))
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                target.write(chunk)
                progress.advance()
            target.flush()
            os.fsync(target.fileno())
        if digest.hexdigest() != expected:
            raise SecurityError(
                f"{item.url}: {kind} {digest.hexdigest()} found, expected {expected}; nothing of it is kept"
            )
        os.replace(partial, into / item.file)
    except (OSError, HTTPException) as error:
        raise FetchError(
            f"{item.url} cannot be fetched: {error}; fetch {item.file} by other means and put it into {into}"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
        progress.finish()


class _OnlyHttps(urllib.request.HTTPRedirectHandler):
    """Follows an address to another one only by https."""

    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: str) -> Any:
        """Refuse other kinds of addresses."""
        if not newurl.startswith("https://"):
            raise SecurityError(f"{req.full_url} leads to {newurl}: refused, expected https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open_https(url: str) -> IO[bytes]:
    if not url.startswith("https://"):
        raise SecurityError(f"{url}: refused, expected https")
    opened: IO[bytes] = urllib.request.build_opener(_OnlyHttps).open(url, timeout=TIMEOUT_S)
    return opened
