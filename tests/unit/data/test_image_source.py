"""Batches from a set of images."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_images import image_set

from berunda.data.image_source import ImageSource
from berunda.data.order import Randomness
from berunda.errors import DataError

LABELS = [0] * 2 + [1] * 10 + [2] * 10 + [-1] * 30
IMAGES = image_set(LABELS, 3)
LABELLED, FREE = np.arange(22), np.arange(52)


@pytest.fixture
def source() -> ImageSource:
    return ImageSource(IMAGES, LABELLED, FREE, IMAGES.scaling())


def test_classes_take_turns_without_repeats_while_there_are_enough(source: ImageSource) -> None:
    for step in range(20):
        batch = source.labelled(Randomness(0).at(step), 16)
        assert batch.labels is not None
        counts = np.bincount(batch.labels.numpy(), minlength=3)
        assert set(counts.tolist()) <= {5, 6}
        for number in (1, 2):
            held = batch.index[batch.labels == number].tolist()
            assert len(set(held)) == len(held)
        rare = batch.index[batch.labels == 0].tolist()
        assert {rare.count(i) for i in (0, 1)} <= {2, 3}, "the two images of the rare class come equally often"


def test_batches_smaller_than_the_classes_visit_all_classes(source: ImageSource) -> None:
    seen = {int(number) for step in range(30) for number in source.labelled(Randomness(0).at(step), 2).labels}
    assert seen == {0, 1, 2}


def test_pixels_and_labels_are_those_of_the_index(source: ImageSource) -> None:
    batch = source.labelled(Randomness(3), 6)
    np.testing.assert_array_equal(batch.pixels.numpy(), IMAGES.scaled(LABELLED[batch.index.numpy()]))
    assert batch.labels.tolist() == [LABELS[i] for i in batch.index]
    assert batch.pixels.dtype == torch.float32
    assert batch.valid.shape == (6, 8, 8)
    assert batch.valid.all()
    free = source.unlabelled(Randomness(3), 6)
    assert free.labels is None
    np.testing.assert_array_equal(free.pixels.numpy(), IMAGES.scaled(FREE[free.index.numpy()]))


def test_unlabelled_images_do_not_repeat_within_a_batch(source: ImageSource) -> None:
    batch = source.unlabelled(Randomness(0), 52)
    assert sorted(batch.index.tolist()) == list(range(52))
    assert len(source.unlabelled(Randomness(0), 120).index) == 120


def test_draws_depend_on_the_keys_alone(source: ImageSource) -> None:
    again = ImageSource(IMAGES, LABELLED, FREE, IMAGES.scaling())
    source.labelled(Randomness(9), 5)
    for draw in ("labelled", "unlabelled"):
        one, two = getattr(source, draw)(Randomness(1).at(4), 16), getattr(again, draw)(Randomness(1).at(4), 16)
        assert torch.equal(one.pixels, two.pixels)
        assert torch.equal(one.index, two.index)
        assert not torch.equal(one.index, getattr(source, draw)(Randomness(1).at(5), 16).index)


def test_the_index_counts_within_the_stream() -> None:
    source = ImageSource(IMAGES, np.array([1, 5, 15]), np.array([40, 50]), IMAGES.scaling())
    assert set(source.labelled(Randomness(0), 6).index.tolist()) == {0, 1, 2}
    assert set(source.unlabelled(Randomness(0), 2).index.tolist()) == {0, 1}


def test_without_unlabelled_images() -> None:
    source = ImageSource(IMAGES, LABELLED, np.array([], int), IMAGES.scaling())
    assert not source.has_unlabelled
    with pytest.raises(DataError, match="0 unlabelled images found"):
        source.unlabelled(Randomness(0), 4)


def test_images_without_label_cannot_be_labelled() -> None:
    with pytest.raises(DataError, match=r"'30.png' has no label"):
        ImageSource(IMAGES, np.array([0, 30]), FREE, IMAGES.scaling())
    with pytest.raises(DataError, match="0 labelled images"):
        ImageSource(IMAGES, np.array([], int), FREE, IMAGES.scaling())


def test_soft_labels_take_the_place_of_numbers() -> None:
    soft = np.random.default_rng(0).dirichlet(np.ones(3), 52)
    source = ImageSource(IMAGES, FREE, FREE, IMAGES.scaling(), soft)
    batch = source.labelled(Randomness(0), 9)
    np.testing.assert_allclose(batch.labels.numpy(), soft[batch.index.numpy()], rtol=1e-6)
    assert np.bincount(batch.labels.argmax(1)).tolist() == [3, 3, 3]
    with pytest.raises(DataError, match="soft labels of shape"):
        ImageSource(IMAGES, FREE, FREE, IMAGES.scaling(), soft[:10])


def test_several_labels_come_as_they_are() -> None:
    values = np.array([[1, 0], [0, np.nan], [1, 1], [np.nan, np.nan]])
    images = image_set(values, 2)
    source = ImageSource(images, np.arange(3), np.arange(4), images.scaling())
    batch = source.labelled(Randomness(0), 3)
    np.testing.assert_array_equal(batch.labels.numpy(), values[batch.index.numpy()].astype(np.float32))


def test_a_batch_of_eurosat_size_is_drawn_in_milliseconds() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (52, 3, 64, 64), dtype=np.uint8)[np.arange(520) % 52]
    labels = np.arange(520) % 3
    images = replace(image_set(labels, 3), pixels=pixels)
    source = ImageSource(images, np.arange(520), np.arange(520), images.scaling())
    spent = []
    for step in range(10):
        began = time.process_time()
        source.unlabelled(Randomness(0).at(step), 96)
        spent.append(time.process_time() - began)
    assert min(spent) < 0.02, spent
