"""Data sets with several labels an image: published layouts on tiny files, and what does not fit is told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_images import class_files, image_set, photo, write_tree
from toy_rasters import write_tif

from berunda.data import catalog
from berunda.data.catalog import _bigearthnet
from berunda.data.catalog._bigearthnet import BANDS, CLASSES_19, CLASSES_43
from berunda.data.images import TEST, TRAIN, VALIDATION, ImageSet, open_images
from berunda.data.subsets import label_subset, stratified_parts
from berunda.errors import DataError, SecurityError

LABELS = ("airplane", "bare-soil", "water")


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing is found but what a test puts below this folder."""
    monkeypatch.setenv("BERUNDA_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("BERUNDA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "data"


def rows_of(names: list[str], delimiter: str = ",", first: str = "IMAGE\\LABEL") -> bytes:
    """Return a table in which image i has label i modulo 3, and water as well where i is even."""
    lines = [delimiter.join([first, *LABELS])]
    for i, name in enumerate(names):
        lines.append(delimiter.join([name, *(str(int(i % 3 == c or (c == 2 and i % 2 == 0))) for c in range(3))]))
    return ("\n".join(lines) + "\n").encode()


def counts(images: ImageSet) -> list[int]:
    return np.bincount(images.parts, minlength=4).tolist()


def expected_labels(n: int) -> list[list[float]]:
    return [[float(i % 3 == c or (c == 2 and i % 2 == 0)) for c in range(3)] for i in range(n)]


def test_the_publishers_table_of_uc_merced_is_read(elsewhere: Path) -> None:
    files = class_files(["beach", "river"], 5, suffix=".tif", prefix="Images/", kind="TIFF")
    names = [Path(name).stem for name in files]
    write_tree(elsewhere / "ucmerced", {**files, "LandUse_Multilabeled.txt": rows_of(names, "\t")})
    images = open_images("ucmerced", task="multilabel")
    assert images.classes == LABELS
    assert images.labels.tolist() == expected_labels(10)
    assert counts(images) == [7, 1, 2, 0]


@pytest.mark.parametrize("name", ["aid_multilabel", "dfc15_multilabel"])
def test_images_in_two_parts_and_their_table(elsewhere: Path, name: str) -> None:
    train = class_files(["Airport", "Beach"], 8, prefix="images_tr/")
    test = class_files(["Harbor"], 4, prefix="images_test/")
    stems = [Path(n).stem for n in (*test, *train)]
    folder = elsewhere / catalog.load(name).folders[1]
    write_tree(folder / "unpacked", {**train, **test, "multilabel.csv": rows_of(stems)})
    images = open_images(name)
    assert images.task == "multilabel"
    assert images.classes == LABELS
    assert counts(images) == [14, 2, 4, 0]
    assert images.labels.tolist() == expected_labels(20)
    assert {n.split("/")[0] for n, part in zip(images.names, images.parts, strict=True) if part == TEST} == {
        "images_test"
    }


def test_mlrsnet_joins_its_tables(elsewhere: Path) -> None:
    files = class_files(["airplane", "beach"], 5, prefix="Images/", suffix=".jpg", kind="JPEG")
    names = [Path(name).name for name in files]
    tables = {f"Labels/{c}.csv": rows_of([n for n in names if c in n], first="image") for c in ("airplane", "beach")}
    folder = write_tree(elsewhere / "mlrsnet", {**files, **tables})
    images = open_images("mlrsnet")
    assert images.labels.tolist() == expected_labels(5) * 2
    assert counts(images) == [7, 1, 2, 0]
    (folder / "Labels" / "beach.csv").write_bytes(b"image,sea\nbeach_0.jpg,1\n")
    with pytest.raises(DataError, match=r"beach.csv: 1 columns of classes found, expected the 3 of airplane.csv"):
        open_images("mlrsnet")


PATCHES = {
    "S2A_1_0_0": (["Pastures", "Sea and ocean"], "train"),
    "S2A_1_0_1": (["Continuous urban fabric", "Airports"], "train"),
    "S2A_1_0_2": (["Olive groves"], "val"),
    "S2A_1_0_3": (["Peatbogs"], "test"),
}


def write_bigearthnet(root: Path) -> Path:
    lists: dict[str, list[str]] = {}
    for number, (name, (labels, word)) in enumerate(PATCHES.items()):
        radar = name.replace("S2A", "S1B")
        lists.setdefault(word, []).append(f"{name},{radar}")
        for folder, patch, bands in (
            ("BigEarthNet-v1.0", name, BANDS["s2"]),
            ("BigEarthNet-S1-v1.0", radar, BANDS["s1"]),
        ):
            place = root / folder / patch
            place.mkdir(parents=True)
            for i, band in enumerate(bands):
                side = 20 if band in ("B01", "B09") else 120 if band in ("B02", "VV", "VH") else 60
                kind = np.uint16 if folder == "BigEarthNet-v1.0" else np.float32
                write_tif(place / f"{patch}_{band}.tif", np.full((1, side, side), 100 * number + i + 1, kind))
            (place / f"{patch}_labels_metadata.json").write_text(json.dumps({"labels": labels}))
    for word, rows in lists.items():
        (root / f"{word}.csv").write_text("\n".join(rows) + "\n")
    return root


def present(images: ImageSet, index: int) -> set[str]:
    return {name for name, value in zip(images.classes, images.labels[index], strict=True) if value == 1}


def test_patches_of_both_satellites_with_19_and_43_classes(elsewhere: Path) -> None:
    write_bigearthnet(elsewhere / "bigearthnet")
    images = open_images("bigearthnet")
    assert images.pixels.shape == (4, 12, 120, 120)
    assert images.pixels.dtype == np.uint16
    assert images.pixels[2, :, 7, 9].tolist() == [200 + i + 1 for i in range(12)]
    assert images.parts.tolist() == [TRAIN, TRAIN, VALIDATION, TEST]
    assert [present(images, i) for i in range(4)] == [
        {"Pastures", "Marine waters"},
        {"Urban fabric"},
        {"Permanent crops"},
        {"Inland wetlands"},
    ]
    every = open_images("bigearthnet_43")
    assert [present(every, i) for i in range(4)] == [set(labels) for labels, _ in PATCHES.values()]
    radar = open_images("bigearthnet_s1")
    assert radar.pixels.shape == (4, 2, 120, 120)
    assert radar.names[0] == "S1B_1_0_0"
    both = open_images("bigearthnet_mm")
    assert both.bands == (*BANDS["s1"], *BANDS["s2"])
    assert both.pixels[1, :, 0, 0].tolist() == [101, 102, *(100 + i + 1 for i in range(12))]


def test_archives_of_bigearthnet_that_are_not_unpacked_are_told(elsewhere: Path) -> None:
    write_tree(elsewhere / "bigearthnet", {"BigEarthNet-S2-v1.0.tar.gz": b"", "train.csv": b"S2A_1,S1B_1"})
    with pytest.raises(DataError, match=r"unpack the archives there, so that it holds BigEarthNet-v1.0, train.csv"):
        open_images("bigearthnet")


def test_classes_of_bigearthnet_are_19_and_43() -> None:
    assert (len(CLASSES_19), len(CLASSES_43), len(set(CLASSES_43))) == (19, 43, 43)


def test_what_is_wrong_with_bigearthnet_is_told(elsewhere: Path) -> None:
    root = write_bigearthnet(elsewhere / "bigearthnet")
    path = root / "BigEarthNet-v1.0" / "S2A_1_0_2" / "S2A_1_0_2_labels_metadata.json"
    path.write_text('{"labels": ["Moon"]}')
    with pytest.raises(DataError, match="class 'Moon' found, expected one of the 43"):
        open_images("bigearthnet")
    (root / "val.csv").write_text("S2A_9,S1B_9\n")
    with pytest.raises(DataError, match=r"S2A_9_labels_metadata.json: no labels of this listed patch"):
        open_images("bigearthnet")
    (root / "val.csv").write_text("../secret,S1B_9\n")
    with pytest.raises(SecurityError, match=r"val.csv row 1: patch '../secret' refused"):
        open_images("bigearthnet")


def test_labels_of_bigearthnet_are_read_once_and_again_when_a_patch_changed(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_bigearthnet(elsewhere / "bigearthnet")
    monkeypatch.setattr(_bigearthnet, "_N_CHECKED", 2)
    plain, read = _bigearthnet._labels, list[Path]()

    def counted(classes: Sequence[str], pair: Any) -> tuple[float, ...]:
        read.append(pair.first)
        return plain(classes, pair)

    monkeypatch.setattr(_bigearthnet, "_labels", counted)
    first = open_images("bigearthnet_43")
    assert len(read) == 4
    read.clear()
    again = open_images("bigearthnet_43")
    assert len(read) == 2, "some are looked at"
    assert again.labels.tolist() == first.labels.tolist()
    assert again.fingerprint == first.fingerprint
    (root / "BigEarthNet-v1.0" / "S2A_1_0_3" / "S2A_1_0_3_labels_metadata.json").write_text('{"labels": ["Pastures"]}')
    assert present(open_images("bigearthnet_43"), 3) == {"Pastures"}
    (note,) = (elsewhere.parent / "cache" / "images" / "listings").iterdir()
    note.write_bytes(note.read_bytes()[:50])
    assert present(open_images("bigearthnet_43"), 3) == {"Pastures"}


def write_ankara(root: Path, n: int = 10) -> Path:
    from scipy.io import savemat

    root.mkdir(parents=True)
    for number in range(1, n + 1):
        savemat(root / f"{number:03d}_EO1H.mat", {"patch": np.full((63, 63, 119), number, np.int16)})
    lines = ["Image,Road,Forest"] + [f"{i},{'x' if i % 2 else ''},{'x' if i % 3 == 0 else ''}" for i in range(1, n + 1)]
    (root / "Labels.csv").write_text("\n".join(lines))
    return root


def test_ankara_is_read_by_the_numbers_of_its_tiles(elsewhere: Path) -> None:
    root = write_ankara(elsewhere / "ankara" / "AnkaraHSIArchive")
    images = open_images("ankara")
    assert images.pixels.shape == (10, 119, 63, 63)
    assert images.pixels[:, 0, 0, 0].tolist() == list(range(1, 11))
    assert images.classes == ("Road", "Forest")
    assert images.labels.tolist() == [[float(i % 2), float(i % 3 == 0)] for i in range(1, 11)]
    assert counts(images) == [7, 1, 2, 0]
    (root / "Labels.csv").write_text("Image,Road\n1,x\n")
    with pytest.raises(DataError, match="1 rows and 10 tiles found"):
        open_images("ankara")
    (root / "Labels.csv").write_text("Image,Road\n1,yes\n")
    with pytest.raises(DataError, match=r"row 2: 'yes' found, expected x or nothing"):
        open_images("ankara")
    write_ankara(elsewhere / "other")
    (elsewhere / "other" / "001_EO1H.mat").write_bytes(b"no array")
    with pytest.raises(DataError, match=r"001_EO1H\.mat"):
        open_images("ankara", folder=elsewhere / "other")


# Bad input


def aid(root: Path, table: bytes) -> Path:
    return write_tree(
        root / "aid_multilabel",
        {**class_files(["A"], 3, prefix="images_tr/"), "images_test/x.png": photo(9), "multilabel.csv": table},
    )


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (
            rows_of(["A_0", "A_1", "A_2"]),
            r"no row for 1 images, such as 'images_test/x.png'; .*empty cells are unknown",
        ),
        (rows_of(["A_0", "A_1", "A_2", "x", "y"]), r"no image for 1 rows, such as 'y'"),
        (rows_of(["A_0", "A_1", "A_2", "x", "x.png"]), r"a second row for image 'x.png'"),
        (
            rows_of(["A_0", "A_1", "A_2", "x"]).replace(b"1", b"7"),
            r"row \d, column 'airplane': '7' found, expected 1, 0",
        ),
        (b"IMAGE\\LABEL\nA_0\n", "no column for a class"),
    ],
)
def test_tables_that_do_not_fit_their_images_are_told(elsewhere: Path, table: bytes, told: str) -> None:
    aid(elsewhere, table)
    with pytest.raises(DataError, match=told):
        open_images("aid_multilabel")


def any_table(root: Path, lines: list[str], n_images: int) -> Path:
    write_tree(root, {f"i/{number}.png": photo(number) for number in range(n_images)})
    (root / "t.csv").write_text("\n".join(["file,sea,land", *lines]))
    return root / "t.csv"


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["i/0.png,1,0", "i/1.png,2,0"], r"row 3, column 'sea': '2' found, expected 1, 0 or nothing"),
        (["i/0.png,1,0", "i/1.png,yes,0"], r"row 3, column 'sea': 'yes' found"),
        (["i/0.png,1,0", "i/7.png,1,0"], r"'i/7.png' is not in"),
        (["i/0.png,1,0"], r"no row for image 'i/1.png'"),
    ],
)
def test_own_tables_that_do_not_fit_are_told(elsewhere: Path, tmp_path: Path, lines: list[str], told: str) -> None:
    with pytest.raises(DataError, match=told):
        open_images(str(any_table(tmp_path / "own", lines, 2)))


def test_own_tables_are_split_in_proportion_whatever_the_order_of_their_rows(elsewhere: Path, tmp_path: Path) -> None:
    lines = [f"i/{i}.png,{int(i % 10 == 0)},{int(i % 2)}" for i in range(40)]
    images = open_images(str(any_table(tmp_path / "own", lines, 40)))
    assert counts(images) == [24, 8, 8, 0]
    for part, most in ((TRAIN, 3), (VALIDATION, 1), (TEST, 1)):
        assert abs(int(images.labels[images.of(part), 0].sum()) - most) <= 1
    turned = open_images(str(any_table(tmp_path / "turned", lines[::-1], 40)))
    parts = dict(zip(turned.names, turned.parts.tolist(), strict=True))
    assert [parts[name] for name in images.names] == images.parts.tolist()


def test_images_that_a_table_leaves_out_need_no_labels_and_are_not_used(elsewhere: Path, tmp_path: Path) -> None:
    table = any_table(tmp_path / "own", [], 4)
    parts = ("train", "test", "test", "left out")
    table.write_text("\n".join(["file,sea,land,split", *(f"i/{i}.png,1,0,{part}" for i, part in enumerate(parts))]))
    assert open_images(str(table)).names == ("i/0.png", "i/1.png", "i/2.png")


def test_several_images_of_one_file_have_labels_and_parts_of_their_own(elsewhere: Path, tmp_path: Path) -> None:
    table = any_table(tmp_path / "own", [], 1)
    rows, cols = open_images(str(any_table(tmp_path / "whole", ["i/0.png,1,0"], 1))).size
    half = cols // 2
    at = [f"i/0.png,{int(col == 0)},1,0,{col},{rows},{half},{part}" for col, part in ((0, "train"), (half, "test"))]
    table.write_text("\n".join(["file,sea,land,row,col,n_rows,n_cols,split", *at]))
    images = open_images(str(table))
    assert images.classes == ("sea", "land")
    assert images.size == (rows, half)
    assert images.names == ("i/0.png@0,0", f"i/0.png@0,{half}")
    assert images.labels.tolist() == [[1, 1], [0, 1]]


def test_parts_are_of_the_sizes_asked_for_and_label_fractions_are_nested() -> None:
    values = (np.random.default_rng(1).random((300, 6)) < [0.5, 0.3, 0.2, 0.1, 0.05, 0.03]).astype(float)
    parts = stratified_parts(values, 60, 30, np.random.default_rng(0))
    assert np.bincount(parts).tolist() == [210, 30, 60]
    for part in (VALIDATION, TEST):
        share = (parts == part).mean()
        assert (abs(values[parts == part].sum(0) - share * values.sum(0)) <= 2.5).all()
    images = image_set(values, 6, parts.tolist())
    before: set[int] = set()
    for fraction in (0.05, 0.1, 0.25):
        chosen = set(label_subset(images, fraction, "fraction", 1).tolist())
        assert before < chosen
        before = chosen
