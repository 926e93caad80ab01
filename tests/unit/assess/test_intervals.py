"""Bootstrap intervals: coverage, pairing, determinism, and when there is none."""

from __future__ import annotations

import json

import numpy as np
import pytest

from berunda.assess.intervals import Interval, accuracy_difference, bootstrap_interval, paired_bootstrap
from berunda.errors import DataError


def groups(seed: int, n_groups: int = 40, accuracy: float = 0.7, spread: float = 0.15) -> np.ndarray:
    """Draw (G, 2, 2) matrices of polygons of 100 pixels, one class each, whose accuracies differ."""
    rng = np.random.default_rng(seed)
    out = np.zeros((n_groups, 2, 2), int)
    right = rng.binomial(100, np.clip(rng.normal(accuracy, spread, n_groups), 0, 1))
    own = np.arange(n_groups) % 2
    out[np.arange(n_groups), own, own] = right
    out[np.arange(n_groups), own, 1 - own] = 100 - right
    return out


def test_interval_covers_the_true_accuracy_about_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(200):
        found = bootstrap_interval(groups(seed), n_draws=200).oa
        assert found is not None
        covered += found.low <= 0.7 <= found.high
    assert 0.88 <= covered / 200 <= 0.99


def test_interval_equals_a_plain_loop_over_resampled_groups() -> None:
    matrices = groups(3, 12)
    rng = np.random.default_rng(5)
    accuracy = []
    for _ in range(4000):
        total = matrices[rng.integers(12, size=12)].sum(0)
        accuracy.append(np.trace(total) / total.sum())
    found = bootstrap_interval(matrices, n_draws=4000).oa
    assert found is not None
    np.testing.assert_allclose((found.low, found.high), np.quantile(accuracy, [0.025, 0.975]), atol=0.01)
    assert found.estimate == pytest.approx(np.trace(matrices.sum(0)) / matrices.sum())


def test_equal_seeds_give_equal_intervals_and_other_seeds_do_not() -> None:
    matrices = groups(0)
    assert bootstrap_interval(matrices, seed=4) == bootstrap_interval(matrices, seed=4)
    assert bootstrap_interval(matrices, seed=4) != bootstrap_interval(matrices, seed=5)


def test_one_group_has_no_interval() -> None:
    found = bootstrap_interval(groups(0, 1), unit="blocks")
    assert found.oa is found.miou is found.iou[0] is None
    assert (found.n_groups, found.unit) == (1, "blocks")
    assert bootstrap_interval(np.zeros((0, 2, 2))).oa is None


def test_class_in_one_group_only_has_no_interval_of_its_own() -> None:
    found = bootstrap_interval([[[5, 1], [0, 0]], [[4, 0], [0, 0]], [[0, 0], [2, 3]]])
    assert found.iou[0] is not None
    assert found.iou[1] is None


def test_pairing_is_tighter_than_two_intervals_apart() -> None:
    worse = groups(1)
    better = worse.copy()
    own = np.arange(len(worse)) % 2
    moved = worse[np.arange(len(worse)), own, 1 - own] // 10
    better[np.arange(len(worse)), own, own] += moved
    better[np.arange(len(worse)), own, 1 - own] -= moved
    difference = paired_bootstrap(better, worse)
    assert difference.oa is not None
    assert difference.miou is not None
    assert difference.oa.excludes(0)
    assert difference.oa.low > 0
    alone = bootstrap_interval(worse).oa
    assert alone is not None
    assert difference.oa.high - difference.oa.low < (alone.high - alone.low) / 3
    same = paired_bootstrap(worse, worse)
    assert same.oa == Interval(0, 0, 0)


def test_pairing_refuses_different_pixels() -> None:
    with pytest.raises(DataError, match="different pixels"):
        paired_bootstrap(groups(1), groups(1)[:-1])
    with pytest.raises(DataError, match="different pixels"):
        paired_bootstrap([[[1, 0], [0, 1]]], [[[1, 1], [0, 0]]])
    with pytest.raises(DataError, match="expected \\(groups, classes, classes\\)"):
        bootstrap_interval(np.zeros((2, 3)))


def test_intervals_are_plain_json_values() -> None:
    text = json.dumps([bootstrap_interval(groups(0)).as_dict(), paired_bootstrap(groups(0), groups(0)).as_dict()])
    assert '"unit": "polygons"' in text


def test_accuracy_difference_covers_the_true_one() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for draw in range(200):
        right_a, right_b = rng.random((2, 400)) < 0.8, rng.random((3, 400)) < 0.7
        found = accuracy_difference(right_a, right_b, n_draws=1000, seed=draw)
        assert found is not None
        assert found.estimate == pytest.approx(right_a.mean() - right_b.mean())
        hits += found.low <= 0.1 <= found.high
    assert 180 <= hits <= 199


def test_accuracy_difference_equals_resampling_images_one_by_one() -> None:
    rng = np.random.default_rng(1)
    right_a, right_b = rng.random((3, 300)) < 0.9, rng.random((2, 300)) < 0.85
    found = accuracy_difference(right_a, right_b)
    gap = right_a.mean(0) - right_b.mean(0)
    drawn = gap[rng.integers(0, 300, (10_000, 300))].mean(1)
    assert found is not None
    np.testing.assert_allclose([found.low, found.high], np.quantile(drawn, [0.025, 0.975]), atol=2e-3)


def test_accuracy_difference_needs_the_same_images() -> None:
    with pytest.raises(DataError, match="3 and 4 images"):
        accuracy_difference(np.ones((2, 3), bool), np.ones((1, 4), bool))
    assert accuracy_difference([True], [False]) is None
    same = accuracy_difference(np.ones(9, bool), np.ones(9, bool))
    assert same is not None
    assert (same.low, same.high) == (0.0, 0.0)
