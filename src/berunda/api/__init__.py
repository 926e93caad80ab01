"""The Python API: one function for each verb of the command line, each returning a small typed result.

Names are imported on first use, so that a file's verdict does not wait for torch. No file here has the name of a
function: importing it would put the file in the function's place.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from berunda.api.analyze_verb import analyze
    from berunda.api.bench_verb import bench
    from berunda.api.datasets_verb import datasets
    from berunda.api.demo_verb import demo
    from berunda.api.generate_verb import GenerateOutcome, generate
    from berunda.api.info_verb import info
    from berunda.api.inpaint_verb import inpaint
    from berunda.api.map_verb import map_scene
    from berunda.api.outcome import (
        BenchOutcome,
        InpaintOutcome,
        MapOutcome,
        MaskOutcome,
        PatchOutcome,
        PredictOutcome,
        TrainOutcome,
    )
    from berunda.api.predict_verb import predict
    from berunda.api.site_outcome import AnalyzeOutcome, AuditOutcome, SplitOutcome
    from berunda.api.split_verb import audit, split
    from berunda.api.submission import write_dfc22_submission
    from berunda.api.train_verb import train
    from berunda.assess.run import assess_map as assess
    from berunda.data.adapters import from_dataset
    from berunda.data.fetch import fetch_dataset
    from berunda.data.masks.tiny import build_tiny

__all__ = [
    "AnalyzeOutcome",
    "AuditOutcome",
    "BenchOutcome",
    "GenerateOutcome",
    "InpaintOutcome",
    "MapOutcome",
    "MaskOutcome",
    "PatchOutcome",
    "PredictOutcome",
    "SplitOutcome",
    "TrainOutcome",
    "analyze",
    "assess",
    "audit",
    "bench",
    "build_tiny",
    "datasets",
    "demo",
    "fetch_dataset",
    "from_dataset",
    "generate",
    "info",
    "inpaint",
    "map_scene",
    "predict",
    "split",
    "train",
    "write_dfc22_submission",
]

_HOMES = {
    "AnalyzeOutcome": ("berunda.api.site_outcome", "AnalyzeOutcome"),
    "AuditOutcome": ("berunda.api.site_outcome", "AuditOutcome"),
    "BenchOutcome": ("berunda.api.outcome", "BenchOutcome"),
    "GenerateOutcome": ("berunda.api.generate_verb", "GenerateOutcome"),
    "InpaintOutcome": ("berunda.api.outcome", "InpaintOutcome"),
    "MapOutcome": ("berunda.api.outcome", "MapOutcome"),
    "MaskOutcome": ("berunda.api.outcome", "MaskOutcome"),
    "PatchOutcome": ("berunda.api.outcome", "PatchOutcome"),
    "PredictOutcome": ("berunda.api.outcome", "PredictOutcome"),
    "SplitOutcome": ("berunda.api.site_outcome", "SplitOutcome"),
    "TrainOutcome": ("berunda.api.outcome", "TrainOutcome"),
    "analyze": ("berunda.api.analyze_verb", "analyze"),
    "assess": ("berunda.assess.run", "assess_map"),
    "audit": ("berunda.api.split_verb", "audit"),
    "bench": ("berunda.api.bench_verb", "bench"),
    "build_tiny": ("berunda.data.masks.tiny", "build_tiny"),
    "datasets": ("berunda.api.datasets_verb", "datasets"),
    "demo": ("berunda.api.demo_verb", "demo"),
    "fetch_dataset": ("berunda.data.fetch", "fetch_dataset"),
    "from_dataset": ("berunda.data.adapters", "from_dataset"),
    "generate": ("berunda.api.generate_verb", "generate"),
    "info": ("berunda.api.info_verb", "info"),
    "inpaint": ("berunda.api.inpaint_verb", "inpaint"),
    "map_scene": ("berunda.api.map_verb", "map_scene"),
    "predict": ("berunda.api.predict_verb", "predict"),
    "split": ("berunda.api.split_verb", "split"),
    "train": ("berunda.api.train_verb", "train"),
    "write_dfc22_submission": ("berunda.api.submission", "write_dfc22_submission"),
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'berunda.api' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(importlib.import_module(module), attribute)
