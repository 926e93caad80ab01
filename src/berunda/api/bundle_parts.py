"""The parts of a bundle's manifest that every kind of training fills in alike: calibration and thresholds."""

from __future__ import annotations

import numpy as np

from berunda.assess.calibration import Temperature
from berunda.assess.ood import FeatureDistance, threshold_at
from berunda.mapping.manifest import Calibration, Ood

__all__ = ["calibration_part", "ood_part"]

_N_QUANTILES = 101
_LEAST_FOR_THRESHOLD = 20
"""Of fewer the 95th percentile is their largest value or nearly so."""


def calibration_part(temperature: Temperature) -> Calibration:
    """Return a fitted temperature as the manifest holds it."""
    told = temperature.as_dict()
    told["temperature"] = told.pop("value")
    return Calibration(**told)


def ood_part(
    distance: FeatureDistance,
    features: np.ndarray | None,
    energies: np.ndarray,
    what: str,
    *,
    is_density: bool = False,
) -> Ood:
    """Return the layer of unlikeness with its thresholds.

    Args:
        distance: fitted to what was trained on.
        features: (n, D) of what was held out; None as good as n = 0.
        energies: (n,) of the same.
        what: one of these in words, for the warning where there are none or few.
        is_density: whether the energies are -log p(x), so that their distribution is told as well.
    """
    if features is None or not len(energies):
        return Ood(
            kind=distance.kind,
            k=distance.k,
            warning=f"no {what} was left to set the out-of-distribution threshold on",
        )
    few = (
        f"the out-of-distribution threshold rests on {len(energies)} {what}s, expected at least {_LEAST_FOR_THRESHOLD}"
        ": what it flags is uncertain; label more"
    )
    return Ood(
        kind=distance.kind,
        k=distance.k,
        warning=few if len(energies) < _LEAST_FOR_THRESHOLD else None,
        threshold=threshold_at(distance.distance(features)),
        threshold_energy=threshold_at(energies),
        energy_quantiles=tuple(np.quantile(energies, np.linspace(0, 1, _N_QUANTILES)).tolist()) if is_density else (),
        n_pixels=len(energies),
    )
