"""Images through a bundle: which inputs are images, what the table says, what is refused."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from toy_patches import CLASSES, scene_bundle, toy_image, write_folder
from toy_rasters import write_tif

from berunda.api.outcome import PatchOutcome
from berunda.api.patch_predict import are_scenes, list_patches
from berunda.api.predict_verb import predict
from berunda.errors import ConfigError, DataError
from berunda.mapping.bundle import save_bundle


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bundle(tmp_path_factory.mktemp("run") / "model", scene_bundle())


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "images", 3)


def table(out: Path) -> list[dict[str, str]]:
    with (out / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def classified(model: Path, inputs: list[Path], out: Path, **options: object) -> PatchOutcome:
    outcome = predict(model, inputs, out, device="cpu", **options)  # type: ignore[arg-type]
    assert isinstance(outcome, PatchOutcome)
    return outcome


def test_every_image_has_its_line(model: Path, images: Path, tmp_path: Path) -> None:
    outcome = classified(model, [images], tmp_path / "out")
    rows = table(tmp_path / "out")
    assert [row["file"] for row in rows] == [f"{c}/{c}_{i}.png" for c in CLASSES for i in range(3)]
    for row in rows:
        shares = {name: float(row[f"p_{name}"]) for name in CLASSES}
        assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
        assert row["class"] == max(shares, key=lambda name: shares[name])
        assert float(row["confidence"]) == pytest.approx(max(shares.values()), abs=1e-6)
        assert row["flag"] == str(int(float(row["ood_distance"]) > 9.5))
        assert float(row["energy"]) < 0
    assert outcome.n_images == 9
    assert sum(outcome.class_counts.values()) == 9
    assert outcome.n_flagged == sum(row["flag"] == "1" for row in rows)
    assert any("9 images" in line for line in outcome.summary_lines())
    assert {p.name for p in (tmp_path / "out").iterdir()} - {".berunda.lock"} == {"predictions.csv"}


def test_workers_and_how_images_are_named_change_no_figure(model: Path, images: Path, tmp_path: Path) -> None:
    files = sorted(images.rglob("*.png"))
    classified(model, [images], tmp_path / "one")
    classified(model, files, tmp_path / "two", workers=3)
    one, two = table(tmp_path / "one"), table(tmp_path / "two")
    assert [row.pop("file").split("/")[-1] for row in one] == [row.pop("file") for row in two]
    assert one == two


def test_images_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(toy_image("dark", 1)).save(tmp_path / name / "x.png")
    found = list_patches([tmp_path / "a" / "x.png", tmp_path / "b" / "x.png"])
    assert len({patch.name for patch in found}) == 2


def test_other_sizes_are_resampled_and_told(model: Path, tmp_path: Path) -> None:
    big = write_folder(tmp_path / "big", 2, side=40)
    outcome = classified(model, [big], tmp_path / "out")
    assert any("6 of 6 images are not of 16 px" in text and "40 x 40" in text for text in outcome.warnings)


def test_several_labels_an_image(tmp_path: Path, images: Path) -> None:
    model = save_bundle(tmp_path / "multi" / "model", scene_bundle(task="multilabel"))
    classified(model, [images], tmp_path / "out")
    for row in table(tmp_path / "out"):
        shown = [name for name in CLASSES if float(row[f"p_{name}"]) >= 0.5]
        assert row["class"] == ";".join(shown)
        sure = [max(float(row[f"p_{name}"]), 1 - float(row[f"p_{name}"])) for name in CLASSES]
        assert float(row["confidence"]) == pytest.approx(sum(sure) / len(sure), abs=1e-5)


def test_a_broken_image_is_named_or_left_out(model: Path, images: Path, tmp_path: Path) -> None:
    broken = images / "dark" / "dark_1.png"
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(DataError, match=r"dark_1\.png: image cannot be read.*--skip-broken"):
        predict(model, [images], tmp_path / "out", device="cpu")
    assert not (tmp_path / "out" / "predictions.csv").exists()
    outcome = classified(model, [images], tmp_path / "out", skip_broken=True)
    assert outcome.n_images == 8
    assert any("1 images cannot be read and are left out: dark/dark_1.png" in text for text in outcome.warnings)


def test_bands_are_matched_by_name(tmp_path: Path) -> None:
    model = save_bundle(tmp_path / "run" / "model", scene_bundle(bands=("B02", "B03", "B04")))
    pixels = np.random.default_rng(0).integers(1, 255, (3, 16, 16), dtype=np.uint8)
    named = write_tif(tmp_path / "named.tif", pixels, names=("B02", "B03", "B04"))
    turned = write_tif(tmp_path / "turned.tif", pixels[::-1], names=("B04", "B03", "B02"))
    bare = write_tif(tmp_path / "bare.tif", pixels)
    rows = []
    for path, bands in ((named, None), (turned, None), (bare, ["B02", "B03", "B04"])):
        classified(model, [path], tmp_path / "out", bands=bands)
        rows.append({k: v for k, v in table(tmp_path / "out")[0].items() if k != "file"})
    assert rows[0] == rows[1] == rows[2]
    with pytest.raises(DataError, match=r"band B02, B03, B04 not found; it has b1, b2, b3.*--bands"):
        predict(model, [bare], tmp_path / "out", device="cpu")


def test_scenes_are_told_from_images(tmp_path: Path, images: Path) -> None:
    scene = write_tif(tmp_path / "scene.tif", np.ones((3, 64, 64), np.uint8))
    small = write_tif(tmp_path / "small.tif", np.ones((3, 16, 16), np.uint8))
    assert are_scenes([scene], 16)
    assert are_scenes(["https://example.org/scene.tif"], 16)
    assert not are_scenes([small], 16)
    assert not are_scenes([scene], 64)
    assert not are_scenes([images], 16)
    with pytest.raises(DataError, match=r"scene\.tif is a scene and .*small\.tif an image"):
        are_scenes([scene, small], 16)
    with pytest.raises(DataError, match="not found"):
        are_scenes([tmp_path / "none.png"], 16)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no image found"):
        are_scenes([tmp_path / "empty"], 16)


def test_a_scene_is_mapped_patch_by_patch(model: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(1, 255, (3, 64, 80), dtype=np.uint8)
    scene = write_tif(tmp_path / "scene.tif", pixels, names=("red", "green", "blue"))
    outcome = predict(model, [scene], tmp_path / "out", device="cpu", stride_px=8)
    assert not isinstance(outcome, PatchOutcome)
    assert (outcome.results[0].grid.shape.rows, outcome.results[0].grid.shape.cols) == (8, 10)
    assert (tmp_path / "out" / "map.tif").is_file()


def test_a_scene_gets_the_labels_that_the_table_of_its_patches_has(tmp_path: Path) -> None:
    bundle = scene_bundle(task="multilabel")
    thresholds = (0.35, 0.5, 0.6)
    bundle = replace(bundle, manifest=bundle.manifest.model_copy(update={"thresholds": thresholds}))
    model = save_bundle(tmp_path / "multi" / "model", bundle)
    pixels = np.random.default_rng(0).integers(1, 255, (3, 64, 48), dtype=np.uint8)
    names = ("red", "green", "blue")
    scene = write_tif(tmp_path / "scene.tif", pixels, names=names)
    outcome = predict(model, [scene], tmp_path / "map", device="cpu")
    assert not isinstance(outcome, PatchOutcome)
    with rasterio.open(outcome.results[0].files.map) as file:
        shown, labels = file.read(), file.descriptions
    assert shown.shape == (3, 4, 3)
    (tmp_path / "cut").mkdir()
    patches = [(row, col) for row in range(4) for col in range(3)]
    for row, col in patches:
        cut = pixels[:, 16 * row : 16 * row + 16, 16 * col : 16 * col + 16]
        write_tif(tmp_path / "cut" / f"{row}_{col}.tif", cut, names=names)
    classified(model, [tmp_path / "cut"], tmp_path / "out")
    for (row, col), line in zip(patches, table(tmp_path / "out"), strict=True):
        told = [label for label, value in zip(labels, shown[:, row, col], strict=True) if value == 2]
        assert line["class"] == ";".join(told)


def test_options_for_scenes_are_refused_for_images(model: Path, images: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--mask, --stride: for scenes to map, found images"):
        predict(model, [images], tmp_path / "out", mask="clouds.tif", stride_px=4)
    assert not (tmp_path / "out").exists()


def test_bright_images_after_dark_ones_are_told(tmp_path: Path) -> None:
    model = save_bundle(tmp_path / "run" / "model", scene_bundle(high=20_000.0))
    images = write_folder(tmp_path / "images", 2)
    outcome = classified(model, [images], tmp_path / "out")
    assert any("radiometry far from the training images" in text for text in outcome.warnings)
