"""The classical floor."""

from __future__ import annotations

import numpy as np
import pytest

from berunda.assess.forest import PixelForest
from berunda.errors import DataError


def blobs(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    classes = rng.integers(1, 4, 600)
    return (rng.normal(size=(600, 4)) + classes[:, None] * 3).astype(np.float32), classes


def test_it_learns_and_gives_probabilities_in_the_order_of_the_ids() -> None:
    pixels, classes = blobs()
    forest = PixelForest(0, n_jobs=1).fit(pixels, classes)
    other, truth = blobs(1)
    found = forest.probabilities(other, 4)
    assert found.shape == (600, 4)
    np.testing.assert_allclose(found.sum(1), 1)
    assert (found[:, 3] == 0).all()  # a class without training pixels
    assert (found.argmax(1) + 1 == truth).mean() > 0.9


def test_the_seed_decides_and_the_number_of_threads_does_not() -> None:
    pixels, classes = blobs()
    forests = (PixelForest(seed, n_jobs=n).fit(pixels, classes) for seed, n in ((0, 1), (0, 2), (1, 1)))
    one, two, other = (forest.probabilities(pixels, 3) for forest in forests)
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()


def test_one_class_is_an_error() -> None:
    with pytest.raises(DataError, match="at least 2 classes"):
        PixelForest(0).fit(np.zeros((3, 2)), np.ones(3, int))
