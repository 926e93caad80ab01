"""The hierarchical VAE beside the same net trained supervised."""

from __future__ import annotations

from berunda.bench.suite import Arm, Suite

__all__ = ["SUITE"]

SUITE = Suite(
    name="hvae",
    about="hvae beside the same net supervised, at 4 and 16 labelled images, by --data (benchmarks/hvae.py runs it)",
    dataset="",
    methods=(),
    labels=(),
    steps=300,
    task="segmentation",
    arms=(Arm("random_forest"), Arm("supervised"), Arm("hvae")),
    mask_labels=("4", "16"),
)
