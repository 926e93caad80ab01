"""Labelled subsets: nested, stratified, drawn by the seed, and checked before anything is trained."""

from __future__ import annotations

import numpy as np
import pytest
from toy_images import image_set

from berunda.data.images import TEST, TRAIN, UNLABELLED, VALIDATION, ImageSet
from berunda.data.subsets import label_subset, stratified_order, validation_subset
from berunda.errors import DataError

LABELS = [0] * 40 + [1] * 20 + [2] * 20 + [-1] * 10
PARTS = ([TRAIN] * 20 + [VALIDATION] * 10 + [TEST] * 10) + ([TRAIN] * 10 + [VALIDATION] * 10) * 2 + [UNLABELLED] * 10
SCENES = image_set(LABELS, 3, PARTS)


def several(n: int = 400) -> ImageSet:
    rng = np.random.default_rng(3)
    share = np.array([0.6, 0.3, 0.1, 0.05, 0.02])
    labels = (rng.random((n, 5)) < share).astype(float)
    labels[:3, 4] = 1
    return image_set(labels, 5)


def test_subsets_are_nested_balanced_and_of_the_training_part() -> None:
    before: set[int] = set()
    for n in (1, 2, 5, 10):
        chosen = label_subset(SCENES, n, "per_class", 0)
        assert np.bincount(SCENES.labels[chosen]).tolist() == [n] * 3
        assert (SCENES.parts[chosen] == TRAIN).all()
        assert before <= set(chosen.tolist())
        assert (np.diff(chosen) > 0).all()
        before = set(chosen.tolist())


def test_seeds_differ_and_repeat() -> None:
    assert label_subset(SCENES, 5, seed=1).tolist() == label_subset(SCENES, 5, seed=1).tolist()
    assert label_subset(SCENES, 5, seed=1).tolist() != label_subset(SCENES, 5, seed=2).tolist()


def test_fractions_keep_the_shares_and_every_class() -> None:
    small, large = label_subset(SCENES, 0.01, "fraction"), label_subset(SCENES, 0.5, "fraction")
    assert np.bincount(SCENES.labels[small]).tolist() == [1, 1, 1]
    assert np.bincount(SCENES.labels[large]).tolist() == [10, 5, 5]
    assert set(small) <= set(large)


def test_all_is_all_labelled_training_images() -> None:
    assert label_subset(SCENES, "all").tolist() == SCENES.of(TRAIN).tolist()


def test_more_labels_than_there_are_is_told_by_class() -> None:
    with pytest.raises(DataError, match="11 labels a class asked for, but 'class1' has 10, 'class2' has 10"):
        label_subset(SCENES, 11)


def test_a_class_without_labels_is_named() -> None:
    with pytest.raises(DataError, match="class 'class2' has no labelled training image"):
        label_subset(image_set([0, 1, 2], 3, [TRAIN, TRAIN, TEST]), 1)
    with pytest.raises(DataError, match="no classes"):
        label_subset(image_set([-1, -1], 0), 1)


@pytest.mark.parametrize(
    ("n", "unit"),
    [
        (0, "per_class"),
        (1.5, "per_class"),
        ("some", "per_class"),
        (True, "per_class"),
        (0, "fraction"),
        (2, "fraction"),
    ],
)
def test_wrong_numbers_are_told(n: object, unit: str) -> None:
    with pytest.raises(DataError, match="found, expected"):
        label_subset(SCENES, n, unit)  # type: ignore[arg-type]


def test_a_wrong_unit_is_told() -> None:
    with pytest.raises(DataError, match="expected per_class or fraction"):
        label_subset(SCENES, 1, "images")  # type: ignore[arg-type]


def test_several_labels_come_in_proportion_and_nested() -> None:
    images = several()
    total = images.labels.sum(0)
    before: set[int] = set()
    for share in (0.05, 0.1, 0.25, 0.5):
        chosen = label_subset(images, share, "fraction", 4)
        assert len(chosen) == round(share * 400)
        held = images.labels[chosen].sum(0)
        assert (held >= 1).all()
        assert (abs(held - share * total) <= 2.5).all(), (share, held, share * total)
        assert before <= set(chosen.tolist())
        before = set(chosen.tolist())


def test_order_of_several_labels_is_a_permutation_and_begins_with_every_label() -> None:
    present = several().labels == 1
    order = stratified_order(present, np.random.default_rng(0))
    assert sorted(order.tolist()) == list(range(400))
    assert present[order[:8]].any(axis=0).all()
    empty = ~present[order].any(axis=1)
    halves = empty[:200].sum(), empty[200:].sum()
    assert abs(int(halves[0]) - int(halves[1])) <= 2, "images without labels are spread evenly"


def test_order_of_no_and_of_bare_images() -> None:
    rng = np.random.default_rng(0)
    assert stratified_order(np.zeros((0, 3), bool), rng).tolist() == []
    assert sorted(stratified_order(np.zeros((4, 3), bool), rng).tolist()) == [0, 1, 2, 3]


def test_number_of_several_labels_counts_for_each_class() -> None:
    assert len(label_subset(several(), 4)) == 20
    with pytest.raises(DataError, match="405 labelled images asked for"):
        label_subset(several(), 81)


def test_validation_labels_are_at_most_the_training_labels_and_balanced() -> None:
    chosen = validation_subset(SCENES, 6)
    assert np.bincount(SCENES.labels[chosen]).tolist() == [2, 2, 2]
    assert (SCENES.parts[chosen] == VALIDATION).all()
    assert set(chosen) <= set(validation_subset(SCENES, 12))
    assert len(validation_subset(SCENES, 1000)) == 30
    assert len(validation_subset(several(), 10)) == 0
