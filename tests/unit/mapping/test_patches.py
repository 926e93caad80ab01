"""Whole images through a bundle: what it says, against plain restatements."""

from __future__ import annotations

import numpy as np
import pytest
from toy_mapping import toy_bundle
from toy_patches import CLASSES, scene_bundle

from berunda.assess.calibration import softmax
from berunda.assess.ood import FeatureDistance, energy
from berunda.errors import DataError
from berunda.mapping.bundle import Bundle
from berunda.mapping.patches import ScenePredictor


def images(n: int = 5, side: int = 16) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(n, 3, side, side)).astype(np.float32)


def test_answers_are_those_of_the_net_calibrated() -> None:
    bundle = scene_bundle()
    predictor = ScenePredictor(bundle, precision="fp32")
    said = predictor.predict(images())
    np.testing.assert_allclose(said.probabilities, softmax(said.logits, 1.5), rtol=1e-4)
    np.testing.assert_allclose(said.energy, energy(said.logits), rtol=1e-4)
    distance = FeatureDistance.from_arrays(bundle.distance_arrays()).distance(said.features)
    np.testing.assert_allclose(said.distance, distance, rtol=1e-3)
    np.testing.assert_array_equal(said.classes, said.logits.argmax(1))
    np.testing.assert_allclose(said.confidence, said.probabilities.max(1))


def test_logits_are_the_plain_net_on_the_resampled_images() -> None:
    import torch

    bundle = scene_bundle(crop_px=32)
    plain = bundle.build().net
    pixels = torch.from_numpy(images())
    shown = torch.nn.functional.interpolate(pixels, (32, 32), mode="bilinear", antialias=True)
    with torch.inference_mode():
        expected = plain(shown).numpy()
    said = ScenePredictor(bundle, precision="fp32").predict(images())
    np.testing.assert_allclose(said.logits, expected, rtol=1e-3, atol=1e-4)


def with_symmetries(n: int) -> ScenePredictor:
    bundle = scene_bundle()
    net = bundle.manifest.net.model_copy(update={"symmetries": n})
    return ScenePredictor(Bundle(bundle.manifest.model_copy(update={"net": net}), bundle.tensors), precision="fp32")


@pytest.mark.parametrize("n", [2, 4, 8])
def test_answers_are_means_over_the_symmetries(n: int) -> None:
    one, pixels = with_symmetries(1), images()
    seen = [pixels, pixels[:, :, ::-1, ::-1], pixels[:, :, ::-1], pixels[..., ::-1]]
    seen = (seen + [view.swapaxes(2, 3) for view in seen])[:n]
    each = [one.predict(np.ascontiguousarray(view)) for view in seen]
    said = with_symmetries(n).predict(pixels)
    np.testing.assert_allclose(said.logits, np.mean([view.logits for view in each], 0), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(said.features, np.mean([view.features for view in each], 0), rtol=1e-3, atol=1e-5)
    assert np.abs(said.logits - each[0].logits).max() > 1e-3
    plain = ScenePredictor(scene_bundle(), precision="fp32", n_symmetries=n)
    np.testing.assert_array_equal(plain.predict(pixels).logits, said.logits)


def test_with_all_eight_a_turned_image_is_the_same_image() -> None:
    predictor, pixels = with_symmetries(8), images()
    turned = np.ascontiguousarray(np.rot90(pixels, axes=(2, 3)))
    np.testing.assert_allclose(predictor.predict(turned).logits, predictor.predict(pixels).logits, rtol=1e-3, atol=1e-5)


def test_many_images_go_through_in_batches_and_keep_their_order() -> None:
    predictor = ScenePredictor(scene_bundle(), precision="fp32")
    many = images(2 * predictor.batch + 3)
    whole, last = predictor.predict(many), predictor.predict(many[-3:])
    assert whole.logits.shape == (len(many), len(CLASSES))
    np.testing.assert_array_equal(whole.logits[-3:], last.logits)


def test_several_labels_have_probabilities_of_their_own() -> None:
    predictor = ScenePredictor(scene_bundle(task="multilabel"), precision="fp32")
    said = predictor.predict(images())
    np.testing.assert_allclose(said.probabilities, 1 / (1 + np.exp(-said.logits / 1.5)), rtol=1e-4)
    np.testing.assert_allclose(said.energy, -np.logaddexp(0, said.logits).sum(1), rtol=1e-4)


def test_bf16_says_nearly_the_same() -> None:
    exact = ScenePredictor(scene_bundle(), precision="fp32").predict(images())
    coarse = ScenePredictor(scene_bundle(), precision="bf16").predict(images())
    assert coarse.logits.dtype == np.float32
    np.testing.assert_allclose(coarse.probabilities, exact.probabilities, atol=0.05)


def test_without_a_distance_layer_there_is_no_distance() -> None:
    said = ScenePredictor(scene_bundle(with_ood=False)).predict(images(2))
    assert np.isnan(said.distance).all()
    assert np.isfinite(said.energy).all()


def test_a_model_for_pixels_is_refused() -> None:
    with pytest.raises(DataError, match="'segmentation', expected one for whole images"):
        ScenePredictor(toy_bundle())
