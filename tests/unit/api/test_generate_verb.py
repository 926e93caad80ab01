"""Drawing images of a class: what is written, that it is of the class, and what is refused."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from toy_patches import CLASSES, write_folder

from berunda.api.generate_verb import (
    _grid_picture,
    _mosaic,
    _stems,
    drawn_images,
    generate,
    generative_methods,
)
from berunda.api.sample_comparison import Comparison
from berunda.api.train_verb import train
from berunda.cli.main import main
from berunda.data.order import Randomness
from berunda.errors import ConfigError, DataError, FetchError
from berunda.mapping.bundle import load_bundle
from berunda.mapping.manifest import BandScale
from berunda.options.train import TrainOptions
from berunda.progress import Silent

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


def test_no_images_at_all_are_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="-n 0: found 0 images of each class, expected 1 or more"):
        generate(trained / "vae", tmp_path / "out", n=0)
    assert not (tmp_path / "out").exists()


def test_chips_of_an_earlier_call_that_drew_more_go_and_those_of_other_classes_stay(
    trained: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    generate(trained / "vae", out, n=3)
    other = out / "chips" / "mine.tif"
    other.touch()
    generate(trained / "vae", out, class_name=CLASSES[0], n=1)
    assert len(list((out / "chips").iterdir())) == 1 + 3 * (len(CLASSES) - 1) + 1
    assert other.exists()


def test_classes_whose_names_differ_in_signs_alone_have_files_of_their_own() -> None:
    stems = _stems(["A b", "A_b", "a b", "A_b-2"])
    assert stems["A b"] == "A_b"
    assert len({stem.lower() for stem in stems.values()}) == 4


def test_the_picture_shows_some_images_of_each_class_however_many_are_drawn() -> None:
    bands = [BandScale(name=name, low=0.0, high=1.0) for name in "rgb"]
    colours = np.eye(3)[:, :, None, None]
    few = _mosaic(np.broadcast_to(colours, (3, 3, 20, 20)), 2, bands)
    assert few.shape == (42, 42, 3)
    assert [few[at].tolist() for at in ((0, 0), (0, 21), (21, 0))] == np.eye(3).tolist()
    assert few[20].min() == few[:, 20].min() == few[21:, 21:].min() == 1
    many = {f"class {number}": np.zeros((32, 3, 4, 4)) for number in range(60)}
    with Image.open(io.BytesIO(_grid_picture(many, bands))) as picture:
        assert max(picture.size) < 2**16


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


def test_what_is_drawn_is_compared_with_real_images_under_the_encoders_own_name(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["generate", str(trained / "vae"), "-n", "2", "--compare", str(trained / "images")]
    assert main([*words, "--features", "efficientnet_lite0", "--out", str(tmp_path / "out")]) == 0
    told = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert (told["n_generated"], told["n_real"], told["n_subset"]) == (2 * len(CLASSES), 10 * len(CLASSES), 3)
    assert told["metrics"]["frechet_efficientnet_lite0"] > 0
    assert told["metrics"]["kernel_efficientnet_lite0_deviation"] >= 0
    out = capsys.readouterr()
    assert "Frechet distance of efficientnet_lite0" in out.out
    assert "6 generated and 30 real images" in out.out
    assert "rests on 6 images" in out.out + out.err
    assert "FID" not in out.out


def test_real_images_are_no_distance_from_themselves(trained: Path) -> None:
    """What is generated and what is read from files must be scaled and sized alike."""
    manifest = load_bundle(trained / "vae").manifest
    comparison = Comparison.of(manifest, trained / "images", "efficientnet_lite0")
    pixels = np.stack([np.asarray(Image.open(file.path), np.float32).transpose(2, 0, 1) for file in comparison.images])
    found = comparison.distances(pixels, 0, Silent())
    assert found.frechet == pytest.approx(0, abs=1e-3)
    assert (found.n_generated, found.n_real) == (30, 30)


def test_without_inceptions_weights_nothing_is_drawn(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*args: Any, **options: Any) -> None:
        raise OSError("no route to the hub")

    monkeypatch.setattr("timm.create_model", unreachable)
    with pytest.raises(FetchError, match="cannot be fetched"):
        generate(trained / "vae", tmp_path / "out", compare=trained / "images")
    assert not (tmp_path / "out").exists()


def test_comparisons_with_nothing_are_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = tmp_path / "one"
    one.mkdir()
    Image.new("RGB", (16, 16)).save(one / "a.png")
    with pytest.raises(DataError, match="a single image found"):
        generate(trained / "vae", tmp_path / "out", compare=one, features="efficientnet_lite0")
    with pytest.raises(ConfigError, match="a single image to draw found"):
        generate(trained / "vae", tmp_path / "out", class_name=CLASSES[0], n=1, compare=trained / "images")
    words = ["generate", str(trained / "vae"), "--features", "efficientnet_lite0", "--out", str(tmp_path / "out")]
    assert main(words) == 2
    assert "--compare as well" in capsys.readouterr().err


def test_a_bundle_tells_the_distribution_of_its_energy_where_that_is_a_density(trained: Path) -> None:
    jem, plain = (load_bundle(trained / name).manifest.ood for name in ("jem", "supervised"))
    assert jem is not None
    assert plain is not None
    assert len(jem.energy_quantiles) == 101
    assert jem.energy_quantiles == tuple(sorted(jem.energy_quantiles))
    assert jem.threshold_energy is not None
    assert jem.energy_quantiles[0] <= jem.threshold_energy <= jem.energy_quantiles[-1]
    assert plain.energy_quantiles == ()
