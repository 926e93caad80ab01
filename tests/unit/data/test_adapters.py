"""Data sets of other packages as input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from berunda.data.adapters import from_dataset
from berunda.data.images import NO_LABEL, TEST, TRAIN, UNLABELLED
from berunda.data.subsets import label_subset
from berunda.errors import DataError


class Items(list):
    """A list of items with names of classes, as torchvision's and torchgeo's data sets have."""

    classes = ("sea", "land")


def pairs(n: int, seed: int = 0) -> Items:
    pixels = torch.rand(n, 4, 6, 5, generator=torch.Generator().manual_seed(seed))
    return Items((pixels[i], i % 2) for i in range(n))


def test_tensors_and_numbers() -> None:
    items = pairs(20)
    images = from_dataset(items)
    assert images.task == "scene"
    assert images.pixels.dtype == np.float32
    np.testing.assert_array_equal(images.pixels[3], items[3][0].numpy())
    assert images.labels.tolist() == [0, 1] * 10
    assert images.classes == ("sea", "land")
    assert np.bincount(images.parts).tolist() == [12, 4, 4]
    assert len(label_subset(images, 2)) == 4
    assert images.fingerprint == from_dataset(pairs(20)).fingerprint != from_dataset(pairs(20, 1)).fingerprint


def test_mappings_of_several_labels_with_parts() -> None:
    items = [{"image": np.full((3, 4, 4), i, np.int32), "label": torch.tensor([1, 0, 1])} for i in range(4)]
    images = from_dataset(items, test=items[:1], unlabelled=[{"image": items[0]["image"]}], name="mine")
    assert images.task == "multilabel"
    assert images.name == "mine"
    assert images.parts.tolist() == [TRAIN] * 4 + [TEST, UNLABELLED]
    assert images.labels[0].tolist() == [1, 0, 1]
    assert np.isnan(images.labels[-1]).all()
    assert images.classes == ("0", "1", "2")
    assert images.pixels.dtype == np.float32


def test_pictures_are_turned_and_labels_of_unlabelled_ones_not_looked_at() -> None:
    picture = Image.new("RGB", (5, 4), (1, 2, 3))
    images = from_dataset([(picture, 0), (picture, 1)], unlabelled=[(picture, 1)])
    assert images.pixels.shape == (3, 3, 4, 5)
    assert images.pixels[0, :, 0, 0].tolist() == [1, 2, 3]
    assert images.labels.tolist() == [0, 1, NO_LABEL]


def test_a_data_set_of_torchvision() -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    transforms = pytest.importorskip("torchvision.transforms")
    images = from_dataset(datasets.FakeData(10, (3, 8, 8), 2, transform=transforms.ToTensor()))
    assert images.pixels.shape == (10, 3, 8, 8)
    assert images.classes == ("0", "1")


def test_bands_have_the_names_given_else_the_data_sets_own_else_those_of_colours() -> None:
    def bands(n: int, own: Any = None, **given: Any) -> tuple[str, ...]:
        items = Items([(np.zeros((n, 4, 4), np.uint8), 0)])
        items.bands = own  # type: ignore[attr-defined]
        return from_dataset(items, **given).bands

    assert bands(3) == ("red", "green", "blue")
    assert bands(2) == ("b1", "b2")
    assert bands(3, ("B08", "B04", "B03")) == ("B08", "B04", "B03")
    assert bands(3, ("B08", "B04", "B03"), bands=("x", "y", "z")) == ("x", "y", "z")
    assert bands(3, ("B08", "B04")) == ("red", "green", "blue"), "the data set names bands that it does not show"
    with pytest.raises(DataError, match="3 bands found, 2 names given: x, y"):
        bands(3, bands=("x", "y"))


@pytest.mark.parametrize(
    ("items", "told"),
    [
        ([], "no images"),
        ([3], "train item 0: int found"),
        ([(np.zeros((3, 4)), 0)], "image of shape"),
        ([(np.zeros((3, 4, 4)), 0), (np.zeros((3, 4, 5)), 0)], "'train/0' is .* 'train/1' is"),
        ([(np.zeros((3, 4, 4)), None)], "no item has a label"),
        ([(np.zeros((3, 4, 4)), 0), (np.zeros((3, 4, 4)), [1, 0])], "label of 'train/1'"),
        ([(np.zeros((3, 4, 4)), "sea")], "label of 'train/0'"),
        ([(np.zeros((3, 4, 4)), -2)], "class number -2"),
    ],
)
def test_other_things_are_told(items: list[Any], told: str) -> None:
    with pytest.raises(DataError, match=told):
        from_dataset(items)
