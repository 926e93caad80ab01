"""UC Merced with its 17 labels an image, from few labelled images."""

from __future__ import annotations

from berunda.bench.suite import Arm, Suite

__all__ = ["SUITE"]

_VIT = "vit_mini_patch16"
_EVERY = ("0.01", "0.05", "0.1", "0.25")
_GRID = (0.3, 0.5, 0.9)

SUITE = Suite(
    name="ucmerced_multilabel",
    about="UC Merced, 17 labels an image, at 1 to 25% of the labels: the packaged encoder, and a small transformer "
    "from scratch; 56 trainings of at most 3 minutes, about two hours on two cores",
    dataset="ucmerced",
    methods=(),
    labels=("0.05", "0.1"),
    n_seeds=2,
    steps=65,
    task="multilabel",
    arms=(
        Arm("features_logreg", labels=_EVERY),
        Arm("features_propagate", labels=_EVERY),
        Arm("supervised"),
        Arm("supervised", small_batch=True, labels=_EVERY),
        Arm("fixmatch", {"mu": 3.0}),
        Arm("propagate", {"alpha_later": 0.7, "graphs": 4}, labels=_EVERY),
        Arm("supervised", encoder=_VIT),
        Arm("supervised", encoder=_VIT, small_batch=True),
        Arm("fixmatch", {"mu": 3.0}, encoder=_VIT),
        Arm("ssl_mae", encoder=_VIT, search={"w": _GRID}, title="SSL-MAE-GS"),
        Arm("ssl_mae", {"weighting": "raw"}, encoder=_VIT, title="SSL-MAE-w_l"),
        Arm("ssl_mae", {"mu": 0.0}, encoder=_VIT, small_batch=True, title="SSL-MAE, labelled images alone"),
    ),
)
"""SSL-MAE-GS chooses w on validation images, SSL-MAE-w_l learns it in the published form, and without unlabelled images
both terms see the labelled ones alone, at w = 0.5. Few steps: three unlabelled images for each labelled one leave
FixMatch twice as many as its seven would. How far answers spread (alpha_later) was chosen on validation images, with
frozen features and logistic regressions in the place of the net.

Source: Stoimchev et al. 2025, IEEE JSTARS.
"""
