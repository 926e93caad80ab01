"""Score against the number of labelled images, over several draws of them."""

from __future__ import annotations

from berunda.bench.suite import Arm, Suite

__all__ = ["SUITE"]

SUITE = Suite(
    name="curve",
    about="score of the supervised net against labelled images, 5 draws each (figure 2.1 of the thesis), by --data",
    dataset="",
    methods=(),
    labels=(),
    n_seeds=5,
    task="segmentation",
    arms=(Arm("random_forest"), Arm("supervised")),
    mask_labels=("1", "2", "4", "8", "12"),
)
"""Source: Castillo-Navarro 2022, section 2.2, figure 2.1: Vaihingen, 12 tiles down to 1."""
