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
from berunda.data.images import TEST, TRAIN, UNLABELLED, open_images
from berunda.data.masks.images import open_masks
from berunda.data.synthetic import Landscape, write_scene, write_truth
from berunda.errors import DataError
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


def labelled_sites(root: Path, labels: dict[str, str]) -> str:
    """Write sites of six images with the labels that the letters mean, and a table of them; "-" is no label."""
    lines = ["site,path,label"]
    for seed, (site, letters) in enumerate(labels.items()):
        for path, letter in zip(write_site(root / site, seed, 6), letters, strict=True):
            lines.append(f"{site},{site}/{path.name},{letter.strip('-')}")
    (root / "sites.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(root / "sites.csv")


def test_test_images_without_a_label_do_not_train(tmp_path: Path) -> None:
    table = labelled_sites(tmp_path, {"a": "fffttt", "b": "fftt--", "c": "ft----"})
    chosen = {"labelled": ["a"], "test": ["b"], "buffer_px": 0}
    outcome = split(given(Path(table), **chosen), tmp_path / "split.csv")
    assert outcome.counts == {"labelled": 6, "unlabelled": 6, "test": 4, "left out": 2}
    assert "2 images of the sites to test on are left out: they have no label to test against." in outcome.warnings
    assert not any("train refuses" in text for text in outcome.warnings)
    images = open_images(str(outcome.table))
    assert {images.names[i].split("/")[0] for i in images.of(UNLABELLED)} == {"c"}
    assert len(images.of(TEST)) == 4


def test_a_class_that_only_test_images_have_is_told(tmp_path: Path) -> None:
    table = labelled_sites(tmp_path, {"a": "fffttt", "b": "fttwww"})
    outcome = split(given(Path(table), labelled=["a"], test=["b"], buffer_px=0), tmp_path / "split.csv")
    assert any("of class 'w', which test images are of: train refuses" in text for text in outcome.warnings)
    with pytest.raises(DataError, match="class 'w' is not in the schema"):
        open_images(str(outcome.table))


def test_no_labels_in_the_chosen_sites_and_none_beyond_the_buffer_are_told_apart(tmp_path: Path) -> None:
    table = labelled_sites(tmp_path, {"a": "------", "b": "ffffff", "c": "ffffff"})
    outcome = split(given(Path(table), labelled=["a"], test=["b"], buffer_px=0), tmp_path / "split.csv")
    assert any(text.startswith("Nothing is labelled in the sites to label") for text in outcome.warnings)
    assert not any("beyond the buffer" in text for text in outcome.warnings)
    table = labelled_sites(tmp_path, {"a": "f-----", "b": "ffffff", "c": "ffffff"})
    (tmp_path / "a" / "000.png").write_bytes((tmp_path / "b" / "000.png").read_bytes())
    outcome = split(given(Path(table), labelled=["a"], test=["b"], buffer_px=0), tmp_path / "split.csv")
    assert not any("Nothing is labelled" in text for text in outcome.warnings)
    assert any(text.startswith("No labelled image is left beyond the buffer") for text in outcome.warnings)


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
def test_the_audit_looks_at_the_ground_of_images_without_data(tmp_path: Path, is_mixed: bool) -> None:
    files = [half_empty(tmp_path / f"{k}.tif", k, 20 if k > 1 else 0).name for k in range(4)]
    if is_mixed:
        write_tif(tmp_path / "grey.tif", picture(9)[None, :, :, 0], nodata=0)
        files.append("grey.tif")
    (tmp_path / "4.tif").write_bytes((tmp_path / "2.tif").read_bytes())
    files.append("4.tif")  # on the ground of 2.tif, and equal to it
    lines = [f"{name},{'test' if name in ('1.tif', '4.tif') else 'train'}" for name in files]
    (tmp_path / "split.csv").write_text("\n".join(["file,split", *lines]) + "\n", encoding="utf-8")
    found = audit(tmp_path / "split.csv", buffer_px=0)
    assert (found.n_images, found.n_placed) == (len(files), len(files))
    assert [(leak.kind, leak.first, leak.second) for leak in found.leaks] == [("overlap", "2.tif", "4.tif")]
    told = "3 images hold data on less than 50% of their pixels: their places were checked, their pictures were not"
    assert any(text.startswith(told) and "2.tif" in text for text in found.warnings)


def test_the_audit_knows_the_size_of_images_without_data_or_place(tmp_path: Path) -> None:
    empty = np.zeros((1, 64, 64), np.uint16)
    empty[0, :32, :32] = picture(1)[..., 0]
    profile = {"driver": "GTiff", "count": 1, "height": 64, "width": 64, "dtype": "uint16", "nodata": 0}
    with rasterio.open(tmp_path / "s.tif", "w", **profile) as file:
        file.write(empty)
    write_png(tmp_path / "o.png", picture(2)[..., 0])
    lines = ["file,split,row,col,n_rows,n_cols", "s.tif,train,,,,", "s.tif,test,32,32,32,32", "s.tif,test,0,0,32,32"]
    (tmp_path / "split.csv").write_text("\n".join([*lines, "o.png,train,,,,"]) + "\n", encoding="utf-8")
    found = audit(tmp_path / "split.csv", buffer_px=0)
    assert any(text.startswith("2 images hold data") for text in found.warnings)
    assert sorted(leak.second for leak in found.leaks if leak.kind == "overlap") == ["s.tif@0,0", "s.tif@32,32"]


def test_the_audit_goes_by_what_trains_not_by_the_site(tmp_path: Path) -> None:
    paths = write_site(tmp_path, 1, 2)
    paths[1].write_bytes(paths[0].read_bytes())
    table = tmp_path / "split.csv"
    lines = ["file,split,site,role", "000.png,{},a,labelled", "001.png,test,b,test"]
    for word, n_leaks in (("train", 1), ("unlabelled", 0)):
        table.write_text("\n".join(lines).format(word) + "\n", encoding="utf-8")
        assert len(audit(table).leaks) == n_leaks
        assert len(audit(table).transductive) == 1 - n_leaks


def band(path: Path, side: int, resolution: float, seed: int) -> Path:
    """Write one band of a scene of 128 m, whatever its file is called."""
    values = np.random.default_rng(seed).integers(1, 255, (side, side)).astype(np.uint16)
    profile = {"driver": "GTiff", "count": 1, "height": side, "width": side, "dtype": "uint16"}
    where = {
        "crs": "EPSG:2154",
        "transform": rasterio.transform.from_origin(400_000, 6_700_000, resolution, resolution),
    }
    with rasterio.open(path, "w", **profile, **where) as file:
        file.write(values, 1)
        file.set_band_description(1, path.stem)
    return path


def test_windows_of_a_scene_in_several_files_are_pixels_of_its_finest_grid(tmp_path: Path) -> None:
    band(tmp_path / "coarse.tif", 64, 2.0, 1)
    band(tmp_path / "fine.tif", 128, 1.0, 2)
    lines = ["file,split,row,col,n_rows,n_cols", "fine.tif,train,64,64,32,32", "coarse.tif;fine.tif,test,0,64,32,32"]
    lines.append("coarse.tif;fine.tif,test,80,80,32,32")
    (tmp_path / "split.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = audit(tmp_path / "split.csv", buffer_px=0)
    assert [(leak.kind, leak.first, leak.second, leak.detail[:3]) for leak in found.leaks] == [
        ("overlap", "fine.tif@64,64", "coarse.tif@80,80", "25%")
    ]
    (tmp_path / "split.csv").write_text(
        "file,split\ncoarse.tif;fine.tif,train\nfine.tif;coarse.tif,test\n", encoding="utf-8"
    )
    assert [leak.detail[:4] for leak in audit(tmp_path / "split.csv", buffer_px=0).leaks if leak.kind == "overlap"] == [
        "100%"
    ]


def test_a_split_by_coarse_bands_lists_the_file_whose_grid_its_windows_are_of(tmp_path: Path) -> None:
    files = [str(band(tmp_path / f"{name}.tif", 64 * k, 2.0 / k, k)) for name, k in (("coarse", 1), ("fine", 2))]
    more = {"block_px": 16, "buffer_px": 0, "inputs": files}
    listed = {}
    for name in ("coarse", "fine"):
        outcome = split(given(tmp_path, **{**more, "bands": name}), tmp_path / "split.csv")
        listed[name] = {row["file"] for row in rows_of(outcome.table)}
        assert len(rows_of(outcome.table)) == 64
        assert audit(outcome.table, buffer_px=0).is_clean
    assert listed == {"coarse": {"fine.tif;coarse.tif"}, "fine": {"fine.tif"}}


def placed_picture(path: Path, seed: int, zone: int, east: float) -> str:
    """Write a picture of 32 m on the equator in a UTM zone, and return its name."""
    transform = rasterio.transform.from_origin(east, 100_000, 1, 1)
    profile = {"driver": "GTiff", "count": 3, "height": 32, "width": 32, "dtype": "uint8"}
    with rasterio.open(path, "w", crs=f"EPSG:{32600 + zone}", transform=transform, **profile) as file:
        file.write(picture(seed).transpose(2, 0, 1))
    return path.name


def test_leaks_far_from_the_first_image_are_found(tmp_path: Path) -> None:
    files = [placed_picture(tmp_path / "first.tif", 0, 31, 500_000)]
    files += [
        placed_picture(tmp_path / f"{name}.tif", ord(name), 47, 500_000 + east) for name, east in (("a", 0), ("b", 40))
    ]
    files.append(placed_picture(tmp_path / "c.tif", 5, 48, 500_000))
    lines = [f"{name},{'test' if name == 'b.tif' else 'train'}" for name in files]
    (tmp_path / "split.csv").write_text("\n".join(["file,split", *lines]) + "\n", encoding="utf-8")
    found = audit(tmp_path / "split.csv", buffer_px=10)
    assert [(leak.kind, leak.first, leak.second) for leak in found.leaks] == [("neighbour", "a.tif", "b.tif")]
    assert audit(tmp_path / "split.csv", buffer_px=7).is_clean
