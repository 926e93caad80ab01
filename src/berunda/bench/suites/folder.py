"""Any data set that the options name with its folder."""

from __future__ import annotations

from berunda.bench.suite import FLOORS, Arm, Suite

__all__ = ["SUITE"]

SUITE = Suite(
    name="folder",
    about="any folder with one sub-directory a class, or with images/ and masks/, any table, or data set, by --data",
    dataset="",
    methods=(*FLOORS, "supervised", "fixmatch"),
    labels=("5", "20", "all"),
    task=None,
    arms=(Arm("random_forest"), Arm("supervised"), Arm("fixmatch")),
    mask_labels=("1", "4", "all"),
)
