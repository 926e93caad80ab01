"""Aerial images of Dubai, by tile: 1, 4 and 16 labelled images of six tiles, tested on the two others."""

from __future__ import annotations

from berunda.bench.suite import Arm, Suite
from berunda.bench.suites.losses import BEST

__all__ = ["SUITE"]

SUITE = Suite(
    name="dubai",
    about="Dubai aerial images, split by tile, at 1, 4 and 16 labelled images, every method",
    dataset="dubai",
    methods=(),
    labels=("4",),
    n_seeds=2,
    task="segmentation",
    arms=(
        Arm("random_forest"),
        Arm("supervised"),
        Arm("mean_teacher"),
        Arm("mixmatch"),
        Arm("fixmatch"),
        Arm("unimatch"),
        *(Arm("berunda", {"aux": aux, "lambda_u": weight}) for aux, weight in BEST.items()),
        Arm("berunda", {"aux": "kmeans", "lambda_u": BEST["kmeans"], "split": "early"}),
        Arm("wnet"),
        Arm("cotrain"),
    ),
    mask_labels=("1", "4", "16"),
)
