"""What tells a collapsed segmenter: its score beside that of naming every pixel by the commonest class."""

from __future__ import annotations

import numpy as np
import pytest

from berunda.assess.majority import majority_gain

COMMON, RARE = 80, 20


def images(right_of_common: list[int], right_of_rare: list[int]) -> np.ndarray:
    """Return matrices of images with 80 pixels of a class and 20 of another, of which so many are right."""
    pairs = zip(right_of_common, right_of_rare, strict=True)
    return np.array([[[a, COMMON - a], [RARE - b, b]] for a, b in pairs])


def test_the_constant_is_the_commonest_class() -> None:
    found = majority_gain(images([70, 75, 72], [15, 18, 16]))
    assert found.majority_miou == pytest.approx(0.8 / 2)  # IoU 80 / 100 of the one class, 0 of the other
    assert found.gain is not None
    assert found.gain.low > 0.2
    assert not found.is_collapsed


def test_naming_the_commonest_class_everywhere_is_collapsed() -> None:
    assert majority_gain(images([80, 80, 80], [0, 0, 0])).is_collapsed


def test_naming_a_rare_class_everywhere_is_collapsed() -> None:
    assert majority_gain(images([0, 0, 0], [20, 20, 20])).is_collapsed


def test_a_gain_within_noise_is_collapsed() -> None:
    """Two of three images are a little better than the constant, one is far worse: other images would turn the sign."""
    found = majority_gain(images([80, 80, 30], [5, 5, 0]))
    assert found.gain is not None
    assert found.gain.low < 0
    assert found.is_collapsed


def test_a_single_image_has_no_interval_and_is_told_by_its_score() -> None:
    better, worse = majority_gain(images([75], [15])), majority_gain(images([40], [5]))
    assert better.gain is None
    assert (better.is_collapsed, worse.is_collapsed) == (False, True)


def test_without_a_true_pixel_there_is_no_score() -> None:
    found = majority_gain(np.zeros((2, 2, 2), np.int64))
    assert (found.majority_miou, found.gain, found.is_collapsed) == (None, None, True)
