"""Data sets with masks: each is read from files laid out as published, and what is missing or hostile is told."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from toy_masks import PUBLISHED, published, scene, write_png, write_tif

from berunda.data import catalog
from berunda.data.catalog._france import CLASSES, LABELLED, ROLES, UNLABELLED_TOWNS
from berunda.data.catalog.cityscapes import CATEGORIES
from berunda.data.catalog.minifrance import MiniFrance
from berunda.data.images import TEST, TRAIN, UNLABELLED, VALIDATION
from berunda.data.masks.images import MaskSet, open_masks
from berunda.errors import DataError, SecurityError

DATA = Path(os.environ.get("BERUNDA_DATA", "") or "/nonexistent")
SIDE = 16
COLOURS = {
    "vaihingen": ((255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0)),
    "dubai": ((60, 16, 152), (132, 41, 246), (110, 193, 228), (254, 221, 58), (226, 169, 41), (155, 155, 155)),
}
COLOURS["potsdam"] = COLOURS["vaihingen"]
WITH_MASKS = [
    entry.name for entry in catalog.entries() if "segmentation" in entry.tasks and entry.name not in ("csv", "folder")
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERUNDA_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("BERUNDA_CACHE", str(tmp_path / "cache"))


def lay_out(name: str, root: Path, only: tuple[str, ...] = ("",)) -> Path:
    """Write a tiny file for every published name that begins with one of `only`."""
    for number, file in enumerate(published(name)):
        if not file.startswith(only):
            continue
        path, (image, classes) = root / file, scene(SIDE, number)
        if name in COLOURS and any(word in file for word in ("label", "gts_for", "complete/", "masks/")):
            write_png(path, np.array(COLOURS[name], np.uint8)[(classes + number) % 6])
        elif "RGEALTI" in file:
            write_tif(path, np.full((1, SIDE // 2, SIDE // 2), 100 + number, np.float32), 1.0)
        elif "BDORTHO" in file:
            write_tif(path, image.transpose(2, 0, 1))
        elif "/UA/" in f"/{file}" or "UrbanAtlas" in file:
            tile = path.with_name(path.name.replace("_UA2012", ""))
            write_tif(tile, (np.arange(SIDE * SIDE).reshape(1, SIDE, SIDE) % 16).astype(np.uint8))
            tile.rename(path)
        elif file.endswith("labelIds.png"):
            write_png(path, (np.arange(SIDE * SIDE).reshape(SIDE, SIDE) % 34).astype(np.uint8))
        elif "masks_png" in file:
            write_png(path, (np.arange(SIDE * SIDE).reshape(SIDE, SIDE) % 8).astype(np.uint8))
        else:
            write_png(path, image)
    return root


def counts(masks: MaskSet) -> list[int]:
    return np.bincount(masks.parts, minlength=4).tolist()


@pytest.mark.parametrize("name", WITH_MASKS)
def test_every_data_set_has_a_list_of_published_names_with_its_source(name: str) -> None:
    head = [
        line for line in (PUBLISHED / f"{name}.txt").read_text(encoding="utf-8").splitlines() if line.startswith("#")
    ]
    assert any("Source:" in line or "ould not be verified" in line or "as in public code" in line for line in head)


@pytest.mark.parametrize("name", WITH_MASKS)
def test_what_is_missing_says_what_to_fetch_from_where_into_which_folder(name: str, tmp_path: Path) -> None:
    entry = catalog.load(name)
    with pytest.raises(DataError) as caught:
        open_masks(name)
    assert str(tmp_path / "data" / entry.folders[0]) in str(caught.value)
    assert entry.downloads[0].url in str(caught.value)


def test_cityscapes_has_seven_categories_and_ignores_void(tmp_path: Path) -> None:
    masks = open_masks("cityscapes", folder=lay_out("cityscapes", tmp_path / "c"))
    assert set(masks.classes) == {"flat", "human", "vehicle", "construction", "object", "nature", "sky"}
    assert counts(masks) == [2, 0, 1, 1]
    index = masks.of(TRAIN)[0]
    values, said = np.arange(SIDE * SIDE) % 34, masks.labels(int(index)).ravel()
    for category, ids in CATEGORIES.items():
        expected = -1 if category == "void" else masks.classes.index(category)
        assert set(said[np.isin(values, ids)]) == {expected}
    assert set(masks.sites) == {"aachen", "frankfurt", "augsburg"}


def test_loveda_tests_on_val_and_ignores_zero(tmp_path: Path) -> None:
    masks = open_masks("loveda", folder=lay_out("loveda", tmp_path / "l"))
    assert counts(masks) == [3, 0, 2, 0]
    assert masks.classes[:2] == ("background", "building")
    assert masks.labels(0).ravel()[:9].tolist() == [-1, 0, 1, 2, 3, 4, 5, 6, -1]
    assert set(masks.sites) == {"Rural", "Urban"}


def test_loveda_is_read_from_its_archives_alike(tmp_path: Path) -> None:
    plain = lay_out("loveda", tmp_path / "l")
    (tmp_path / "zipped").mkdir()
    for part in ("Train", "Val"):
        with zipfile.ZipFile(tmp_path / "zipped" / f"{part}.zip", "w") as opened:
            for path in sorted((plain / part).rglob("*.png")):
                opened.write(path, path.relative_to(plain))
    one, two = (open_masks("loveda", folder=folder) for folder in (plain, tmp_path / "zipped"))
    assert one.names == two.names
    np.testing.assert_array_equal(one.flat_labels, two.flat_labels)
    np.testing.assert_array_equal(one.flat_pixels, two.flat_pixels)


def test_a_hostile_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "l").mkdir()
    with zipfile.ZipFile(tmp_path / "l" / "Train.zip", "w") as opened:
        opened.writestr("../../outside/Train/Urban/images_png/1.png", b"x")
    with pytest.raises(SecurityError):
        open_masks("loveda", folder=tmp_path / "l")
    assert not (tmp_path / "outside").exists()


def test_vaihingen_splits_by_the_masks_that_are_there(tmp_path: Path) -> None:
    root = lay_out("vaihingen", tmp_path / "v", ("top/", "gts_for"))
    masks = open_masks("vaihingen", folder=root)
    assert counts(masks) == [12, 0, 4, 0]
    assert {masks.sites[i] for i in masks.of(TEST)} == {"5", "15", "21", "30"}
    assert masks.bands == ("nir", "red", "green")
    whole = open_masks("vaihingen", folder=lay_out("vaihingen", root))
    assert counts(whole) == [16, 0, 17, 0]
    assert len(whole.classes) == 6


def test_potsdam_has_24_tiles_to_train_and_14_to_test(tmp_path: Path) -> None:
    masks = open_masks("potsdam", folder=lay_out("potsdam", tmp_path / "p"))
    assert counts(masks) == [24, 0, 14, 0]
    assert set(np.unique(masks.labels(0))) <= set(range(6))


def test_minifrance_knows_the_role_of_every_conurbation(tmp_path: Path) -> None:
    assert len(ROLES) == 16
    masks = open_masks("minifrance", folder=lay_out("minifrance", tmp_path / "m"))
    roles = dict(zip(masks.sites, masks.parts.tolist(), strict=True))
    assert roles == {"Nice": TRAIN, "Nantes_Saint-Nazaire": TRAIN, "Brest": UNLABELLED, "Rennes": TEST}
    assert not masks.has_mask[masks.of(UNLABELLED)].any()
    assert masks.classes == tuple(name for name, _ in CLASSES)
    assert masks.colors[0] == "#db5f57"
    assert masks.labels(int(masks.of(TRAIN)[0])).ravel()[:16].tolist() == [-1, *range(14), -1]


def test_tinyminifrance_is_read_with_its_published_names(tmp_path: Path) -> None:
    masks = open_masks("tinyminifrance", folder=lay_out("tinyminifrance", tmp_path / "t"))
    assert counts(masks) == [2, 0, 3, 3]
    assert {masks.sites[i] for i in masks.of(UNLABELLED)} <= set(UNLABELLED_TOWNS)
    assert {masks.sites[i] for i in masks.of(TRAIN)} == set(LABELLED)


def test_dfc22_puts_elevation_on_the_grid_of_the_image(tmp_path: Path) -> None:
    masks = open_masks("mf_dfc22", folder=lay_out("mf_dfc22", tmp_path / "d"))
    assert masks.bands == ("red", "green", "blue", "elevation")
    assert (masks.parts == UNLABELLED).sum() == 2
    assert set(masks.parts.tolist()) <= {TRAIN, VALIDATION, TEST, UNLABELLED}
    names = published("mf_dfc22")
    for index, name in enumerate(masks.names):
        number = names.index(name)
        pixels = masks.pixels(index)
        np.testing.assert_array_equal(pixels[:3], scene(SIDE, number)[0].transpose(2, 0, 1))
        np.testing.assert_allclose(pixels[3], 100 + number + 1)  # the elevation is the next name of the list
    assert not any("val/" in name for name in masks.names)


def test_christchurch_asks_for_the_meaning_of_its_colours(tmp_path: Path) -> None:
    root = tmp_path / "c"
    for number in range(5):
        image, classes = scene(SIDE, number)
        write_png(root / f"tile{number}.png", image)
        write_png(root / f"tile{number}_gt.png", (classes + 1).astype(np.uint8))
    with pytest.raises(DataError, match=r"classes.csv: not found; what the colours or numbers of the masks mean"):
        open_masks("christchurch", folder=root)
    (root / "classes.csv").write_text("value,name\n1,building\n2,vehicle\n3,vegetation\n")
    masks = open_masks("christchurch", folder=root)
    assert (masks.classes, len(masks)) == (("building", "vehicle", "vegetation"), 5)
    assert len(masks.of(TEST)) >= 1


def test_dubai_is_split_by_tile(tmp_path: Path) -> None:
    masks = open_masks("dubai", folder=lay_out("dubai", tmp_path / "u"))
    assert {masks.sites[i] for i in masks.of(TEST)} == {"Tile 3", "Tile 6"}
    assert counts(masks) == [12, 0, 4, 0]
    assert masks.classes == ("building", "land (unpaved)", "road", "vegetation", "water")


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "dubai_aerial").is_dir(), reason="BERUNDA_DATA has no folder dubai_aerial")
def test_the_real_dubai_has_72_images_and_known_shares() -> None:
    masks = open_masks("dubai", folder=DATA / "dubai_aerial")
    assert counts(masks) == [54, 0, 18, 0]
    expected = {"building": 0.133, "land (unpaved)": 0.524, "road": 0.094, "vegetation": 0.103, "water": 0.136}
    shares = masks.class_shares(range(72))
    np.testing.assert_allclose(shares, np.array([expected[name] for name in masks.classes]) / 0.99, atol=0.002)


def test_numbers_of_urban_atlas_are_those_of_the_maps() -> None:
    """A bundle numbers classes 1..C in the order of the schema."""
    values = np.arange(1, 15).reshape(1, -1)
    np.testing.assert_array_equal(MiniFrance.schema.classes_of(values, "mask") + 1, values)
    assert MiniFrance.schema.names == tuple(name for name, _ in CLASSES)
