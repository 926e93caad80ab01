"""Whether a segmenter knows more than to name every pixel by the commonest class: what tells a collapsed run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from berunda.assess.intervals import Interval, paired_bootstrap
from berunda.assess.metrics import score

__all__ = ["MajorityGain", "majority_gain"]

N_DRAWS = 2000


@dataclass(frozen=True)
class MajorityGain:
    """Mean IoU beside that of naming every pixel by the commonest class of the test images.

    Attributes:
        majority_miou: of that, a fraction of 1; None where no class has a pixel.
        gain: how much more was reached, with its 95% interval over test images; None for fewer than two of them, or
            where there is no score.
        is_collapsed: whether that is within noise: the interval reaches 0 or below (of one image: there is no gain), or
            there is no score.
    """

    majority_miou: float | None
    gain: Interval | None
    is_collapsed: bool


def majority_gain(matrices: npt.ArrayLike, *, n_draws: int = N_DRAWS, seed: int = 0) -> MajorityGain:
    """Return what the answers to test images are worth beside a constant answer.

    The constant is the commonest class of the very test images, which favours it.

    Args:
        matrices: (G, C, C) counts of each image or group of images, truth in rows, prediction in columns.
        n_draws: of the paired bootstrap.
        seed: equal seeds give equal intervals.

    Example:
        >>> found = majority_gain([[[90, 0], [10, 0]]] * 3)
        >>> found.majority_miou, found.is_collapsed
        (0.45, True)
    """
    counts = np.asarray(matrices, np.int64)
    constant = np.zeros_like(counts)
    constant[:, :, counts.sum(axis=(0, 2)).argmax()] = counts.sum(axis=2)
    reached, least = (score(part.sum(axis=0)).miou for part in (counts, constant))
    if reached is None or least is None:
        return MajorityGain(least, None, True)
    gain = paired_bootstrap(counts, constant, unit="images", n_draws=n_draws, seed=seed).miou
    return MajorityGain(least, gain, (reached - least if gain is None else gain.low) <= 0)
