"""Sets of images: their checks, their scaling, and how pixels become what nets see."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from toy_images import image_set

from berunda.data.images import TEST, TRAIN, UNLABELLED
from berunda.data.scaling import Scaling, scale_pixels
from berunda.errors import DataError


def test_parts_are_found_by_index() -> None:
    images = image_set([0, 1, -1, 0], 2, [TRAIN, TEST, UNLABELLED, TRAIN])
    assert images.of(TRAIN).tolist() == [0, 3]
    assert images.of(UNLABELLED).tolist() == [2]
    assert len(images) == 4
    assert images.size == (8, 8)


@pytest.mark.parametrize("change", [{"names": ("a",)}, {"bands": ("red",)}, {"parts": np.zeros(2, np.int8)}])
def test_arrays_that_do_not_fit_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(DataError, match="expected"):
        replace(image_set([0, 1, 0], 2), **change)


def test_images_of_two_parts_are_found_by_all_their_pixels() -> None:
    images = image_set([0] * 8, 1, [TRAIN] * 3 + [TEST] * 4 + [UNLABELLED])
    pixels = images.pixels.copy()
    pixels[1] = pixels[2]
    pixels[4] = pixels[6] = pixels[2]
    pixels[5] = pixels[0]
    pixels[5, 2, 0, 0] ^= 1  # alike in the row that is looked at first, not elsewhere
    pixels[7] = pixels[3]
    assert replace(images, pixels=pixels).repeats == ((7, 3), (1, 4), (1, 6)), "one trains without its label"
    assert images.repeats == ()


def test_scaling_is_that_of_training_and_unlabelled_images_only() -> None:
    images = image_set([0] * 10 + [1] * 10, 2, [TRAIN] * 5 + [UNLABELLED] * 5 + [TEST] * 10)
    pixels = images.pixels.copy()
    pixels[10:] = 255
    pixels[:, 2] = 7
    images = replace(images, pixels=pixels)
    low, high = images.scaling()
    expected = np.percentile(pixels[:10].transpose(1, 0, 2, 3).reshape(3, -1), (1, 99), axis=1)
    np.testing.assert_allclose(low, expected[0])
    np.testing.assert_allclose(high[:2], expected[1][:2])
    assert high[2] == low[2] + 1
    assert images.scaling() is images.scaling()


def test_scaled_images_are_those_that_mapping_makes_of_the_same_pixels() -> None:
    images = image_set([0, 1, 0], 2)
    scaling = Scaling(np.array([3.0, 50.0, 100.0]), np.array([200.0, 60.0, 101.0]))
    scaled = images.scaled(np.array([2, 0]), scaling)
    for got, index in zip(scaled, (2, 0), strict=True):
        twin = scale_pixels(images.pixels[index].astype(np.float32), np.ones((8, 8), bool), *scaling)
        np.testing.assert_array_equal(got, twin)
    assert scaled.dtype == np.float32


def test_scaling_of_another_number_of_bands_is_refused() -> None:
    with pytest.raises(DataError, match="3 bands found"):
        image_set([0, 1], 2).scaled(np.array([0]), Scaling(np.zeros(13), np.ones(13)))


@pytest.mark.parametrize("kind", ["zero", "nan"])
def test_pixels_without_data_become_zero_and_are_told(kind: str) -> None:
    images = image_set([0, 1], 2)
    pixels = np.maximum(images.pixels, 1).astype(np.uint16 if kind == "zero" else np.float32)
    pixels[0, :, 2, 3] = 0 if kind == "zero" else np.nan
    images = replace(images, pixels=pixels, zero_is_missing=kind == "zero")
    low, _ = images.scaling()
    assert np.isfinite(low).all()
    assert (low > 0).all()
    scaled, valid = images.scaled_and_valid(np.array([0, 1]))
    assert np.argwhere(~valid).tolist() == [[0, 2, 3]]
    assert (scaled[0, :, 2, 3] == 0).all()
    assert np.isfinite(scaled).all()


def test_black_is_data_in_photographs() -> None:
    images = image_set([0, 1], 2)
    images = replace(images, pixels=np.zeros_like(images.pixels))
    assert images.scaled_and_valid(np.array([0])).valid.all()


def test_without_training_images_there_is_no_scaling() -> None:
    with pytest.raises(DataError, match="without a valid pixel"):
        image_set([0, 1], 2, [TEST, TEST]).scaling()


def test_data_sets_are_found_without_torch() -> None:
    code = (
        "import sys, berunda.data.images, berunda.data.catalog as c, berunda.data.subsets, berunda.data.decode; "
        "c.entries(); print([name for name in ('torch', 'rasterio', 'h5py', 'PIL') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
