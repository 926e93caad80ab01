"""Looks at single images: what is hidden, what is refilled, and that occlusion finds what an answer rests on."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from toy_patches import mae_bundle, scene_bundle

from berunda.mapping.looks import hide_cells, occlusion, refill
from berunda.mapping.patches import ScenePredictor


@pytest.mark.parametrize(("side", "cell"), [(64, 16), (24, 8)])
@pytest.mark.parametrize("ratio", [0.0, 0.75, 1.0])
def test_whole_cells_are_hidden_each_image_its_own(side: int, cell: int, ratio: float) -> None:
    visible = hide_cells(20, side, ratio, 0)
    cells = visible.reshape(20, side // cell, cell, side // cell, cell)
    assert (cells == cells[:, :, :1, :, :1]).all()
    n = (side // cell) ** 2
    hidden = (~cells[:, :, 0, :, 0]).reshape(20, -1).sum(1)
    assert set(hidden) == {min(max(1, round(ratio * n)), n - 1)}
    assert len({row.tobytes() for row in visible}) > 1
    np.testing.assert_array_equal(visible, hide_cells(20, side, ratio, 0))


def test_a_method_that_fills_nothing_refills_nothing() -> None:
    assert refill(scene_bundle(), np.zeros((2, 3, 16, 16), np.float32)) is None


def test_what_is_visible_stays_and_the_rest_is_guessed() -> None:
    pixels = np.random.default_rng(0).normal(size=(3, 3, 32, 32)).astype(np.float32)
    found = refill(mae_bundle(crop_px=32), pixels)
    assert found is not None
    shown, visible, filled = found
    np.testing.assert_array_equal(shown, pixels)
    same = (filled == shown).all(1)
    assert same[visible].all()
    assert not same[~visible].any()


def test_guesses_without_brightness_are_shown_with_that_of_the_image() -> None:
    pixels = np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32)
    pixels[1] = 0.25 * pixels[1] + 4
    found = refill(mae_bundle(crop_px=64, normalise=True), pixels)
    assert found is not None
    shown, visible, filled = found
    hidden = np.broadcast_to(~visible[:, None], shown.shape)
    np.testing.assert_array_equal(filled[~hidden], shown[~hidden])
    brightness = [filled[i][hidden[i]].mean() for i in range(2)]
    assert brightness == pytest.approx([shown[i][hidden[i]].mean() for i in range(2)], abs=0.8)
    assert brightness[1] > brightness[0] + 2


def test_as_much_is_hidden_as_in_training() -> None:
    for ratio in (0.25, 0.5, 0.75):
        found = refill(mae_bundle(crop_px=64, mask_ratio=ratio), np.zeros((1, 3, 64, 64), np.float32))
        assert found is not None
        assert 1 - found[1].mean() == ratio


def test_occlusion_finds_the_part_that_an_answer_rests_on() -> None:
    def predict(pixels: np.ndarray) -> SimpleNamespace:
        """Class 1 is the brightness of one corner, class 0 of nothing."""
        corner = pixels[:, 0, :4, 12:16].mean((1, 2))
        return SimpleNamespace(logits=np.stack([0 * corner, corner], 1))

    pixels = np.zeros((2, 16, 16), np.float32)
    pixels[0, :4, 12:16] = 8
    fall = occlusion(SimpleNamespace(predict=predict), pixels, [1, 0], grid=4)  # type: ignore[arg-type]
    assert fall.shape == (2, 4, 4)
    expected = np.zeros((4, 4))
    expected[0, 3] = 8 - pixels[0].mean()
    np.testing.assert_allclose(fall[0], expected, atol=1e-6)
    assert not fall[1].any()


def test_occlusion_takes_images_that_no_grid_divides() -> None:
    fall = occlusion(ScenePredictor(scene_bundle()), np.ones((3, 19, 23), np.float32), [2], grid=8)
    assert fall.shape == (1, 8, 8)
    np.testing.assert_allclose(fall, 0, atol=1e-5)
