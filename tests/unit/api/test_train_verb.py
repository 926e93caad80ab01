"""Training on a folder of images: what it writes, what it says, and what it refuses before it trains."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from toy_patches import CLASSES, toy_image, write_folder, write_labelled_table

import berunda
from berunda.api import scene_pipeline
from berunda.api.predict_verb import predict
from berunda.api.train_verb import train
from berunda.assess.multilabel import decide, label_energy, rank
from berunda.data.images import open_images
from berunda.errors import BerundaError, ConfigError, DataError, OutputError
from berunda.mapping.bundle import load_bundle
from berunda.mapping.lock import output_lock
from berunda.mapping.patches import ScenePredictor
from berunda.options.train import TrainOptions, load_train_options
from berunda.progress import Silent
from berunda.train import loop

QUICK: dict[str, Any] = {"method": "supervised", "steps": 3, "n_labelled": 4, "image_px": 32, "device": "cpu"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERUNDA_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "images", 10)


def options(images: Path, **changes: Any) -> TrainOptions:
    return TrainOptions(dataset=str(images), **{**QUICK, **changes})


def report(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "report.json").read_text()))


def test_a_training_writes_model_report_and_options(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = options(images, labels_per_class=2, compare=True, method="fixmatch", method_options={"mu": 1})
    outcome = train(given, out)
    assert {p.name for p in out.iterdir()} - {".berunda.lock"} == {"model", "report.html", "report.json", "run.yaml"}
    assert load_train_options(out / "run.yaml") == given.resolved()
    manifest = load_bundle(out).manifest
    assert (manifest.task, manifest.method, manifest.method_options) == ("scene", "fixmatch", {"mu": 1})
    assert (manifest.class_names, manifest.window_px, manifest.net.crop_px) == (CLASSES, 16, 32)
    assert outcome.counts["training, with labels"] == 6
    assert outcome.counts["validation labels (temperature, thresholds)"] <= 6
    told = report(out)
    assert [row["method"] for row in told["comparison"]] == ["features_logreg", "supervised", "fixmatch"]
    rows = {row["method"]: row for row in told["comparison"]}
    assert rows["supervised"]["image_passes"] == pytest.approx(rows["fixmatch"]["image_passes"], rel=0.1)
    assert rows["fixmatch"]["labels"] == 2
    averaged = {name: "averaged over" in row["protocol"] for name, row in rows.items()}
    assert averaged == {"features_logreg": False, "supervised": True, "fixmatch": True}
    assert told["metrics"]["n_test"] == 6
    assert np.sum(told["metrics"]["confusion"]) == 6
    page = (out / "report.html").read_text()
    assert not re.search(r"https?://(?!www\.w3\.org)", page)
    for word in ("Overall accuracy", "Can the confidence be believed?", "Unlike the training data", *CLASSES):
        assert word in page


def test_options_of_the_method_that_goes_on_are_in_the_bundle(images: Path, tmp_path: Path) -> None:
    of_method = {"then": "fixmatch", "graphs": 1, "mu": 1, "fixmatch.threshold": 0.9}
    train(options(images, labels_per_class=2, method="propagate", method_options=of_method), tmp_path / "out")
    manifest = load_bundle(tmp_path / "out").manifest
    assert (manifest.method, manifest.method_options) == ("fixmatch", {"threshold": 0.9})
    told = manifest.training.notes["trained_by"]
    assert told == "propagate then=fixmatch then_options=threshold=0.9 graphs=1 mu=1.0"
    (row,) = report(tmp_path / "out")["comparison"]
    assert "fixmatch.threshold=0.9" in row["command"]


class Fake:
    """A data set as torchvision's are: items of a picture and its class."""

    classes = CLASSES

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        return Image.fromarray(toy_image(CLASSES[i % 3], i)), i % 3


def test_a_data_set_in_memory_is_trained_on(tmp_path: Path) -> None:
    images = berunda.from_dataset(Fake(30), name="mine")
    of_method = {"method": "fixmatch", "method_options": {"mu": 1}}
    given = TrainOptions(dataset="mine", labels_per_class=2, **{**QUICK, **of_method})
    outcome = berunda.train(given, tmp_path / "out", images=images)
    manifest = load_bundle(tmp_path / "out").manifest
    assert manifest.class_names == CLASSES
    assert [band.name for band in manifest.bands] == ["red", "green", "blue"]
    assert manifest.training.scenes[0].fingerprint == images.fingerprint
    assert outcome.counts["test"] == 6
    (row,) = report(tmp_path / "out")["comparison"]
    assert (row["dataset"], row["metrics"]["n_test"]) == ("mine", 6)
    assert row["command"].startswith("berunda.train(berunda.TrainOptions(dataset='mine', ")
    assert row["command"].endswith('), "DIR", images=mine)')


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"dataset": "other"}, "dataset 'other' found, expected 'mine'"),
        ({"data": "somewhere"}, "data 'somewhere' found, expected none"),
        ({"task": "segmentation"}, "task segmentation found, expected scene"),
        ({"task": "multilabel"}, "task multilabel found, expected scene"),
        ({"labelled_images": 2, "labels_per_class": None}, "--labelled-images: for images with masks"),
    ],
)
def test_options_that_speak_of_other_images_are_refused(tmp_path: Path, changes: dict[str, Any], text: str) -> None:
    images = berunda.from_dataset(Fake(30), name="mine")
    given = TrainOptions(**{"dataset": "mine", "labels_per_class": 2, **QUICK, **changes})
    with pytest.raises(ConfigError, match=re.escape(text)):
        berunda.train(given, tmp_path / "out", images=images)


def test_the_figures_are_those_of_the_bundle(images: Path, tmp_path: Path) -> None:
    train(options(images, labels_per_class=2), tmp_path / "out")
    predictor = ScenePredictor(load_bundle(tmp_path / "out"))
    data = open_images(str(images))
    test = data.of(2)
    said = predictor.predict(data.scaled(test, predictor.scaling))
    assert report(tmp_path / "out")["metrics"]["oa"] == pytest.approx((said.classes == data.labels[test]).mean())


class Stop(Silent):
    """Interrupts a training after some steps."""

    def advance(self, n: int = 1, **figures: float) -> None:
        if "loss" in figures:
            self.n_steps = getattr(self, "n_steps", 0) + n
            if self.n_steps == 2:
                raise KeyboardInterrupt


def test_a_stopped_training_goes_on_and_ends_alike(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from berunda.api import scene_recipe

    monkeypatch.setattr(scene_recipe, "TrainConfig", lambda **given: loop.TrainConfig(**given, checkpoint_every=1))
    given = options(images, labels_per_class=2, steps=4)
    with pytest.raises(KeyboardInterrupt):
        train(given, tmp_path / "out", progress=Stop())
    assert not (tmp_path / "out" / "model").exists()
    notes: list[str] = []

    class Listening(Silent):
        def note(self, text: str) -> None:
            notes.append(text)

    train(given, tmp_path / "out", progress=Listening())
    assert any("resuming at step" in text for text in notes)
    train(given, tmp_path / "whole")
    one, two = (load_bundle(tmp_path / name) for name in ("out", "whole"))
    assert one.fingerprint == two.fingerprint


def test_two_runs_in_one_folder_are_refused(images: Path, tmp_path: Path) -> None:
    import threading

    caught: list[BaseException] = []

    def second() -> None:
        try:
            train(options(images), tmp_path / "out")
        except BaseException as error:
            caught.append(error)

    with output_lock(tmp_path / "out"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert [type(error) for error in caught] == [OutputError]
    assert "another run" in str(caught[0])


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"labels_per_class": 99}, DataError, "99 labels a class asked for"),
        ({"method": "cotrain"}, ConfigError, "method 'cotrain' serves segmentation, expected scene"),
        ({"method": "fixmach"}, ConfigError, "did you mean 'fixmatch'"),
        ({"method": "fixmatch", "method_options": {"tau": 1}}, ConfigError, "option 'tau' is unknown"),
        (
            {"method": "fixmatch", "method_options": {"cutmix": 0.5, "prior_share": 0.3}},
            ConfigError,
            "method 'fixmatch': found prior_share=0.3, cutmix=0.5, which changes nothing for scene; leave it out",
        ),
        ({"encoder": "resnet5"}, ConfigError, "encoder 'resnet5' is unknown"),
        ({"dataset": "eurosatt"}, DataError, "did you mean 'eurosat'"),
        ({"dataset": "nowhere/at/all"}, DataError, "nowhere/at/all"),
    ],
)
def test_what_is_wrong_is_told_before_training(
    images: Path, tmp_path: Path, changes: dict[str, Any], error: type[BerundaError], text: str
) -> None:
    with pytest.raises(error, match=re.escape(text)):
        train(options(images).replaced(**changes), tmp_path / "out")
    assert not (tmp_path / "out" / "model").exists()
    assert not (tmp_path / "out" / ".work").exists()


def test_broken_images_are_named_or_counted(images: Path, tmp_path: Path) -> None:
    broken = images / "dark" / "dark_3.png"
    broken.write_bytes(broken.read_bytes()[:80])
    with pytest.raises(DataError, match=r"dark_3\.png"):
        train(options(images), tmp_path / "out")
    outcome = train(options(images, skip_broken=True), tmp_path / "out")
    assert outcome.counts["broken, left out"] == 1
    assert any("1 images cannot be read" in text for text in outcome.warnings)
    assert report(tmp_path / "out")["images"]["broken, left out"] == 1


def test_a_map_is_not_replaced(images: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "map.tif").write_bytes(b"")
    with pytest.raises(OutputError, match=r"holds a map .*map\.tif is there"):
        train(options(images), tmp_path / "out")


def test_enough_validation_labels_calibrate(tmp_path: Path) -> None:
    images = write_folder(tmp_path / "many", 50)
    outcome = train(options(images, steps=2), tmp_path / "out")
    manifest = load_bundle(tmp_path / "out").manifest
    assert outcome.counts["validation labels (temperature, thresholds)"] == 30
    assert manifest.calibration.n_pixels == 30
    assert manifest.ood is not None
    assert manifest.ood.threshold is not None
    assert report(tmp_path / "out")["ood"]["n_held_out"] == 30
    assert not any("threshold rests on" in text for text in outcome.warnings)


@pytest.mark.parametrize(("n_labels", "is_warned"), [(6, True), (7, False)])
def test_a_threshold_of_few_images_is_told(tmp_path: Path, n_labels: int, is_warned: bool) -> None:
    images = write_folder(tmp_path / "many", 40)
    outcome = train(options(images, steps=2, labels_per_class=n_labels), tmp_path / "out")
    warned = [text for text in outcome.warnings if f"threshold rests on {3 * n_labels} labelled validation" in text]
    assert bool(warned) is is_warned
    assert load_bundle(tmp_path / "out").manifest.ood.n_pixels == 3 * n_labels  # type: ignore[union-attr]


def test_a_masked_autoencoder_shows_what_it_fills_and_what_labels_rest_on(images: Path, tmp_path: Path) -> None:
    changes = {"method": "ssl_mae", "encoder": "vit_mini_patch8", "method_options": {"weighting": "raw"}}
    train(options(images, labels_per_class=2, **changes), tmp_path / "out")
    manifest = load_bundle(tmp_path / "out").manifest
    assert (manifest.method, manifest.encoder) == ("ssl_mae", "vit_mini_patch8")
    curves = {curve["name"]: curve["values"] for curve in report(tmp_path / "out")["training"]["loss_curves"]}
    assert {"total", "supervised", "unsupervised", "weight"} <= set(curves)
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("what was left visible") == page.count("what the model makes of that") >= 4
    assert "rests on" in page


def test_images_that_the_patches_do_not_divide_are_refused(images: Path, tmp_path: Path) -> None:
    changes = {"method": "ssl_mae", "encoder": "vit_mini_patch8", "image_px": 30}
    with pytest.raises(ConfigError, match="30 x 30 px, expected sides that patches of 8 px divide, such as 24, 32"):
        train(options(images, labels_per_class=2, **changes), tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "found encoder 'efficientnet_lite0', expected one of patches"),
        ({"encoder": "vit_mini_patch16", "image_px": 16}, "16 px, a single patch, expected at least 32 px"),
        ({"encoder": "vit_mini_patch16", "image_px": 40}, "40 x 40 px, expected sides that patches of 16 px divide"),
    ],
)
def test_encoders_that_a_method_of_patches_cannot_use_are_refused_before_the_comparison(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], text: str
) -> None:
    trained: list[object] = []
    monkeypatch.setattr(scene_pipeline, "_train_all", lambda *given: trained.append(given))
    with pytest.raises(ConfigError, match=text):
        train(options(images, labels_per_class=2, method="ssl_mae", compare=True, **changes), tmp_path / "out")
    assert not trained


# Several labels an image


def test_several_labels_go_from_table_to_report_and_predictions(tmp_path: Path) -> None:
    table, out = write_labelled_table(tmp_path / "images"), tmp_path / "out"
    outcome = train(options(table, method="fixmatch", method_options={"mu": 1}, label_fraction=0.5, compare=True), out)
    manifest = load_bundle(out).manifest
    assert manifest.task == "multilabel"
    assert len(manifest.thresholds) == 2
    assert manifest.ood is not None
    assert manifest.ood.threshold_energy is not None
    told = report(out)
    assert [row["task"] for row in told["comparison"]] == ["multilabel"] * 3
    assert outcome.metrics["macro_auprc"] == told["metrics"]["macro_auprc"]
    assert told["metrics"]["macro_auprc_interval"]["low"] <= told["metrics"]["macro_auprc"]
    assert set(told["metrics"]["auprc"]) == {"bright", "striped"}
    floor = told["comparison"][0]["metrics"]
    assert floor["macro_auprc"] > 0.9, "a regression on frozen features tells bright from dark"
    page = (out / "report.html").read_text()
    for word in ("Macro AUPRC", "F1 tuned", "Ranking loss", "bright", "striped"):
        assert word in page
    assert any("macro AUPRC" in line for line in outcome.summary_lines())
    found = predict(out, [tmp_path / "images"], tmp_path / "predicted", device="cpu")
    with (tmp_path / "predicted" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40
    for row in rows:
        named = {
            name
            for name, at in zip(manifest.class_names, manifest.thresholds, strict=True)
            if float(row[f"p_{name}"]) >= at
        }
        assert set(row["class"].split(";")) - {""} == named
    assert set(found.class_counts) <= {"", "bright", "striped"}  # type: ignore[union-attr]


def test_the_figures_of_several_labels_are_those_of_the_bundle(tmp_path: Path) -> None:
    table = write_labelled_table(tmp_path / "images")
    train(options(table), tmp_path / "out")
    predictor = ScenePredictor(load_bundle(tmp_path / "out"))
    data = open_images(str(table))
    test = data.of(2)
    said = predictor.predict(data.scaled(test, predictor.scaling))
    measured = report(tmp_path / "out")["metrics"]
    assert rank(said.logits, data.labels[test]).macro == pytest.approx(measured["macro_auprc"])
    tuned = decide(said.probabilities, data.labels[test], predictor.manifest.thresholds)
    assert tuned.macro_f1 == pytest.approx(measured["macro_f1_tuned"])
    np.testing.assert_allclose(said.energy, label_energy(said.logits), rtol=1e-4)


def test_an_option_of_single_labels_is_refused(tmp_path: Path) -> None:
    given = {"method": "fixmatch", "method_options": {"threshold": 0.8}}
    with pytest.raises(ConfigError, match=r"found threshold=0.8, which changes nothing for multilabel"):
        train(options(write_labelled_table(tmp_path / "images"), **given), tmp_path / "out")


def test_a_method_for_single_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="method 'vat' serves scene, expected multilabel"):
        train(options(write_labelled_table(tmp_path / "images"), method="vat"), tmp_path / "out")
