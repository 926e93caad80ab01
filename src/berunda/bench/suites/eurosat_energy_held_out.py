"""How energy-based classifiers of seven classes of EuroSAT tell the images of the three others."""

from __future__ import annotations

from berunda.bench.suite import Arm, Suite
from berunda.bench.suites.eurosat_energy import BEST, OPTIONS, STEPS, UNLIKE

__all__ = ["HELD_OUT_CLASSES", "SUITE"]

HELD_OUT_CLASSES = ("HerbaceousVegetation", "Highway", "SeaLake")
"""One class near to others (Pasture), one that hides in others (River), one far from all."""

SUITE = Suite(
    name="eurosat_energy_held_out",
    about="JEM and its kin trained without three classes of EuroSAT, and their images (20 minutes on two cores)",
    dataset="eurosat",
    methods=(),
    labels=("10",),
    n_seeds=1,
    steps=STEPS,
    arms=(
        Arm("supervised"),
        Arm("fixmatch"),
        Arm("jem", BEST),
        Arm("fixmatch_jem", {"form": "joint", **BEST}),
    ),
    options=OPTIONS,
    held_out=HELD_OUT_CLASSES,
    unlike=UNLIKE,
)
"""A table of its own: its accuracies are over seven classes, those of `eurosat_energy` over ten."""
