"""Scaling of pixels and warnings about radiometry."""

from __future__ import annotations

import numpy as np
import pytest
from toy_mapping import toy_pixels, write_raster

from berunda.data.scaling import Scaling, measure_scaling, radiometry_warnings, scale_pixels
from berunda.errors import DataError
from berunda.geo.raster import open_scenes


def test_low_and_high_become_minus_one_and_one_and_the_rest_is_clipped():
    values = np.array([[[100.0, 300.0, 500.0, -9999.0, 9999.0]]])
    scaled = scale_pixels(values, np.ones((1, 5), bool), [100.0], [500.0])
    assert scaled.dtype == np.float32
    assert scaled[0, 0].tolist() == [-1.0, 0.0, 1.0, -3.0, 3.0]


def test_invalid_pixels_become_zero_whatever_they_hold():
    values = np.array([[[np.nan, np.inf, 7.0]]])
    scaled = scale_pixels(values, np.array([[False, False, True]]), [0.0], [7.0])
    assert scaled[0, 0].tolist() == [0.0, 0.0, 1.0]


def test_other_number_of_bands_is_refused():
    with pytest.raises(DataError, match="expected \\(2 bands"):
        scale_pixels(np.zeros((3, 2, 2)), np.ones((2, 2), bool), [0, 0], [1, 1])


def test_measured_percentiles_are_those_of_the_valid_pixels(tmp_path):
    pixels = toy_pixels(300, 300)
    scene = open_scenes([write_raster(tmp_path / "s.tif", pixels)])[0]
    low, high = measure_scaling(scene)
    valid = (pixels > 0).all(0)
    expected = np.percentile(pixels[:, valid].astype(np.float32), (1, 99), axis=1)
    np.testing.assert_allclose([low, high], expected)


def test_measuring_is_repeatable_and_sampled_on_larger_scenes(tmp_path):
    scene = open_scenes([write_raster(tmp_path / "s.tif", toy_pixels(700, 2300))])[0]
    first, second = measure_scaling(scene), measure_scaling(scene)
    np.testing.assert_array_equal(first, second)
    pixels = toy_pixels(700, 2300)
    expected = np.percentile(pixels[:, (pixels > 0).all(0)], (1, 99), axis=1)
    np.testing.assert_allclose(first, expected, rtol=0.05, atol=10)


def test_several_scenes_are_measured_together(tmp_path):
    low_scene = open_scenes([write_raster(tmp_path / "a.tif", np.full((1, 50, 50), 10, np.uint16))])[0]
    high_scene = open_scenes([write_raster(tmp_path / "b.tif", np.full((1, 50, 50), 90, np.uint16))])[0]
    low, high = measure_scaling([low_scene, high_scene])
    assert (low[0], high[0]) == (10, 90)


def test_a_constant_band_keeps_a_width(tmp_path):
    scene = open_scenes([write_raster(tmp_path / "s.tif", np.full((2, 20, 20), 5, np.uint16))])[0]
    low, high = measure_scaling(scene)
    assert low.tolist() == [5, 5]
    assert high.tolist() == [6, 6]


def test_a_scene_without_data_is_an_error(tmp_path):
    scene = open_scenes([write_raster(tmp_path / "void.tif", np.zeros((1, 20, 20), np.uint16))])[0]
    with pytest.raises(DataError, match="void: no valid pixel"):
        measure_scaling(scene)


@pytest.mark.parametrize(
    ("low", "high", "far"),
    [
        (100, 1100, False),
        (200, 1300, False),  # a season
        (1100, 2100, True),  # an added offset
        (0.01, 0.11, True),  # other units
        (100, 6000, True),  # under cloud
    ],
)
def test_radiometry_far_from_training_is_told_by_band(low, high, far):
    trained = Scaling(np.array([100.0, 100.0]), np.array([1100.0, 1100.0]))
    measured = Scaling(np.array([100.0, low]), np.array([1100.0, high]))
    warnings = radiometry_warnings(["B02", "B8A"], trained, measured)
    assert bool(warnings) is far
    if far:
        assert "B8A" in warnings[0]
        assert "B02" not in warnings[0]
