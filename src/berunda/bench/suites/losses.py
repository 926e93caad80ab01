"""The auxiliary losses of BerundaNet, each at its best weight, beside the supervised net."""

from __future__ import annotations

from berunda.bench.suite import Arm, Suite

__all__ = ["SUITE"]

BEST = {"l1": 0.5, "l2": 5.0, "kmeans": 1.0, "mumford_shah": 1.0, "inpainting": 5.0, "jigsaw": 0.5}
"""Best weight of each loss on Christchurch. Source: Castillo-Navarro 2022, figure 3.10."""

SUITE = Suite(
    name="losses",
    about="the six auxiliary losses of berunda at the thesis's best weights (table 3.5), by --data",
    dataset="",
    methods=(),
    labels=(),
    task="segmentation",
    arms=(
        Arm("random_forest"),
        Arm("supervised"),
        *(Arm("berunda", {"aux": aux, "lambda_u": weight}) for aux, weight in BEST.items()),
    ),
    mask_labels=("4",),
)
"""Source: Castillo-Navarro 2022, section 3.2, table 3.5."""
