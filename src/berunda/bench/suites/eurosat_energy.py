"""Energy-based classifiers of EuroSAT at 32 px on a small net, beside what they are made of."""

from __future__ import annotations

from collections.abc import Mapping

from berunda.bench.suite import Arm, Plain, Suite

__all__ = ["BEST", "OPTIONS", "STEPS", "SUITE", "UNLIKE"]

BEST = {"variant": "sada"}
"""The variant of JEM that is trained with 100 labels a class too; the joint method and the pipeline have it."""

STEPS = 2000
"""Of FixMatch, 331,000 image passes: about 5 minutes a run on two cores."""

OPTIONS: Mapping[str, Plain] = {"encoder": "wide_resnet10_1_no_norm", "image_px": 32, "symmetries": 1}
"""A net whose sampling two cores can bear; one answer to an image, so that its energy is that of the density."""

UNLIKE = {"UC Merced": "ucmerced"}

_BOTH = ("10", "100")

SUITE = Suite(
    name="eurosat_energy",
    about="JEM, FixMatch with JEM and VAE on EuroSAT at 32 px: samples, unlike images (about 2 hours on two cores)",
    dataset="eurosat",
    methods=(),
    labels=("10",),
    n_seeds=2,
    steps=STEPS,
    arms=(
        Arm("supervised", labels=_BOTH),
        Arm("fixmatch", labels=_BOTH),
        Arm("jem", {"variant": "jem"}),
        Arm("jem", {"variant": "jem++"}),
        Arm("jem", BEST, labels=_BOTH),
        Arm("fixmatch_jem", {"form": "pipeline", **BEST}),
        Arm("fixmatch_jem", {"form": "joint", **BEST}, labels=_BOTH),
        Arm("vae", {"width": 8}),
    ),
    options=OPTIONS,
    unlike=UNLIKE,
    n_samples=1000,
)
"""The generator of `vae` is as narrow as the net: at its default width a pass would cost four times as much as one of
the net's, and passes are what runs have equally many of.

Source: Castillo-Navarro 2022, sections 4.2 and 4.3.5; the joint method is our own."""
