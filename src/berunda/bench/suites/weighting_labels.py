"""What it does to SSL-MAE to learn the weight between classification and reconstruction, in each of the forms."""

from __future__ import annotations

from berunda.bench.suite import Arm, Suite
from berunda.bench.suites.weighting import LEARNED

__all__ = ["SUITE"]

_VIT = "vit_mini_patch16"

SUITE = Suite(
    name="weighting_labels",
    about="ssl_mae on UC Merced, 17 labels an image, a tenth of the labels, its weight fixed or learned in three forms",
    dataset="ucmerced",
    methods=(),
    labels=("0.1",),
    n_seeds=2,
    steps=65,
    task="multilabel",
    arms=(
        Arm("supervised", encoder=_VIT, small_batch=True),
        Arm("ssl_mae", encoder=_VIT),
        *(Arm("ssl_mae", {"weighting": form}, encoder=_VIT) for form in LEARNED),
    ),
)
"""Source: Stoimchev et al. 2025, IEEE JSTARS; Kendall et al. 2018, eq. 10 (uncertainty)."""
