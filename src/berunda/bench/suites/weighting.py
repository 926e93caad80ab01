"""What it does to BerundaNet to learn the weight of its auxiliary task, in each of the forms."""

from __future__ import annotations

from berunda.bench.suite import Arm, Suite

__all__ = ["LEARNED", "SUITE"]

LEARNED = ("raw", "normalised", "uncertainty")

SUITE = Suite(
    name="weighting",
    about="berunda with the weight of its auxiliary task fixed, or learned in three forms, by --data",
    dataset="",
    methods=(),
    labels=(),
    task="segmentation",
    arms=(Arm("supervised"), Arm("berunda"), *(Arm("berunda", {"weighting": form}) for form in LEARNED)),
    mask_labels=("4",),
)
"""Another auxiliary task, for all of them: --option berunda.aux=l1. The rows hold the curve of the weight.

Source: Stoimchev et al. 2025 (SSL-MAE); Kendall et al. 2018, eq. 10."""
