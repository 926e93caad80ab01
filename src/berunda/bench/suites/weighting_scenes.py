"""What it does to FixMatch to learn the weight of its unlabelled loss, in each of the forms."""

from __future__ import annotations

from berunda.bench.suite import Arm, Suite
from berunda.bench.suites.weighting import LEARNED

__all__ = ["SUITE"]

SUITE = Suite(
    name="weighting_scenes",
    about="fixmatch on EuroSAT RGB at 5 labels per class, its weight fixed or learned in three forms, three seeds",
    dataset="eurosat",
    methods=(),
    labels=("5",),
    steps=550,
    arms=(Arm("supervised"), Arm("fixmatch"), *(Arm("fixmatch", {"weighting": form}) for form in LEARNED)),
)
"""The rows hold the curve of the weight."""
