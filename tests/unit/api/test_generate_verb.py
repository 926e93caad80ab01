"""Drawing images of a class: what is written, that it is of the class, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from toy_patches import CLASSES, write_folder

from berunda.api.generate_verb import drawn_images, generate, generative_methods
from berunda.api.train_verb import train
from berunda.cli.main import main
from berunda.data.order import Randomness
from berunda.errors import ConfigError
from berunda.mapping.bundle import load_bundle
from berunda.options.train import TrainOptions

QUICK: dict[str, Any] = {
    "steps": 3,
    "n_labelled": 4,
    "image_px": 16,
    "device": "cpu",
    "encoder": "wide_resnet10_1_no_norm",
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of bundles by method, trained for a few steps."""
    root = tmp_path_factory.mktemp("generate")
    images = write_folder(root / "images", 10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BERUNDA_CACHE", str(root / "cache"))
        for method, options in (
            ("jem", {"variant": "sada", "replay": 32}),
            ("vae", {"latent": 4, "width": 4}),
            ("supervised", {}),
        ):
            given = {**QUICK, "method": method, "method_options": options, "labels_per_class": 2, "pretrained": False}
            train(TrainOptions(dataset=str(images), **given), root / method)
    return root


@pytest.mark.parametrize("method", ["jem", "vae"])
def test_images_are_written_in_the_units_of_the_training(method: str, trained: Path, tmp_path: Path) -> None:
    outcome = generate(trained / method, tmp_path / "out", class_name=CLASSES[1], n=3)
    assert len(outcome.chips) == 3
    assert outcome.summary_lines()[0].startswith("3 images: ")
    with rasterio.open(outcome.chips[0]) as chip:
        assert (chip.count, chip.height, chip.width, chip.dtypes[0]) == (3, 16, 16, "float32")
        values = chip.read()
    assert np.isfinite(values).all()
    assert values.max() - values.min() > 0
    with Image.open(outcome.picture) as picture:
        assert picture.size[0] > 100


@pytest.mark.parametrize("method", ["jem", "vae"])
def test_the_same_seed_draws_the_same_and_another_draws_another(method: str, trained: Path, tmp_path: Path) -> None:
    chips = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        path = generate(trained / method, tmp_path / name, class_name=CLASSES[0], n=1, seed=seed).chips[0]
        with rasterio.open(path) as chip:
            chips.append(chip.read())
    assert np.array_equal(chips[0], chips[1])
    assert not np.array_equal(chips[0], chips[2])


@pytest.mark.parametrize("method", ["jem", "vae"])
def test_many_images_of_a_class_are_all_different(method: str, trained: Path) -> None:
    """More than are made at once, and more than there are chains."""
    bundle = load_bundle(trained / method)
    images = drawn_images(bundle, torch.zeros(70, dtype=torch.int64), Randomness(0))
    assert len(np.unique(images.reshape(70, -1), axis=0)) == 70


def test_without_a_class_every_class_is_drawn(trained: Path, tmp_path: Path) -> None:
    assert main(["generate", str(trained / "vae"), "-n", "2", "--out", str(tmp_path / "out"), "--quiet"]) == 0
    assert len(list((tmp_path / "out" / "chips").glob("*.tif"))) == 2 * len(CLASSES)


def test_a_model_that_generates_nothing_is_refused_and_those_that_do_are_named(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"method 'supervised' found, .* expected one of fixmatch_jem, hvae, jem, segjem"
    ):
        generate(trained / "supervised", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert set(generative_methods()) >= {"fixmatch_jem", "hvae", "jem", "segjem", "vae"}


def test_an_unknown_class_is_refused_and_the_nearest_told(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = CLASSES[0][:-1]
    words = ["generate", str(trained / "vae"), "--class", wrong, "--out", str(tmp_path / "out")]
    assert main(words) == 2
    told = capsys.readouterr().err
    assert f"did you mean '{CLASSES[0]}'?" in told
    assert ", ".join(CLASSES) in told
