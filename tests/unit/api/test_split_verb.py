"""The table of a split: which images it lists and what for, with rasters of classes and images without data."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import rasterio
from toy_masks import write_png, write_tif
from toy_sites import picture, write_site, write_sites

from berunda.api import split_verb
from berunda.api.split_verb import audit, split
from berunda.data.images import TRAIN, UNLABELLED
from berunda.data.masks.images import open_masks
from berunda.data.synthetic import Landscape, write_scene, write_truth
from berunda.geo import vector
from berunda.options.analyze import SplitOptions


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BERUNDA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def given(source: Path, **more: object) -> SplitOptions:
    return SplitOptions.make({"inputs": [str(source)], "image_px": 32, **more})


def rows_of(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_of_too_many_images_the_table_lists_those_that_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_sites(tmp_path / "sites", 6)
    whole = split(given(root, max_per_site=4), root / "split.csv")
    assert len(rows_of(whole.table)) == 24
    monkeypatch.setattr(split_verb, "MAX_LISTED", 23)
    drawn = split(given(root, max_per_site=4), root / "split.csv")
    assert len(rows_of(drawn.table)) == 16
    assert (drawn.roles, drawn.figures) == (whole.roles, whole.figures)
    assert any("They stand in no table either, as there are more than 23" in text for text in drawn.warnings)
    assert not any("stand in the table too" in text for text in drawn.warnings)


def test_images_that_are_not_looked_at_know_their_rasters_of_classes(tmp_path: Path) -> None:
    for seed, site in enumerate(("a", "b", "c", "d")):
        write_site(tmp_path / "d" / site / "images", seed, 6)
        for k in range(6):  # nothing is labelled in the last two images of each site
            known = np.full((32, 32), k % 3 + 1 if k < 4 else 0, np.uint8)
            write_png(tmp_path / "d" / site / "labels" / f"{k:03d}.png", known)
    outcome = split(given(tmp_path / "d", max_per_site=3, n_labelled=2), tmp_path / "d" / "split.csv")
    rows = rows_of(outcome.table)
    assert len(rows) == 24
    for row in rows:
        is_known = int(Path(row["file"]).stem) < 4
        assert bool(row["truth"]) == is_known
        if row["role"] == "labelled":
            assert row["split"] == ("train" if is_known else "unlabelled")
    assert outcome.counts == {"labelled": 8, "unlabelled": 10, "test": 6, "left out": 0}
    masks = open_masks(str(outcome.table))
    assert len(masks.of(UNLABELLED)) == 10


def test_a_raster_of_classes_of_another_grid_becomes_one_on_the_scene(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = Landscape(seed=3, rows=256, cols=256, cloud_share=0.0, site="site23")
    scene, truth = write_scene(tmp_path / "scene.tif", spec), write_truth(tmp_path / "classes.tif", spec)
    with rasterio.open(truth) as file:
        values, profile, tags = file.read(1), file.profile, file.tags()
    fine = values[:, :192].repeat(2, 0).repeat(2, 1)  # of twice the detail, and without the last columns
    profile |= {"height": 512, "width": 384, "transform": profile["transform"] * profile["transform"].scale(0.5)}
    with rasterio.open(tmp_path / "fine.tif", "w", **profile) as file:
        file.write(fine, 1)
        file.update_tags(**tags)
    monkeypatch.setattr(vector, "read_regions", None)  # no region is to become a polygon
    more = {"labels": str(tmp_path / "fine.tif"), "block_px": 32, "buffer_px": 0, "max_per_site": 3}
    outcome = split(given(scene, **more), tmp_path / "split.csv")
    with rasterio.open(tmp_path / "split_truth.tif") as made, rasterio.open(truth) as original:
        found, names = made.read(1), made.tags()
        expected, own = original.read(1), original.tags()
    assert not found[:, 192:].any()
    for number in np.unique(found[:, :192]):
        inside = expected[:, :192][found[:, :192] == number]
        assert names[f"CLASS_{number}"] == own[f"CLASS_{inside[0]}"]
        assert (inside == inside[0]).all()
    rows = rows_of(outcome.table)
    assert len(rows) == 64
    assert {row["truth"] for row in rows if int(row["col"]) < 192} == {"split_truth.tif"}
    assert {row["truth"] for row in rows if int(row["col"]) >= 192} == {""}
    assert not {row["split"] for row in rows if int(row["col"]) >= 192} & {"train"}
    assert len(open_masks(str(outcome.table)).of(TRAIN))


def half_empty(path: Path, seed: int, n_empty: int) -> Path:
    """Write an image whose first columns hold no data."""
    values = picture(seed).transpose(2, 0, 1).copy()
    values[:, :, :n_empty] = 0
    return write_tif(path, values, nodata=0)


@pytest.mark.parametrize("max_per_site", [10, 3])
def test_images_without_data_stand_in_the_table_as_left_out(tmp_path: Path, max_per_site: int) -> None:
    for seed, site in enumerate(("a", "b", "c")):
        for k in range(5):
            number = 10 * seed + k  # its letter tells its place on the ground
            half_empty(tmp_path / "d" / site / f"{chr(65 + number)}.tif", number, 20 if k == 2 else 0)
    outcome = split(given(tmp_path / "d", max_per_site=max_per_site, buffer_px=0), tmp_path / "d" / "split.csv")
    rows = rows_of(outcome.table)
    assert len(rows) == 15
    assert [row["file"] for row in rows if row["split"] == "left out"] == ["a/C.tif", "b/M.tif", "c/W.tif"]
    assert any("hold" in text and "data" in text for text in outcome.warnings)
    assert not audit(outcome.table).warnings
    free = split(given(tmp_path / "d", max_per_site=max_per_site, min_valid=0.3), tmp_path / "d" / "split.csv")
    assert not any("--min-valid" in text for text in free.warnings)


@pytest.mark.parametrize("is_mixed", [False, True])
def test_the_audit_counts_the_images_without_data(tmp_path: Path, is_mixed: bool) -> None:
    files = [half_empty(tmp_path / f"{k}.tif", k, 20 if k > 1 else 0).name for k in range(4)]
    if is_mixed:
        write_tif(tmp_path / "grey.tif", picture(9)[None, :, :, 0], nodata=0)
        files.append("grey.tif")
    lines = [f"{name},{'test' if k % 2 else 'train'}" for k, name in enumerate(files)]
    (tmp_path / "split.csv").write_text("\n".join(["file,split", *lines]) + "\n", encoding="utf-8")
    found = audit(tmp_path / "split.csv", buffer_px=0)
    assert found.n_images == len(files) - 2
    told = "2 images hold data on less than 50% of their pixels and were not checked: 2.tif and so on."
    assert told in found.warnings


def test_the_audit_goes_by_what_trains_not_by_the_site(tmp_path: Path) -> None:
    paths = write_site(tmp_path, 1, 2)
    paths[1].write_bytes(paths[0].read_bytes())
    table = tmp_path / "split.csv"
    lines = ["file,split,site,role", "000.png,{},a,labelled", "001.png,test,b,test"]
    for word, n_leaks in (("train", 1), ("unlabelled", 0)):
        table.write_text("\n".join(lines).format(word) + "\n", encoding="utf-8")
        assert len(audit(table).leaks) == n_leaks
        assert len(audit(table).transductive) == 1 - n_leaks
