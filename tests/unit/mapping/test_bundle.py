"""Bundles: what is saved is what is loaded, and what is wrong is named."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from toy_mapping import toy_bundle
from toy_patches import scene_bundle

from berunda.assess.ood import FeatureDistance
from berunda.errors import CheckpointError, OutputError
from berunda.mapping.bundle import Bundle, load_bundle, save_bundle
from berunda.mapping.manifest import Manifest, Ood


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return toy_bundle()


@pytest.fixture
def folder(tmp_path, bundle):
    return save_bundle(tmp_path / "model", bundle)


def edit(folder, **changes):
    path = folder / "model.json"
    value = json.loads(path.read_text())
    value.update(changes)
    path.write_text(json.dumps({k: v for k, v in value.items() if v is not ...}))


def test_round_trip(folder, bundle):
    loaded = load_bundle(folder)
    assert loaded.fingerprint == bundle.fingerprint
    assert loaded.manifest.model_dump(exclude={"weights"}) == bundle.manifest.model_dump(exclude={"weights"})
    assert loaded.tensors.keys() == bundle.tensors.keys()
    assert all(torch.equal(loaded.tensors[k], bundle.tensors[k]) for k in bundle.tensors)
    assert sorted(p.name for p in folder.iterdir()) == ["model.json", "model.safetensors"]


def test_manifest_has_the_documented_keys(folder):
    value = json.loads((folder / "model.json").read_text())
    documented = "format task method encoder bands classes window_px margin_px calibration ood training versions"
    assert set(documented.split()) <= value.keys()
    assert value["bands"][0].keys() == {"name", "low", "high"}
    assert value["classes"][0].keys() == {"id", "name", "color"}


def test_the_built_model_predicts_as_the_saved_one(folder, bundle):
    pixels = torch.randn(1, 3, 40, 40)
    one, two = bundle.build(), load_bundle(folder).build()
    with torch.inference_mode():
        assert torch.equal(one.net(pixels), two.net(pixels))
    assert not any(p.requires_grad for p in two.net.parameters())
    assert not two.net.training


def test_building_leaves_the_global_random_state_alone(bundle):
    before = torch.random.get_rng_state()
    bundle.build()
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_distance_layer_comes_back_bit_equal(folder, bundle):
    arrays = load_bundle(folder).distance_arrays()
    features = np.random.default_rng(0).normal(size=(50, arrays["ood_whitening"].shape[0]))
    original = FeatureDistance.from_arrays(bundle.distance_arrays())
    np.testing.assert_array_equal(FeatureDistance.from_arrays(arrays).distance(features), original.distance(features))


def test_the_folder_of_a_map_run_is_accepted(folder, bundle):
    assert load_bundle(folder.parent).fingerprint == bundle.fingerprint


def test_saving_replaces_an_older_bundle_and_nothing_else(folder, bundle):
    changed = Bundle(bundle.manifest.model_copy(update={"margin_px": 8}), bundle.tensors)
    save_bundle(folder, changed)
    assert load_bundle(folder).manifest.margin_px == 8
    assert [p.name for p in folder.parent.iterdir()] == ["model"]
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"notes\.txt"):
        save_bundle(folder, bundle)
    assert load_bundle(folder.parent / "model").manifest.margin_px == 8


@pytest.mark.parametrize("n", range(12))
def test_a_save_that_fails_at_any_file_operation_leaves_a_whole_bundle(tmp_path, bundle, monkeypatch, n):
    import os

    target = save_bundle(tmp_path / "model", bundle)
    changed = Bundle(bundle.manifest.model_copy(update={"margin_px": 8}), bundle.tensors)
    calls = {"n": 0}

    def failing(original):
        def wrapped(*args, **kwargs):
            calls["n"] += 1
            if calls["n"] == n + 1:
                raise OSError(28, "No space left on device")
            return original(*args, **kwargs)

        return wrapped

    with monkeypatch.context() as patch:
        for name in ("fsync", "mkdir", "rename"):
            patch.setattr(os, name, failing(getattr(os, name)))
        told = "done"
        try:
            save_bundle(target, changed)
        except OutputError as error:
            told = str(error)
    assert told == "done" or "No space left" in told
    assert load_bundle(target).manifest.margin_px in ((8,) if told == "done" else (8, 16))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"format": "berunda-model/2"}, "newer than this version"),
        ({"format": "other"}, "not a model of berunda"),
        ({"format": 1}, "not a model of berunda"),
        ({"window_px": 40, "margin_px": 20}, "leave nothing of a window"),
        ({"window_px": 64.5}, "window_px"),
        ({"surprise": 1}, "surprise: unknown key"),
        ({"encoder": "../../x"}, "encoder"),
        ({"method": "os.system"}, "method"),
        ({"classes": []}, "classes"),
        ({"classes": [{"id": 2, "name": "a", "color": "#000000"}]}, "expected 1..1 in order"),
        ({"classes": [{"id": 1, "name": "a", "color": "red"}]}, "color"),
        ({"bands": [{"name": "b1", "low": 2, "high": 1}]}, "not below high"),
        ({"bands": [{"name": "b1", "low": 0, "high": 1}] * 2}, "more than once"),
        ({"calibration": {"temperature": 0}}, "temperature"),
        ({"weights": None}, "'weights' is missing"),
        ({"bands": ...}, "bands"),
    ],
)
def test_a_wrong_manifest_is_refused_and_the_field_named(folder, changes, told):
    edit(folder, **changes)
    with pytest.raises(CheckpointError, match=told):
        load_bundle(folder)


def test_infinite_numbers_are_refused(folder):
    path = folder / "model.json"
    path.write_text(path.read_text().replace('"high": 1100.0', '"high": Infinity', 1))
    with pytest.raises(CheckpointError, match="high"):
        load_bundle(folder)


def test_tensors_that_do_not_fit_are_named(folder, bundle):
    edit(folder, net={"encoder_depth": 3, "crop_px": 64, "pixel_path": True})
    with pytest.raises(CheckpointError, match="do not fit the net"):
        load_bundle(folder).build()
    name = "net.head.weight"
    broken = {**bundle.tensors, name: torch.full_like(bundle.tensors[name], torch.nan)}
    with pytest.raises(CheckpointError, match=r"net\.head\.weight"):
        Bundle(bundle.manifest, broken).build()


def test_an_unknown_method_is_told(folder):
    edit(folder, method="fixmach")
    with pytest.raises(CheckpointError, match="fixmach"):
        load_bundle(folder).build()


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        load_bundle(folder)


def test_every_truncation_and_every_flipped_bit_is_found(folder):
    path = folder / "model.safetensors"
    data = path.read_bytes()
    for cut in np.linspace(0, len(data) - 1, 12).astype(int):
        path.write_bytes(data[:cut])
        with pytest.raises(CheckpointError):
            load_bundle(folder)
    for at in np.random.default_rng(0).integers(8, len(data), 12):
        flipped = bytearray(data)
        flipped[at] ^= 1
        path.write_bytes(flipped)
        with pytest.raises(CheckpointError):
            load_bundle(folder)


def test_quantiles_of_the_energy_rise() -> None:
    assert Ood(energy_quantiles=(-3.0, -1.0, -1.0, 2.0)).energy_quantiles == (-3.0, -1.0, -1.0, 2.0)
    for wrong in ((1.0,), (0.0, 2.0, 1.0)):
        with pytest.raises(ValueError, match="energy_quantiles"):
            Ood(energy_quantiles=wrong)


def test_thresholds_are_none_or_one_a_class() -> None:
    manifest = scene_bundle(task="multilabel").manifest
    told = {**manifest.model_dump(), "thresholds": (0.2, 0.5, 1.0)}
    assert Manifest.model_validate(told).thresholds == (0.2, 0.5, 1.0)
    with pytest.raises(ValueError, match="2 thresholds found, expected none or 3, one a class"):
        Manifest.model_validate({**told, "thresholds": (0.2, 0.5)})
