"""UC Merced with its 17 labels an image, from few labelled images."""

from __future__ import annotations

from berunda.bench.suite import Arm, Suite

__all__ = ["SUITE"]

_VIT = "vit_mini_patch16"
_EVERY = ("0.01", "0.05", "0.1", "0.25")
_GRID = (0.1, 0.3, 0.5, 0.7, 0.9)
_SHARES = (0.25, 0.5, 0.75, 1.0)

SUITE = Suite(
    name="ucmerced_multilabel",
    about="UC Merced, 17 labels an image, at 1 to 25% of the labels: a small transformer, and the packaged encoder",
    dataset="ucmerced",
    methods=(),
    labels=("0.05", "0.1"),
    n_seeds=2,
    task="multilabel",
    arms=(
        Arm("features_logreg"),
        Arm("supervised", labels=_EVERY),
        Arm("fixmatch", labels=_EVERY),
        Arm("fixmatch", labels=("0.05",), search={"prior_share": _SHARES}),
        Arm("mean_teacher"),
        Arm("supervised", encoder=_VIT, labels=_EVERY),
        Arm("fixmatch", encoder=_VIT),
        Arm("ssl_mae", {"weighting": "fixed"}, encoder=_VIT, search={"w": _GRID}),
        Arm("ssl_mae", {"weighting": "raw"}, encoder=_VIT),
        Arm("ssl_mae", {"weighting": "normalised"}, encoder=_VIT),
        Arm("ssl_mae", {"weighting": "uncertainty"}, encoder=_VIT),
        Arm("ssl_mae", {"mu": 0.0}, encoder=_VIT),
    ),
)
"""ssl_mae with w searched is SSL-MAE-GS, with raw weighting SSL-MAE-w_l; with mu=0 it sees labelled images alone.

Source: Stoimchev et al. 2025, IEEE JSTARS."""
