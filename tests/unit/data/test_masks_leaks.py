"""What of the training can be seen in the test: copies of images, and sites on both sides."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_masks import write_folder, write_png

from berunda.data.images import TEST
from berunda.data.masks.images import open_masks
from berunda.data.masks.leaks import copied_test_images, leaks


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERUNDA_CACHE", str(tmp_path / "cache"))


def test_copies_are_found_by_their_pixels(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", parts={"train": 3, "test": 3}, side=96)
    assert list(leaks(open_masks(str(folder)))) == []
    for kind in ("images", "masks"):
        shutil.copy(folder / "train" / kind / "part_01.png", folder / "test" / kind / "part_04.png")
    masks = open_masks(str(folder))
    assert [masks.names[i] for i in copied_test_images(masks)] == ["test/images/part_04.png"]
    (told,) = leaks(masks)
    assert "1 of 3 test images have the very pixels" in told
    assert "test/images/part_04.png" in told


def test_an_image_that_differs_in_one_pixel_is_no_copy(tmp_path: Path) -> None:
    """The pixel lies between those that are compared first."""
    folder = write_folder(tmp_path / "set", parts={"train": 3, "test": 3}, side=96)
    with Image.open(folder / "train" / "images" / "part_01.png") as opened:
        changed = opened.copy()
    changed.putpixel((2, 2), (1, 2, 3))
    write_png(folder / "test" / "images" / "part_04.png", np.asarray(changed))
    assert copied_test_images(open_masks(str(folder))) == []


@pytest.mark.parametrize(("n_sites", "is_told"), [(2, True), (5, False)])
def test_sites_on_both_sides_are_told(n_sites: int, is_told: bool, tmp_path: Path) -> None:
    for number in range(n_sites):
        write_folder(tmp_path / "set" / f"Site {number}", n=6)
    (tmp_path / "set" / "classes.csv").write_text((tmp_path / "set" / "Site 0" / "classes.csv").read_text())
    masks = open_masks(str(tmp_path / "set"))
    assert len(masks.of(TEST))
    told = [text for text in leaks(masks) if "test sites also train" in text]
    assert bool(told) is is_told
