"""Berunda: semi-supervised learning on Earth-observation imagery.

The Python API mirrors the verbs of the command line; importing the package is cheap, the heavy parts come with the
first use.

Example:
    >>> import berunda as bd
    >>> bd.MapConfig(scenes=["scene.tif"], labels="polygons.gpkg", field="class").method_options
    {}
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from berunda._version import __version__

if TYPE_CHECKING:
    from berunda.api import (
        AnalyzeOutcome,
        AuditOutcome,
        BenchOutcome,
        MapOutcome,
        MaskOutcome,
        PatchOutcome,
        PredictOutcome,
        SplitOutcome,
        TrainOutcome,
        analyze,
        assess,
        audit,
        bench,
        build_tiny,
        datasets,
        demo,
        fetch_dataset,
        from_dataset,
        info,
        map_scene,
        predict,
        split,
        train,
        write_dfc22_submission,
    )
    from berunda.config import MapConfig, load_config
    from berunda.options.analyze import AnalyzeOptions, SplitOptions
    from berunda.options.bench import BenchOptions
    from berunda.options.train import TrainOptions, load_train_options

__all__ = [
    "AnalyzeOptions",
    "AnalyzeOutcome",
    "AuditOutcome",
    "BenchOptions",
    "BenchOutcome",
    "MapConfig",
    "MapOutcome",
    "MaskOutcome",
    "PatchOutcome",
    "PredictOutcome",
    "SplitOptions",
    "SplitOutcome",
    "TrainOptions",
    "TrainOutcome",
    "__version__",
    "analyze",
    "assess",
    "audit",
    "bench",
    "build_tiny",
    "datasets",
    "demo",
    "fetch_dataset",
    "from_dataset",
    "info",
    "load_config",
    "load_train_options",
    "map_scene",
    "predict",
    "split",
    "train",
    "write_dfc22_submission",
]

_HOMES = {
    "AnalyzeOptions": "berunda.options.analyze",
    "BenchOptions": "berunda.options.bench",
    "MapConfig": "berunda.config",
    "SplitOptions": "berunda.options.analyze",
    "TrainOptions": "berunda.options.train",
    "load_config": "berunda.config",
    "load_train_options": "berunda.options.train",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in __all__:
        raise AttributeError(f"module 'berunda' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES.get(name, "berunda.api")), name)


class _Room(ModuleType):
    """A room of the package that has the name of a verb: calling it calls the verb."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        import importlib

        return getattr(importlib.import_module("berunda.api"), self.__name__.rpartition(".")[2])(*args, **options)


class _Package(ModuleType):
    """This package: when the rooms `train`, `bench` and `assess` are imported they take the places of the verbs."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in __all__ and isinstance(value, ModuleType):
            value.__class__ = _Room
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __dir__() -> list[str]:
    return sorted(__all__)
