"""How the weight of an auxiliary loss of BerundaNet decides the score."""

from __future__ import annotations

from berunda.bench.suite import Arm, Suite
from berunda.bench.suites.losses import BEST

__all__ = ["SUITE"]

WEIGHTS = (0.1, 0.5, 1.0, 5.0, 10.0)

SUITE = Suite(
    name="lambdas",
    about="weights of the auxiliary losses of berunda (figure 3.10 of the thesis), by --data",
    dataset="",
    methods=(),
    labels=(),
    task="segmentation",
    arms=(
        Arm("supervised"),
        *(Arm("berunda", {"aux": aux, "lambda_u": weight}) for aux in BEST for weight in WEIGHTS),
    ),
    mask_labels=("4",),
)
"""Source: Castillo-Navarro 2022, section 3.2, figure 3.10; its best weights are .5, 5, 1, 1, 5 and .5 in this order."""
