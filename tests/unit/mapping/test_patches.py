"""Whole images through a bundle: what it says, against plain restatements."""

from __future__ import annotations

import numpy as np
import pytest
from toy_mapping import toy_bundle
from toy_patches import CLASSES, scene_bundle

from berunda.assess.calibration import softmax
from berunda.assess.ood import FeatureDistance, energy
from berunda.errors import DataError
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
