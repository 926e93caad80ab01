"""The classical floor: a random forest on the band values of single pixels.

It is what a mapper would do without a net, and stands in every comparison on the same labels and the same
test pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from berunda.data.order import Randomness, key_of
from berunda.errors import DataError

__all__ = ["PixelForest"]

N_TREES = 200
MAX_PIXELS_PER_CLASS = 2000


class PixelForest:
    """A random forest of 200 trees on at most 2,000 training pixels a class.

    Source: Breiman, "Random Forests", Machine Learning 2001; Pal, "Random forest classifier for remote
    sensing classification", International Journal of Remote Sensing 2005.

    Args:
        seed: seed of the draw of pixels and of the forest.
        n_jobs: threads; the forest does not depend on it.
    """

    def __init__(self, seed: int, n_jobs: int = 2) -> None:
        self.seed = seed
        self.n_jobs = n_jobs
        self._forest: Any = None

    def fit(self, pixels: np.ndarray, classes: np.ndarray) -> PixelForest:
        """Train on `pixels` (n, B) with `classes` (n,) in 1..C.

        Raises:
            DataError: fewer than two classes are present.
        """
        from sklearn.ensemble import RandomForestClassifier

        present = np.unique(classes)
        if len(present) < 2:
            raise DataError(f"the forest needs pixels of at least 2 classes, found classes {present.tolist()}")
        rng = Randomness(self.seed).numpy("forest")
        kept = np.concatenate([rng.permutation(np.flatnonzero(classes == c))[:MAX_PIXELS_PER_CLASS] for c in present])
        self._forest = RandomForestClassifier(
            n_estimators=N_TREES, random_state=key_of(self.seed, "forest") % 2**31, n_jobs=self.n_jobs
        )
        self._forest.fit(pixels[kept], classes[kept])
        return self

    def probabilities(self, pixels: np.ndarray, n_classes: int) -> np.ndarray:
        """Return (n, n_classes) float64 probabilities of `pixels` (n, B); 0 for classes it was not trained on."""
        found = np.zeros((len(pixels), n_classes))
        if len(pixels):
            found[:, self._forest.classes_.astype(int) - 1] = self._forest.predict_proba(pixels)
        return found
