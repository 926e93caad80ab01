"""Score by site of nets trained on all images, on a tenth of them, or on those of a single site."""

from __future__ import annotations

from berunda.bench.suite import Arm, Suite

__all__ = ["SUITE"]

SUITE = Suite(
    name="sites",
    about="score by site, trained on all, a tenth, or a single site (tables 2.2 and 2.3 of the thesis), by --data",
    dataset="",
    methods=(),
    labels=(),
    task="segmentation",
    arms=(Arm("supervised"),),
    mask_labels=("all", "0.1", "each_site"),
    split="within_sites",
)
"""Source: Castillo-Navarro 2022, section 2.2, tables 2.2 and 2.3."""
