"""Methods that classify images on EuroSAT in colour at five labels a class: a survey of two seeds."""

from __future__ import annotations

from berunda.bench.suite import FLOORS, Suite

__all__ = ["SUITE"]

_SHARPENED = ("fixmatch", "flexmatch", "freematch", "softmatch", "adamatch", "defixmatch", "mixmatch", "pseudo_label")
_CONSISTENT = ("pi_model", "mean_teacher", "vat")

SUITE = Suite(
    name="eurosat_all",
    about="the classifiers of images on EuroSAT RGB at 5 labels per class, two seeds (about 2 hours on two cores)",
    dataset="eurosat",
    methods=(*FLOORS, "supervised", *_CONSISTENT, *_SHARPENED, "propagate", "berunda"),
    labels=("5",),
    n_seeds=2,
    steps=550,
)
"""Methods that rest on another net, a transformer or one that makes images too, have suites of their own."""
