"""The predictor: its answers against plain restatements."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from toy_mapping import toy_bundle, toy_pixels

from berunda.assess.calibration import softmax
from berunda.assess.ood import FeatureDistance, energy
from berunda.errors import CheckpointError, DataError
from berunda.mapping.bundle import Bundle, make_tensors
from berunda.mapping.manifest import Ood
from berunda.mapping.predictor import Predictor


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return toy_bundle()


@pytest.fixture(scope="module")
def predictor(bundle) -> Predictor:
    return Predictor(bundle, "cpu", precision="fp32")


def window(seed=0, px=64):
    values = toy_pixels(px, px, seed=seed).astype(np.float32)
    return values, (values > 0).all(0)


def test_class_confidence_and_energy_are_those_of_the_logits(bundle, predictor):
    values, valid = window()
    planes = predictor.predict_window(values, valid)
    scaled = predictor.scale(values, valid)
    _, logits = predictor.features_and_logits(torch.from_numpy(scaled)[None])
    inner = logits[0].permute(1, 2, 0).numpy()[16:48, 16:48]
    seen = valid[16:48, 16:48]
    probability = softmax(inner, bundle.manifest.calibration.temperature)
    np.testing.assert_array_equal(planes.classes, np.where(seen, inner.argmax(-1) + 1, 0))
    np.testing.assert_allclose(planes.confidence[seen], probability.max(-1)[seen], rtol=1e-5)
    np.testing.assert_allclose(planes.energy[seen], energy(inner)[seen], rtol=1e-4, atol=1e-5)
    assert planes.classes.dtype == np.uint8
    assert {a.dtype for a in planes.arrays()[1:]} == {np.dtype(np.float32)}


def test_without_data_there_is_no_answer(predictor):
    values, valid = window()
    planes = predictor.predict_window(values, valid)
    away = ~valid[16:48, 16:48]
    assert away.any()
    assert (planes.classes[away] == 0).all()
    assert (planes.classes[~away] > 0).all()
    for plane in planes.arrays()[1:]:
        assert np.isnan(plane[away]).all()
        assert np.isfinite(plane[~away]).all()


def test_what_stands_in_invalid_pixels_does_not_matter(predictor):
    values, valid = window()
    other = np.where(valid, values, np.nan)
    for a, b in zip(
        predictor.predict_window(values, valid).arrays(),
        predictor.predict_window(other, valid).arrays(),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("kind", "k"), [("mahalanobis", 1), ("knn", 1), ("knn", 7)])
def test_the_distance_agrees_with_the_fitted_one(bundle, kind, k):
    draw = np.random.default_rng(1)
    values, valid = window(3)
    plain = Predictor(bundle, precision="fp32")
    features, _ = plain.features_and_logits(torch.from_numpy(plain.scale(values, valid))[None])
    flat = features[0].permute(1, 2, 0).numpy()
    fitted = FeatureDistance.fit(flat[:20, :20].reshape(400, -1), draw.integers(0, 4, 400), kind=kind, k=k)
    ood = Ood(kind=kind, k=fitted.k, threshold=1.0)
    built = bundle.build()
    tensors = make_tensors(built.method, built.net, built.extra, fitted.as_arrays())
    other = Bundle(bundle.manifest.model_copy(update={"ood": ood}), tensors)
    planes = Predictor(other, precision="fp32").predict_window(values, valid)
    expected = fitted.distance(flat[16:48, 16:48])
    seen = valid[16:48, 16:48]
    np.testing.assert_allclose(planes.distance[seen], expected[seen], rtol=2e-3, atol=2e-2)
    rebuilt = FeatureDistance.from_arrays(other.distance_arrays())
    np.testing.assert_array_equal(rebuilt.distance(flat[:5]), fitted.distance(flat[:5]))


def test_a_bundle_without_distance_layer_gives_nan_distances(bundle):
    plain = Bundle(bundle.manifest.model_copy(update={"ood": None}), bundle.tensors)
    values, valid = window()
    planes = Predictor(plain).predict_window(values, valid)
    assert np.isnan(planes.distance).all()
    assert np.isfinite(planes.energy).any()


def test_a_damaged_distance_layer_is_named(bundle):
    for name, value in (
        ("ood.whitening", torch.zeros(3, 4)),
        ("ood.targets", torch.zeros(2, 3)),
        ("ood.targets", None),
    ):
        tensors = {k: v for k, v in {**bundle.tensors, name: value}.items() if v is not None}
        with pytest.raises(CheckpointError, match="ood"):
            Predictor(Bundle(bundle.manifest, tensors))


def test_other_tasks_and_sizes_are_refused(bundle, predictor):
    scene = Bundle(bundle.manifest.model_copy(update={"task": "scene"}), bundle.tensors)
    with pytest.raises(DataError, match="segmentation"):
        Predictor(scene)
    with pytest.raises(DataError, match="expected \\(64, 64\\)"):
        predictor.predict_window(np.zeros((3, 32, 32), np.float32), np.ones((32, 32), bool))


def test_bfloat16_agrees_with_float32_on_nearly_every_pixel(bundle, predictor):
    values, valid = window(5)
    half = Predictor(bundle, precision="bf16").predict_window(values, valid)
    full = predictor.predict_window(values, valid)
    seen = full.classes > 0
    assert (half.classes == full.classes)[seen].mean() > 0.9
    assert np.abs(half.confidence - full.confidence)[seen].max() < 0.1


def test_a_method_with_its_own_prediction_is_asked(bundle, monkeypatch):
    from berunda.methods.supervised import Supervised

    def shifted(self, net, extra, pixels):
        return net(pixels) + torch.tensor([0.0, 0.0, 0.0, 1e4])[:, None, None]

    monkeypatch.setattr(Supervised, "predict", shifted)
    values, valid = window()
    planes = Predictor(bundle).predict_window(values, valid)
    assert set(np.unique(planes.classes)) == {0, 4}


def test_planes_are_plain_values(predictor):
    values, valid = window()
    planes = predictor.predict_window(values, valid)
    names = ["classes", "confidence", "distance", "energy", "probabilities"]
    assert [f.name for f in dataclasses.fields(planes)] == names
    assert planes.probabilities == ()
    assert all(a.shape == (32, 32) for a in planes.arrays())
