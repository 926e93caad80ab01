"""How the images of sites are read: open files and memory are bounded, bands and resolutions are what was asked for."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from toy_masks import write_png, write_tif
from toy_sites import picture

from berunda.data import site_pixels
from berunda.data.site_layouts import Cutting, find_sites
from berunda.data.site_pixels import Ground, Patch, SitePixels, resolution_of
from berunda.data.sites import SiteSet
from berunda.errors import DataError
from berunda.geo import raster

BANDS = ("nir", "red", "green")


def scenes(folder: Path, n: int, side: int = 32) -> SiteSet:
    for k in range(n):
        values = np.full((3, side, side), k + 1, np.uint8)
        write_tif(folder / f"s{k % 2}" / f"{k:03d}.tif", values)
    return find_sites([str(folder)], Cutting(block_px=16))


def n_open(suffix: str = ".tif") -> int:
    found = 0
    for number in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{number}").endswith(suffix)
        except OSError:
            continue
    return found


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no list of open files on this system")
def test_open_files_are_few_while_reading_and_none_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raster, "MAX_OPEN", 4)
    monkeypatch.setattr(site_pixels, "MAX_THREADS", 2)
    sites = scenes(tmp_path, 24)
    assert len(sites) == 96
    most, values = 0, []
    pixels = SitePixels(sites)
    for piece in pixels.every(np.arange(len(sites))):
        most = max(most, n_open())
        values += [float(patch.pixels.max()) for patch in piece if isinstance(patch, Patch)]
    assert 0 < most <= 3 * 4  # two threads that read, and this one
    assert values == [int(item.path.stem) + 1.0 for item in sites.items]
    assert n_open() == 0


def test_a_file_that_was_closed_for_others_is_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raster, "MAX_OPEN", 2)
    pixels = SitePixels(scenes(tmp_path, 5))
    for turn in range(2):
        for index in range(0, 20, 4):
            patch = pixels.read(index)
            assert isinstance(patch, Patch), turn
            assert patch.pixels.max() == int(pixels.sites.items[index].path.stem) + 1
    for scene in pixels.sites.scenes:
        scene.close()


def test_reading_ahead_is_bounded_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for k in range(12):
        write_png(tmp_path / f"s{k % 2}" / f"{k:02d}.png", picture(k, side=16))
    write_png(tmp_path / "s1" / "large.png", picture(99, side=64))
    sites = find_sites([str(tmp_path)], Cutting())
    one = 16 * 16 * 3 * 4
    monkeypatch.setattr(site_pixels, "READ_AHEAD_BYTES", 3 * 4 * one)
    pixels = SitePixels(sites)
    sizes = [[patch.pixels.nbytes for patch in piece] for piece in pixels.every(np.arange(13))]
    assert [len(piece) for piece in sizes] == [4, 4, 4, 1]
    assert all(sum(piece) <= 4 * one or len(piece) == 1 for piece in sizes)
    started: list[int] = []
    read = SitePixels.read
    monkeypatch.setattr(SitePixels, "read", lambda self, index: started.append(index) or read(self, index))
    next(iter(pixels.every(np.arange(13))))
    assert len(started) <= 12


def test_headers_tell_the_size_of_every_kind_of_file(tmp_path: Path) -> None:
    from berunda.data.photo import decode_image, header_values

    paths = [
        write_png(tmp_path / "colour.png", picture(0, side=20)),
        write_png(tmp_path / "grey.png", picture(0, side=20)[..., 0]),
        write_png(tmp_path / "p.jpg", picture(0, side=24)),
        write_tif(tmp_path / "five.tif", np.ones((5, 12, 14), np.uint16)),
        write_tif(tmp_path / "float.tif", np.ones((2, 12, 14), np.float32)),
    ]
    for path in paths:
        assert header_values(path) == decode_image(path.read_bytes(), path.name, path).pixels.size
    (tmp_path / "broken.png").write_bytes(b"broken")
    assert header_values(tmp_path / "broken.png") == 0
    assert header_values(tmp_path / "missing.png") == 0


def two_sites(folder: Path, first: np.ndarray, second: np.ndarray) -> SiteSet:
    write_tif(folder / "a" / "1.tif", first)
    write_tif(folder / "b" / "2.tif", second)
    return find_sites([str(folder)], Cutting(block_px=64))


def test_more_bands_than_the_first_site_has_are_not_cut_unasked(tmp_path: Path) -> None:
    values = np.arange(1, 5, dtype=np.uint16)[:, None, None] * np.ones((1, 20, 20), np.uint16)
    sites = two_sites(tmp_path, values[:3], values)
    pixels = SitePixels(sites)
    assert isinstance(pixels.read(0), Patch)
    with pytest.raises(DataError, match=r"site 'b': image 'b/2\.tif' has 4 bands .*with --bands"):
        pixels.read(1)
    asked = SitePixels(sites, bands=("b3", "b1"), names=("b3", "b1")).read(1)
    assert isinstance(asked, Patch)
    assert asked.pixels[:, 0, 0].tolist() == [3, 1]


def test_names_are_given_to_bands_that_bear_none_of_them_and_never_moved(tmp_path: Path) -> None:
    write_png(tmp_path / "a" / "1.png", picture(0))
    write_tif(tmp_path / "b" / "2.tif", np.ones((3, 32, 32), np.uint16) * np.array([5, 6, 7], np.uint16)[:, None, None])
    sites = find_sites([str(tmp_path)], Cutting(block_px=64))
    pixels = SitePixels(sites, bands=BANDS, names=BANDS)
    with pytest.raises(DataError, match=r"3 bands \(red, green, blue\), --bands has 3 \(nir, red, green\)"):
        pixels.read(0)
    named = pixels.read(1)
    assert isinstance(named, Patch)
    assert (named.bands, named.pixels[:, 0, 0].tolist()) == (BANDS, [5, 6, 7])
    assert pixels.renamed == ("b1", "b2", "b3")
    with pytest.raises(DataError, match="has 3 bands"):
        SitePixels(sites, bands=BANDS).read(1)


def test_the_georeference_goes_before_what_was_said(tmp_path: Path) -> None:
    from berunda.api.site_pipeline import with_resolution

    write_tif(tmp_path / "a" / "1.tif", np.ones((3, 40, 40), np.uint16), resolution=0.5)
    write_png(tmp_path / "b" / "2.png", picture(0))
    sites = with_resolution(find_sites([str(tmp_path)], Cutting()), 2.0)
    assert [resolution_of(sites, item) for item in sites.items] == pytest.approx([0.5, 2.0])


@pytest.mark.parametrize(("side_m", "told"), [(32.0, "Only 3 x 3 px"), (150.0, "Only 15 x 15 px"), (160.0, "")])
def test_images_that_shrink_to_a_few_pixels_are_told(side_m: float, told: str) -> None:
    from berunda.api.site_pipeline import coarse_notes

    notes = coarse_notes(Ground(10.0, side_m))
    assert [told] * len(notes) == [note[: len(told)] for note in notes]
    assert bool(notes) == bool(told)
    assert all("--block-px" in note and "at least 160 m" in note for note in notes)


def test_what_is_coarse_cannot_be_shown_finer(tmp_path: Path) -> None:
    from berunda.api.site_pipeline import common_ground

    write_tif(tmp_path / "a" / "1.tif", np.ones((3, 40, 40), np.uint16), resolution=0.5)
    write_tif(tmp_path / "b" / "2.tif", np.ones((3, 40, 40), np.uint16), resolution=2.0)
    sites = find_sites([str(tmp_path)], Cutting())
    assert common_ground(sites, None, None) == Ground(2.0, 20.0)
    assert common_ground(sites, 4.0, None) == Ground(4.0, 20.0)
    with pytest.raises(DataError, match="--common-resolution: 1 m found, expected at least 2 m"):
        common_ground(sites, 1.0, None)
    with pytest.raises(DataError, match=r"'b/2\.tif' has pixels of 2 m, expected at most the 1 m"):
        SitePixels(sites, ground=Ground(1.0, 20.0)).read(1)
    shown = SitePixels(sites, ground=Ground(2.0, 20.0)).read(0)
    assert isinstance(shown, Patch)
    assert shown.valid.shape == (10, 10)
