"""The verbs for images, from the command line: train, predict, bench, datasets."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from toy_command import call, called
from toy_patches import CLASSES, toy_image, write_folder
from toy_rasters import write_tif

QUICK = ("--steps", "60", "--n-labelled", "12", "--image-px", "32", "--device", "cpu")


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("ground")
    write_folder(folder / "images", 20, n_unlabelled=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BERUNDA_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture(scope="module")
def trained(ground: Path) -> Path:
    words = ("train", ground / "images", "--method", "supervised", "--labels-per-class", "5")
    done = called(*words, *QUICK, "--out", ground / "trained")
    (n_validation,) = re.findall(r"validation labels \(temperature, thresholds\): (\d+)", done.out)
    assert 0 < int(n_validation) <= 15
    assert str(ground / "trained" / "report.html") in done.out
    return ground / "trained"


def test_a_run_is_repeated_from_its_configuration(ground: Path, trained: Path) -> None:
    called("train", trained / "run.yaml", "--out", ground / "again")
    one, two = (json.loads((folder / "report.json").read_text())["metrics"] for folder in (trained, ground / "again"))
    assert one["confusion"] == two["confusion"]
    assert one["nll"] == two["nll"]


def test_what_it_learned_it_says_of_new_images(ground: Path, trained: Path) -> None:
    metrics = json.loads((trained / "report.json").read_text())["metrics"]
    assert metrics["oa"] > 0.85
    write_folder(ground / "new", 4, classes=CLASSES)
    done = called("predict", trained, ground / "new", "--out", ground / "predicted")
    assert "12 images" in done.out
    with (ground / "predicted" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert np.mean([row["file"].split("/")[0] == row["class"] for row in rows]) > 0.8


def test_a_large_scene_is_mapped_patch_by_patch(ground: Path, trained: Path) -> None:
    kinds = [[CLASSES[(row + col) % 3] for col in range(6)] for row in range(4)]
    rows = [
        np.concatenate([toy_image(kind, 7 * i + j) for j, kind in enumerate(line)], 1) for i, line in enumerate(kinds)
    ]
    pixels = np.concatenate(rows).transpose(2, 0, 1)
    scene = write_tif(ground / "scene.tif", pixels, names=("red", "green", "blue"))
    called("predict", trained / "model", scene, "--out", ground / "map")
    import rasterio

    with rasterio.open(ground / "map" / "map.tif") as made:
        found = made.read(1)
    truth = np.array([[CLASSES.index(kind) + 1 for kind in line] for line in kinds])
    assert found.shape == (4, 6)
    assert (found == truth).mean() > 0.8


def test_a_benchmark_is_done_once(ground: Path) -> None:
    words = ("bench", "folder", "--data", ground / "images", "--methods", "features_logreg", "--labels", "1,0.5")
    done = called(*words, "--seeds", "1", "--out", ground / "bench")
    assert "2 of 2 runs are new" in done.out
    assert (ground / "bench" / "folder.md").is_file()
    assert "0 of 2 runs are new" in called(*words, "--seeds", "1", "--out", ground / "bench").out


def test_data_sets_are_listed_with_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERUNDA_CACHE", str(tmp_path))
    monkeypatch.delenv("BERUNDA_DATA", raising=False)
    lines = {line.split()[0]: line for line in called("datasets").out.splitlines() if line}
    assert "missing" in lines["eurosat"]
    assert "any" in lines["folder"]
    told = called("datasets", "eurosat").out
    assert "EuroSAT_RGB.zip" in told
    assert str(tmp_path / "datasets") in told
    done = call("datasets", "eurosatt")
    assert (done.code, "did you mean 'eurosat'" in done.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("train", "images", "--labels-per-class", "0"), "--labels-per-class: found '0'"),
        (("train", "images", "--method", "none"), "method 'none' is unknown"),
        (("train", "nowhere"), "data set 'nowhere' is unknown"),
        (("bench", "eurosat", "--labels", "5,x"), "--labels: found 'x'"),
        (("bench", "nothing"), "suite 'nothing' is unknown"),
        (("train", "run.yaml"), "run.yaml: configuration cannot be read"),
    ],
)
def test_wrong_input_is_one_line_and_code_two(
    words: tuple[str, ...], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BERUNDA_CACHE", str(tmp_path / "cache"))
    write_folder(tmp_path / "images", 5)
    done = call(*words, "--out", tmp_path / "out")
    assert done.code == 2
    assert text in done.err
    assert "Traceback" not in done.err
    assert done.out == ""
