"""Sites in folders, tables, scenes and MiniFrance's layout; and their pixels, classes and faults."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from toy_masks import write_png
from toy_sites import picture, write_site, write_sites

from berunda.data import site_classes
from berunda.data.order import Randomness
from berunda.data.site_classes import count_classes
from berunda.data.site_layouts import Cutting, find_sites
from berunda.data.site_maker import Blocks, SiteMaker, thinned
from berunda.data.site_pixels import Broken, Ground, Patch, SitePixels, measure_site_scaling, place_of
from berunda.data.sites import Site, SiteSet, role_of
from berunda.data.synthetic import Landscape, block, write_scene, write_truth
from berunda.errors import ConfigError, DataError, GeoError, SecurityError
from berunda.geo.grid import Window


def test_a_folder_a_site(tmp_path: Path) -> None:
    sites = find_sites([str(write_sites(tmp_path / "d", 3))], Cutting())
    assert sites.site_names == ("east", "north", "south", "west")
    assert sites.counts.tolist() == [3, 3, 3, 3]
    assert sites.items[0].name == "east/000.png"
    assert count_classes(sites) is None


def test_a_data_set_with_masks_is_told_to_be_given_by_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BERUNDA_DATA", str(tmp_path))
    for folder in ("BDORTHO", "UA"):
        write_site(tmp_path / "minifrance" / "Nice" / folder, 1, 1)
    with pytest.raises(ConfigError, match=r"has one class a pixel.*the folder with one sub-directory a site") as error:
        find_sites(["minifrance"], Cutting())
    assert str(tmp_path / "minifrance") in str(error.value)
    assert find_sites([str(tmp_path / "minifrance")], Cutting()).site_names == ("Nice",)


def test_folders_of_roles_hold_the_sites(tmp_path: Path) -> None:
    for role, names in {"labeled_train": ("nice",), "unlabeled_train": ("brest", "caen"), "test": ("lille",)}.items():
        for name in names:
            write_site(tmp_path / role / name, 1, 2)
    sites = find_sites([str(tmp_path)], Cutting())
    assert {s.name: s.role for s in sites.sites} == {
        "nice": "labelled",
        "lille": "test",
        "brest": "unlabelled",
        "caen": "unlabelled",
    }


def test_images_and_rasters_of_classes_in_the_layout_of_minifrance(tmp_path: Path) -> None:
    place = tmp_path / "labeled_train" / "Nice"
    spec = Landscape(seed=0, rows=128, cols=128, site="site23")
    for folder in ("BDORTHO", "UrbanAtlas", "RGEALTI"):
        (place / folder).mkdir(parents=True)
    write_scene(place / "BDORTHO" / "06-E080.tif", spec)
    write_scene(place / "RGEALTI" / "06-E080_RGEALTI.tif", spec)
    truth = write_truth(place / "UrbanAtlas" / "06-E080_UA2012.tif", spec)
    write_site(tmp_path / "test" / "Lille" / "BDORTHO", 2, 2)
    sites = find_sites([str(tmp_path)], Cutting(block_px=32))
    assert sites.counts.tolist() == [16, 2]
    assert {item.truth for item in sites.items if item.site == 0} == {truth}
    counts = count_classes(sites)
    assert counts is not None
    expected = np.bincount(block(spec, Window(0, 0, 128, 128))[1].ravel(), minlength=7)[1:]
    assert counts.counts.sum() == expected.sum()
    assert counts.by_site(sites.site_of, 2)[0].sum() == 128 * 128


@pytest.mark.parametrize(
    ("folder", "classes"), [("UA", {"1", "14"}), ("UrbanAtlas", {"1", "14"}), ("labels", {"1", "14", "15"})]
)
def test_clouds_of_minifrance_are_no_class_and_unused_folders_are_told(
    tmp_path: Path, folder: str, classes: set[str]
) -> None:
    values = np.repeat([0, 1, 14, 15], 8).astype(np.uint8)[:, None].repeat(32, axis=1)
    for town in ("Brest", "Nice"):
        write_site(tmp_path / town / "BDORTHO", 1, 2, side=32)
        for name in (folder, "RGEALTI"):
            (tmp_path / town / name).mkdir()
        for k in range(2):
            Image.fromarray(values).save(tmp_path / town / folder / f"{k:03d}.png")
    sites = find_sites([str(tmp_path)], Cutting())
    counts = count_classes(sites)
    assert counts is not None
    assert set(counts.classes) == classes
    assert (counts.counts == 8 * 32).all()
    told = [note for note in sites.notes if "not used" in note]
    assert len(told) == 1
    assert told[0].endswith("RGEALTI (of 2).")
    lines = [f"{town},{town}/BDORTHO/000.png,{town}/{folder}/000.png" for town in ("Brest", "Nice")]
    (tmp_path / "t.csv").write_text("\n".join(["site,path,truth", *lines]), encoding="utf-8")
    again = count_classes(find_sites([str(tmp_path / "t.csv")], Cutting()))
    assert again is not None
    assert set(again.classes) == classes
    kept = count_classes(sites, zero_is_class=True)
    assert kept is not None
    assert set(kept.classes) == classes | {"0"}


def test_a_folder_a_class_below_each_site_gives_labels(tmp_path: Path) -> None:
    for site in ("a", "b"):
        for name in ("forest", "town"):
            write_site(tmp_path / site / name, 1, 2)
    counts = count_classes(find_sites([str(tmp_path)], Cutting()))
    assert counts is not None
    assert counts.classes == ("forest", "town")
    assert counts.counts.sum(axis=0).tolist() == [4, 4]


def table(tmp_path: Path, text: str) -> str:
    write_sites(tmp_path, 2)
    path = tmp_path / "sites.csv"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_table_with_site_role_and_path(tmp_path: Path) -> None:
    rows = "site,role,path,label\nS,train,east/000.png,town\nS,train,east/001.png,\nT,test,west/000.png,field\n"
    sites = find_sites([table(tmp_path, rows)], Cutting())
    assert [(s.name, s.role) for s in sites.sites] == [("S", "labelled"), ("T", "test")]
    counts = count_classes(sites)
    assert counts is not None
    assert counts.counts.tolist() == [[0, 1], [0, 0], [1, 0]]


@pytest.mark.parametrize(
    ("text", "kind", "told"),
    [
        ("path\neast/000.png\n", DataError, "expected site and path"),
        ("site,path\nS,../x.png\n", SecurityError, "row 2: path '../x.png' refused"),
        ("site,path\nS,east/009.png\n", DataError, "not in"),
        ("site,path\n,east/000.png\n", DataError, "row 2: no site"),
        ("site,role,path\nS,train,east/000.png\nS,test,east/001.png\n", DataError, "row 3: site 'S' has role"),
        ("site,role,path\nS,whatever,east/000.png\n", DataError, "row 2: role 'whatever' found"),
        ("site,path\nS,east/000.png\nT,east/000.png\n", DataError, "is there 2 times"),
        ("site,path\n", DataError, "expected a header and at least one image"),
    ],
)
def test_a_wrong_table_is_told_by_its_row(tmp_path: Path, text: str, kind: type[Exception], told: str) -> None:
    with pytest.raises(kind, match=told):
        find_sites([table(tmp_path, text)], Cutting())


def test_scenes_are_sites_and_one_scene_is_cut_into_some(tmp_path: Path) -> None:
    paths = [
        str(write_scene(tmp_path / f"{n}.tif", Landscape(seed=0, rows=128, cols=160, site=n)))
        for n in ("site23", "site45")
    ]
    several = find_sites(paths, Cutting(block_px=32))
    assert several.site_names == ("site23", "site45")
    assert several.counts.tolist() == [20, 20]
    one = find_sites(paths[:1], Cutting(block_px=16, site_px=64))
    assert one.site_names == ("r0c0", "r0c1", "r0c2", "r1c0", "r1c1", "r1c2")
    patch = SitePixels(one).read(5)
    assert isinstance(patch, Patch)
    expected = block(Landscape(seed=0, rows=128, cols=160, site="site23"), one.items[5].window)[0]  # type: ignore[arg-type]
    np.testing.assert_array_equal(patch.pixels, expected)
    grid = place_of(one, one.items[5])
    assert grid is not None
    assert grid.shape.rows == 16
    with pytest.raises(DataError, match="smaller --block-px"):
        find_sites(paths[:1], Cutting(block_px=256))


def test_a_raster_of_classes_is_read_under_the_blocks_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = Landscape(seed=3, rows=100, cols=100, cloud_share=0.0, site="site23")
    scene, truth = write_scene(tmp_path / "s.tif", spec), write_truth(tmp_path / "t.tif", spec)
    sites = find_sites([str(scene)], Cutting(block_px=32, site_px=64))
    monkeypatch.setattr(site_classes, "read_labels", None)  # no region is to become a polygon
    found = count_classes(sites, str(truth))
    assert found is not None
    for item, counts in zip(sites.items, found.counts, strict=True):
        assert item.window is not None
        expected = np.bincount(block(spec, item.window)[1].ravel(), minlength=7)[1:]
        assert sorted(counts[counts > 0].tolist()) == sorted(expected[expected > 0].tolist())
        assert counts.sum() == 32 * 32


def test_a_raster_of_classes_may_have_another_grid_and_must_lie_on_the_ground(tmp_path: Path) -> None:
    spec = Landscape(seed=3, rows=128, cols=128, cloud_share=0.0, site="site23")
    scene, truth = write_scene(tmp_path / "s.tif", spec), write_truth(tmp_path / "t.tif", spec)
    sites = find_sites([str(scene)], Cutting(block_px=32, site_px=64))
    same = count_classes(sites, str(truth))
    with rasterio.open(truth) as file:
        values, profile = file.read(1), file.profile
        tags = file.tags()
    t = profile["transform"]

    def moved(name: str, pixels: np.ndarray, transform: rasterio.Affine) -> str:
        shape = {"height": pixels.shape[0], "width": pixels.shape[1]}
        with rasterio.open(tmp_path / name, "w", **{**profile, **shape, "transform": transform}) as file:
            file.write(pixels, 1)
            file.update_tags(**tags)
        return str(tmp_path / name)

    fine = moved("fine.tif", values.repeat(2, 0).repeat(2, 1), t * t.scale(0.5))
    part = moved("part.tif", values[:, 64:], t * t.translation(64, 0))
    finer, partly = count_classes(sites, fine), count_classes(sites, part)
    assert same is not None
    assert finer is not None
    assert partly is not None
    assert finer.classes == same.classes
    np.testing.assert_array_equal(finer.counts, same.counts)
    assert partly.counts.sum() == 128 * 64
    with pytest.raises(GeoError, match="no labelled pixel on the scene"):
        count_classes(sites, moved("far.tif", values, t * t.translation(4000, 0)))


def test_too_many_images_are_drawn_by_seed_and_counted(tmp_path: Path) -> None:
    write_sites(tmp_path, 6)
    first, again = (find_sites([str(tmp_path)], Cutting(max_per_site=4, seed=1)) for _ in range(2))
    assert first.counts.tolist() == [4, 4, 4, 4]
    assert [i.name for i in first.items] == [i.name for i in again.items]
    assert "8 of 24 images were left out" in first.notes[0]


def test_roles_are_given_by_name_or_pattern(tmp_path: Path) -> None:
    sites = find_sites([str(write_sites(tmp_path, 2))], Cutting())
    given = sites.with_roles({"labelled": ["e*"], "test": ["west"]})
    assert [s.role for s in given.sites] == ["labelled", "unlabelled", "unlabelled", "test"]
    with pytest.raises(ConfigError, match="did you mean 'west'"):
        sites.with_roles({"test": ["wets"]})
    with pytest.raises(ConfigError, match="one role of each site"):
        sites.with_roles({"labelled": ["east"], "test": ["east"]})
    assert role_of(" Labeled_Train ", "x") == "labelled"
    assert {role_of(word, "x") for word in ("val", "valid", "Validation")} == {"labelled"}


def test_bands_that_differ_between_sites_are_an_error_that_names_both(tmp_path: Path) -> None:
    write_site(tmp_path / "a", 1, 2)
    (tmp_path / "b").mkdir()
    Image.fromarray(picture(1)[..., 0]).save(tmp_path / "b" / "grey.png")
    pixels = SitePixels(find_sites([str(tmp_path)], Cutting()))
    with pytest.raises(DataError, match=r"site 'b': image 'b/grey.png' has 1 bands.*site 'a'.*--bands"):
        measure_site_scaling(pixels)


def test_an_image_that_cannot_be_read_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    write_sites(tmp_path, 2)
    (tmp_path / "east" / "000.png").write_bytes(b"no image")
    pixels = SitePixels(find_sites([str(tmp_path)], Cutting()))
    found = [patch for piece in pixels.every(np.arange(8)) for patch in piece]
    assert isinstance(found[0], Broken)
    assert found[0].item == 0
    assert all(isinstance(patch, Patch) for patch in found[1:])
    assert measure_site_scaling(pixels).low.shape == (3,)


def test_a_common_ground_averages_and_crops(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "s.tif", Landscape(seed=0, rows=128, cols=128, cloud_share=0.0, site="site23"))
    sites: SiteSet = find_sites([str(path)], Cutting(block_px=64, site_px=64))
    coarse = SitePixels(sites, ground=Ground(resolution_m=40.0, side_m=320.0)).read(0)
    fine = SitePixels(sites).read(0)
    assert isinstance(coarse, Patch)
    assert isinstance(fine, Patch)
    assert coarse.pixels.shape == (6, 8, 8)
    middle = fine.pixels[:, 16:48, 16:48]
    np.testing.assert_allclose(coarse.pixels.mean((1, 2)), middle.mean((1, 2)), rtol=0.03)
    with pytest.raises(DataError, match="--resolution"):
        SitePixels(find_sites([str(write_sites(tmp_path / "p", 2))], Cutting()), ground=Ground(1, 9)).read(0)


def test_two_sets_join_with_names_told_apart(tmp_path: Path) -> None:
    one = find_sites([str(write_sites(tmp_path / "one", 2))], Cutting())
    two = find_sites([str(write_sites(tmp_path / "two", 2))], Cutting())
    both = one.joined(two)
    assert both.site_names[0] == "one/east"
    assert {s.group for s in both.sites} == {"one", "two"}
    assert both.items[-1].name == "two/west/001.png"
    assert both.counts.tolist() == [2] * 8


def test_roles_reach_both_of_two_sets(tmp_path: Path) -> None:
    one = find_sites([str(write_sites(tmp_path / "one", 2))], Cutting())
    two = find_sites([str(write_sites(tmp_path / "two", 2))], Cutting())

    def roles_of(**roles: list[str]) -> dict[str, str]:
        return {s.name: s.role for s in one.joined(two).with_roles(roles).sites if s.role}

    only = roles_of(test=["two/west"])
    assert only == {"two/west": "test"} | {f"two/{name}": "unlabelled" for name in ("east", "north", "south")}
    both = roles_of(labelled=["east"], test=["one/north"])
    assert both["one/east"] == both["two/east"] == "labelled"
    assert both["one/north"] == "test"
    assert both["two/north"] == "unlabelled"


def test_others_may_stay_without_a_role(tmp_path: Path) -> None:
    sites = find_sites([str(write_sites(tmp_path, 2))], Cutting()).with_roles({"test": ["west"]}, others="")
    assert [s.role for s in sites.sites] == ["", "", "", "test"]


def test_rasters_of_classes_beside_the_images_are_none_of_them_and_belong_by_their_path(tmp_path: Path) -> None:
    place = tmp_path / "d" / "site"
    for name in ("a/1.png", "b/1.png", "b/1_2.png", "b/3.png"):
        write_png(place / name, picture(len(name)))
    for name, value in {"a/1.png": 1, "b/1_2.png": 2, "b/3_UA.png": 3, "c/9.png": 4}.items():
        write_png(place / "labels" / name, np.full((32, 32), value, np.uint8))
    write_site(tmp_path / "d" / "other", 1, 2)
    sites = find_sites([str(tmp_path / "d")], Cutting())
    known = {item.name: item.truth for item in sites.items if item.name.startswith("site/")}
    assert known == {
        "site/a/1.png": place / "labels" / "a" / "1.png",
        "site/b/1.png": None,
        "site/b/1_2.png": place / "labels" / "b" / "1_2.png",
        "site/b/3.png": place / "labels" / "b" / "3_UA.png",
    }
    assert [item.label for item in sites.items if item.site == 1] == ["a", "b", "b", "b"]
    assert any("1 rasters of classes have no image of their path and name: site/c/9" in note for note in sites.notes)


@pytest.mark.parametrize("whole_up_to", [0, 100_000])
def test_only_the_blocks_that_are_drawn_become_images(whole_up_to: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made = SiteMaker("large", None, Cutting(max_per_site=100, seed=3, whole_up_to=whole_up_to))
    for number, rows in enumerate((640_000, 6400, 640)):
        if number < 2:
            made.add_site(Site(f"s{number}"))
        made.add_blocks(Blocks("scene", min(number, 1), number, Window(7, 9, rows, 320_000), 64, Path("scene.tif")))
    built: list[int] = []
    whole = Blocks.item
    monkeypatch.setattr(Blocks, "item", lambda self, number: built.append(number) or whole(self, number))
    start = time.perf_counter()
    sites = made.done()
    assert time.perf_counter() - start < 5
    assert len(built) == len(sites) == 200
    assert sites.counts.tolist() == [100, 100]
    assert any("50549800 of 50550000 images were left out" in note for note in sites.notes)
    assert {item.scene for item in sites.items if item.site == 1} == {1, 2}
    for item in sites.items:
        assert item.window is not None
        assert (item.window.row - 7) % 64 == (item.window.col - 9) % 64 == 0


def test_a_draw_of_blocks_is_one_of_all_blocks_in_order(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "s.tif", Landscape(seed=1, rows=160, cols=224, cloud_share=0.0, site="site23"))
    every = find_sites([str(scene)], Cutting(block_px=32, site_px=160))
    some = find_sites([str(scene)], Cutting(block_px=32, site_px=160, max_per_site=9, seed=5))
    expected = []
    for site in range(len(every.sites)):
        mine = every.items_of([site])
        draw = Randomness(5).numpy("images of a site", site)
        expected += np.sort(draw.choice(mine, 9, replace=False)).tolist() if len(mine) > 9 else mine.tolist()
    assert [item.name for item in some.items] == [every.items[i].name for i in expected]
    assert len(some) < len(every)
    listed = find_sites([str(scene)], Cutting(block_px=32, site_px=160, max_per_site=9, whole_up_to=len(every)))
    assert listed.items == every.items
    assert not listed.notes
    again = thinned(listed, Cutting(max_per_site=9, seed=5))
    assert again.items == some.items
    assert again.notes == some.notes
