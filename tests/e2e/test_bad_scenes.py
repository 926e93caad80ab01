"""What is wrong with a data set of whole images is told by the verbs in one line, before anything is trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from toy_command import Done, call
from toy_patches import CLASSES, toy_image, write_folder

from berunda.data.images import TRAIN as TRAIN_PART
from berunda.data.images import open_images

QUICK = ("--steps", "2", "--n-labelled", "3", "--device", "cpu", "--quiet")
TRAIN, BENCH = ("train", "{images}"), ("bench", "folder", "--data", "{images}", "--seeds", "1")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERUNDA_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> Any:
        raise AssertionError("nothing is to be trained")

    for place in ("berunda.api.fit.train", "berunda.api.floor.FrozenFeatures.of"):
        monkeypatch.setattr(place, never)


def asked(verb: tuple[str, ...], images: Path, *words: str) -> Done:
    given = [word.format(images=images) for word in verb]
    return call(*given, *QUICK, *words, "--out", images.parent / "out")


def folder(root: Path) -> Path:
    return write_folder(root / "images", 10)


def without_labels(root: Path) -> Path:
    (folder(root) / "water").mkdir()
    return root / "images"


def without_labels_below_train(root: Path) -> Path:
    write_folder(root / "images" / "train", 5)
    write_folder(root / "images" / "test", 3)
    (root / "images" / "train" / "water").mkdir()
    return root / "images"


def outside_the_schema(root: Path) -> Path:
    write_folder(root / "images" / "train", 5)
    write_folder(root / "images" / "test", 3)
    (root / "images" / "test" / "dark").rename(root / "images" / "test" / "water")
    return root / "images"


def outside_the_schema_of_a_table(root: Path) -> Path:
    images = folder(root)
    lines = [f"{p.relative_to(images)},{p.parent.name},train" for p in sorted(images.glob("*/*.png"))]
    lines[-1] = lines[-1].replace(",striped,train", ",water,test")
    (images / "labels.csv").write_text("\n".join(["file,label,split", *lines]))
    return images / "labels.csv"


def of_mixed_size(root: Path) -> Path:
    Image.fromarray(toy_image("dark", 0, 24)).save(folder(root) / "dark" / "dark_3.png")
    return root / "images"


def of_mixed_bands(root: Path) -> Path:
    Image.fromarray(toy_image("dark", 0)[:, :, 0]).save(folder(root) / "dark" / "dark_3.png")
    return root / "images"


def truncated(root: Path) -> Path:
    images = folder(root)
    (images / "dark" / "dark_3.png").unlink()
    path = images / "dark" / "dark_3.jpg"
    Image.fromarray(toy_image("dark", 0)).save(path)
    path.write_bytes(path.read_bytes()[:-60])
    return images


def too_small(root: Path) -> Path:
    return write_folder(root / "images", 10, side=8)


NO_WEIGHTS = ("--frozen-stages", "2", "--no-pretrained")
WRONG: list[tuple[Callable[[Path], Path], int, tuple[str, ...], str]] = [
    (without_labels, 2, (), "class 'water' has no labelled training image"),
    (without_labels_below_train, 2, (), "class 'water' has no labelled training image"),
    (outside_the_schema, 2, (), "class 'water' is not in the schema (image 'test/water/dark_0.png')"),
    (outside_the_schema_of_a_table, 2, (), "class 'water' is not in the schema (image 'striped/striped_9.png')"),
    (of_mixed_size, 2, (), "'dark/dark_3.png' has 3 bands of 24x24 px"),
    (of_mixed_bands, 2, (), "'dark/dark_3.png' has 1 bands of 16x16 px"),
    (truncated, 2, (), "1 of 30 images cannot be decoded: 'dark/dark_3.jpg'"),
    (too_small, 2, (), "images of 8 x 8 px found, expected at least 16 px"),
    (folder, 7, (), "7 labels a class asked for, but 'bright' has 6"),
    (folder, 6, (), "0 unlabelled images found, all 18 training images are used with their labels"),
    (folder, 2, NO_WEIGHTS, "frozen_stages is 2, expected 0 without pretrained weights"),
]


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("verb", [TRAIN, BENCH], ids=["train", "bench"])
@pytest.mark.parametrize(("make", "n_labels", "words", "text"), WRONG)
def test_wrong_images_are_told_before_training(
    tmp_path: Path,
    verb: tuple[str, ...],
    make: Callable[[Path], Path],
    n_labels: int,
    words: tuple[str, ...],
    text: str,
) -> None:
    flag = "--labels-per-class" if verb is TRAIN else "--labels"
    done = asked(verb, make(tmp_path), flag, str(n_labels), *words)
    assert (done.code, done.out) == (2, ""), done.err
    assert text in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not {path.name for path in tmp_path.glob("out/*")} & {"model", "report.json", "folder.json"}


@pytest.mark.usefixtures("untrained")
def test_frozen_stages_are_told_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> Any:
        raise AssertionError("nothing is to be decoded")

    monkeypatch.setattr("berunda.data.decode.decoded", never)
    words = ("--encoder", "wide_resnet28_2", "--frozen-stages", "3")
    done = asked(TRAIN, folder(tmp_path), *words)
    assert (done.code, "frozen_stages is 3, expected 0 to 2, the encoder_depth" in done.err) == (2, True)


@pytest.mark.usefixtures("untrained")
def test_all_labels_left_open_are_not_all_labels_asked_for(tmp_path: Path) -> None:
    done = asked(TRAIN, folder(tmp_path))
    assert done.code == 2
    assert "0 unlabelled images found" in done.err
    assert "--label-fraction 1" in done.err


def test_all_labels_asked_for_show_the_labelled_images_twice(tmp_path: Path) -> None:
    done = asked(TRAIN, folder(tmp_path), "--label-fraction", "1", "--option", "mu=1")
    assert done.code == 0, done.err
    told = json.loads((tmp_path / "out" / "report.json").read_text())
    assert told["images"]["training, with labels"] == told["images"]["training, shown without labels"] == 18
    assert any("the labelled images' own pixels took their place" in text for text in told["warnings"])


def test_all_labels_asked_for_are_benched(tmp_path: Path) -> None:
    done = asked(BENCH, folder(tmp_path), "--labels", "all", "--methods", "fixmatch", "--option", "fixmatch.mu=1")
    assert done.code == 0, done.err


def test_other_images_serve_where_all_labels_are_used(tmp_path: Path) -> None:
    images = write_folder(tmp_path / "images", 10, n_unlabelled=3)
    done = asked(TRAIN, images, "--option", "mu=1")
    assert done.code == 0, done.err
    told = json.loads((tmp_path / "out" / "report.json").read_text())
    assert not any("took their place" in text for text in told["warnings"])


def test_truncated_images_are_skipped_where_that_is_asked_for(tmp_path: Path) -> None:
    images = truncated(tmp_path)
    done = asked(TRAIN, images, "--method", "supervised", "--skip-broken")
    assert done.code == 0, done.err
    told = json.loads((tmp_path / "out" / "report.json").read_text())
    assert told["images"]["broken, left out"] == 1
    assert any("1 images cannot be read and were left out: dark/dark_3.jpg" in text for text in told["warnings"])


@pytest.mark.parametrize("is_table", [False, True], ids=["folder", "csv"])
def test_images_that_train_and_test_are_counted_and_named(tmp_path: Path, is_table: bool) -> None:
    images = write_folder(tmp_path / "images" / "train", 6)
    for number, kind in enumerate(CLASSES):
        (images.parent / "test" / kind).mkdir(parents=True)
        for i in range(4):
            of_its_own = toy_image(kind, 5000 + 10 * number + i)
            Image.fromarray(of_its_own).save(images.parent / "test" / kind / f"t{i}.png")
    shutil.copy(images / "dark" / "dark_5.png", images.parent / "test" / "dark" / "t2.png")
    dataset = images.parent
    if is_table:
        rows = [(p.relative_to(dataset), p.parent.name, p.parts[-3]) for p in sorted(dataset.glob("*/*/*.png"))]
        lines = [",".join(map(str, row)) for row in rows]
        (dataset / "labels.csv").write_text("\n".join(["file,label,split", *lines]))
        dataset = dataset / "labels.csv"
    parts = open_images(str(dataset)).parts[open_images(str(dataset)).names.index("train/dark/dark_5.png")]
    assert parts == TRAIN_PART, "the pair is one of training and test"
    done = asked(TRAIN, dataset, "--method", "supervised")
    assert done.code == 0, done.err
    told = json.loads((dataset.parent / "out" / "report.json").read_text())
    assert told["images"]["test, but in another part too"] == 1
    (warning,) = (text for text in told["warnings"] if "very pixels" in text)
    assert warning.startswith("1 of 12 test images")
    assert "train/dark/dark_5.png = test/dark/t2.png" in warning
