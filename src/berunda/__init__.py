"""Berunda: semi-supervised learning on Earth-observation imagery.

The Python API mirrors the verbs of the command line; importing the package is cheap, the heavy parts come with the
first use.

Example:
    >>> import berunda as bd
    >>> bd.MapConfig(scenes=["scene.tif"], labels="polygons.gpkg", field="class").method_options
    {}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from berunda._version import __version__

if TYPE_CHECKING:
    from berunda.api import MapOutcome, PredictOutcome, assess, demo, info, map_scene, predict
    from berunda.config import MapConfig, load_config

__all__ = [
    "MapConfig",
    "MapOutcome",
    "PredictOutcome",
    "__version__",
    "assess",
    "demo",
    "info",
    "load_config",
    "map_scene",
    "predict",
]

_CONFIG = ("MapConfig", "load_config")


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in __all__:
        raise AttributeError(f"module 'berunda' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module("berunda.config" if name in _CONFIG else "berunda.api"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
