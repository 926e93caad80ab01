"""Filling gaps: what is known stays, what is hidden is not read, tiles do not matter, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from toy_patches import drawing_bundle, mae_bundle, scene_bundle
from toy_rasters import write_tif

import berunda as bd
from berunda.cli.main import main
from berunda.errors import ConfigError, DataError, OutputError
from berunda.geo.grid import Window
from berunda.geo.raster import Scene, open_scenes
from berunda.mapping import inpaint
from berunda.mapping.bundle import Bundle, save_bundle
from berunda.mapping.inpaint import Filler
from berunda.mapping.lock import file_lock
from berunda.methods import _energy, _filling
from berunda.methods.ssl_mae import SslMae

NAMES = ("red", "green", "blue")
SIDE = 16
DRAWING = ("fixmatch_jem", "hvae", "jem", "segjem", "vae")
FILLING: dict[str, Callable[[], Bundle]] = {
    "ssl_mae": mae_bundle,
    **{name: partial(drawing_bundle, name) for name in DRAWING},
}


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Filling by rounds costs a net's pass each; how many there are is no matter here."""
    monkeypatch.setattr(_filling, "ROUNDS", 2)
    monkeypatch.setattr(_energy, "_FARTHER", 1)


@pytest.fixture
def pixels() -> np.ndarray:
    """(3, 70, 52) uint16, its last column nodata."""
    values = np.random.default_rng(0).integers(20, 230, (3, 70, 52)).astype(np.uint16)
    values[:, :, -1] = 0
    return values


@pytest.fixture
def gaps() -> np.ndarray:
    """(70, 52): a cloud of 12 x 10 px, one at the edge, a single pixel."""
    mask = np.zeros((70, 52), np.uint8)
    mask[20:32, 9:19] = 1
    mask[60:70, 40:52] = 2
    mask[5, 30] = 255
    return mask


def write(folder: Path, pixels: np.ndarray, gaps: np.ndarray) -> tuple[Path, Path]:
    scene = write_tif(folder / "scene.tif", pixels, names=NAMES, nodata=0)
    return scene, write_tif(folder / "clouds.tif", gaps)


def opened(folder: Path, pixels: np.ndarray, gaps: np.ndarray) -> Scene:
    scene, mask = write(folder, pixels, gaps)
    return open_scenes([scene], mask=mask)[0]


def read(path: Path) -> tuple[np.ndarray, Any]:
    with rasterio.open(path) as dataset:
        return dataset.read(), dataset.profile | {"names": dataset.descriptions}


def mean_fill(self: SslMae, net: Any, extra: Any, image: torch.Tensor, known: torch.Tensor, rng: Any) -> torch.Tensor:
    """The mean of what is known, for each band."""
    weight = known[:, None].float()
    mean = (torch.where(known[:, None], image, 0) * weight).sum((2, 3)) / weight.sum((2, 3))
    return torch.where(known[:, None], image, mean[:, :, None, None])


@pytest.mark.parametrize("method", FILLING)
def test_what_is_known_stays_and_what_is_hidden_is_filled(method, tmp_path, pixels, gaps) -> None:
    scene, mask = write(tmp_path, pixels, gaps)
    save_bundle(tmp_path / "model", FILLING[method]())
    outcome = bd.inpaint(tmp_path / "model", [scene], mask=mask, out=tmp_path / "filled.tif")
    values, profile = read(outcome.path)
    assert (outcome.n_filled, outcome.n_left) == (int((gaps > 0).sum()), 0)
    known = (gaps == 0) & (pixels[0] > 0)
    np.testing.assert_array_equal(values[:, known], pixels[:, known])
    assert np.isfinite(values[:, gaps > 0]).all()
    assert np.isnan(values[:, (gaps == 0) & (pixels[0] == 0)]).all()
    given = read(scene)[1]
    assert (profile["transform"], profile["crs"], profile["names"]) == (given["transform"], given["crs"], NAMES)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clouds.tif", "filled.tif", "model", "scene.tif"]


@pytest.mark.parametrize("method", ["ssl_mae", "jem", "hvae"])
def test_what_lies_under_the_mask_is_not_read(method, tmp_path, pixels, gaps) -> None:
    other = np.where(gaps > 0, np.uint16(60000), pixels)
    found = []
    for name, values in (("a", pixels), ("b", other)):
        (tmp_path / name).mkdir()
        found.append(Filler(FILLING[method](), opened(tmp_path / name, values, gaps)).fill(Window(0, 0, 70, 52))[0])
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("method", ["ssl_mae", "jem", "hvae"])
def test_a_pixel_does_not_depend_on_the_tile(method, tmp_path, pixels, gaps) -> None:
    filler = Filler(FILLING[method](), opened(tmp_path, pixels, gaps))
    whole = filler.fill(Window(0, 0, 70, 52))[0]
    for part in (Window(16, 3, 11, 14), Window(27, 0, 40, 52), Window(69, 51, 1, 1)):
        rows, cols = part.slices
        np.testing.assert_array_equal(filler.fill(part)[0], whole[:, rows, cols])


@pytest.mark.parametrize("method", ["hvae", "vae", "jem"])
def test_what_is_drawn_depends_on_the_seed_and_on_nothing_else(method, tmp_path, pixels, gaps) -> None:
    bundle = drawing_bundle(method, **({"variant": "jem", "n_steps": 1} if method == "jem" else {}))
    scene, place = opened(tmp_path, pixels, gaps), Window(16, 8, 20, 14)
    first, again, other = (Filler(bundle, scene, seed=seed).fill(place)[0] for seed in (0, 0, 1))
    hidden = gaps[place.slices] > 0
    np.testing.assert_array_equal(first, again)
    assert (first != other).all(0)[hidden].mean() > 0.9
    np.testing.assert_array_equal(first[:, ~hidden], other[:, ~hidden])


def test_a_model_of_maps_sees_the_ground_at_the_size_of_its_crops(tmp_path, pixels, gaps) -> None:
    filler = Filler(drawing_bundle("hvae", window_px=64), opened(tmp_path, pixels, gaps))
    assert (filler.side, filler.shown_px) == (16, 16)


def test_a_net_that_knows_the_mean_fills_an_even_scene_evenly(tmp_path, gaps, monkeypatch) -> None:
    monkeypatch.setattr(SslMae, "fill", mean_fill)
    even = np.broadcast_to(np.array([40, 120, 200], np.uint16)[:, None, None], (3, 70, 52)).copy()
    for crop_px in (SIDE, 2 * SIDE, SIDE // 2):
        filler = Filler(mae_bundle(crop_px=max(crop_px, 16)), opened(tmp_path, even, gaps))
        filler.shown_px = crop_px
        values, there, filled = filler.fill(Window(0, 0, 70, 52))
        assert there.all()
        assert filled.sum() == (gaps > 0).sum()
        np.testing.assert_allclose(values, even, atol=1e-3)


def test_gaps_larger_than_a_window_are_seen_from_further_away(tmp_path, monkeypatch) -> None:
    large = np.zeros((130, 130), np.uint8)
    large[34:96, 34:96] = 1
    pixels = np.random.default_rng(0).integers(20, 230, (3, 130, 130)).astype(np.uint16)
    scene, whole = opened(tmp_path, pixels, large), Window(0, 0, 130, 130)
    bundle = mae_bundle(crop_px=32, window_px=32)
    values, there, _ = Filler(bundle, scene).fill(whole)
    assert there[large > 0].all()
    assert np.isfinite(values[:, large > 0]).all()
    monkeypatch.setattr(inpaint, "ENLARGED", (1,))
    values, there, filled = Filler(bundle, scene).fill(whole)
    assert not there[65, 65]
    assert np.isnan(values[:, 65, 65]).all()
    assert filled[35, 35]


def test_no_more_is_read_at_once_than_the_widest_window(tmp_path, pixels, gaps, monkeypatch) -> None:
    sizes = []
    plain = Scene.read
    monkeypatch.setattr(Scene, "read", lambda self, window: sizes.append(window.shape.n_pixels) or plain(self, window))
    Filler(mae_bundle(), opened(tmp_path, pixels, gaps)).fill(Window(0, 0, 70, 52))
    assert max(sizes) <= (8 * SIDE) ** 2
    assert len(sizes) < 40


def test_a_mask_of_everything_is_refused(tmp_path, pixels) -> None:
    scene, mask = write(tmp_path, pixels, np.ones((70, 52), np.uint8))
    save_bundle(tmp_path / "model", mae_bundle())
    with pytest.raises(DataError, match="no valid pixel outside the mask"):
        bd.inpaint(tmp_path / "model", [scene], mask=mask, out=tmp_path / "filled.tif")
    assert not list(tmp_path.glob("*filled*"))


def test_values_far_from_those_of_the_training_are_told(tmp_path, pixels, gaps) -> None:
    save_bundle(tmp_path / "model", mae_bundle())
    told = []
    for name, factor in (("same", 1), ("other", 40)):
        (tmp_path / name).mkdir()
        scene, mask = write(tmp_path / name, pixels * np.uint16(factor), gaps)
        told.append(bd.inpaint(tmp_path / "model", [scene], mask=mask, out=tmp_path / name / "filled.tif").warnings)
    assert told[0] == ()
    assert "radiometry far from the training scene in 3 of 3 bands: red (" in told[1][0]


def test_a_mask_of_nothing_is_told(tmp_path, pixels) -> None:
    scene, mask = write(tmp_path, pixels, np.zeros((70, 52), np.uint8))
    save_bundle(tmp_path / "model", mae_bundle())
    outcome = bd.inpaint(tmp_path / "model", [scene], mask=mask, out=tmp_path / "filled.tif")
    assert outcome.n_filled == 0
    assert "hides no pixel" in outcome.warnings[0]


@pytest.mark.parametrize(
    ("bundle", "message"),
    [
        (
            scene_bundle,
            rf"method 'supervised', which cannot fill gaps; expected a bundle of {', '.join(sorted(FILLING))},",
        ),
        (lambda: mae_bundle(normalise=True), r"method 'ssl_mae' with normalise=True, which cannot fill gaps"),
    ],
)
def test_bundles_that_cannot_fill_are_refused(tmp_path, pixels, gaps, bundle, message) -> None:
    scene, mask = write(tmp_path, pixels, gaps)
    save_bundle(tmp_path / "model", bundle())
    with pytest.raises(ConfigError, match=message):
        bd.inpaint(tmp_path / "model", [scene], mask=mask, out=tmp_path / "filled.tif")


def test_two_runs_do_not_write_one_file(tmp_path, pixels, gaps) -> None:
    scene, mask = write(tmp_path, pixels, gaps)
    save_bundle(tmp_path / "model", mae_bundle())
    given = {"mask": mask, "out": tmp_path / "new" / "filled.tif"}
    with file_lock(given["out"]), pytest.raises(OutputError, match=r"filled.tif: another run is writing this file"):
        bd.inpaint(tmp_path / "model", [scene], **given)
    assert bd.inpaint(tmp_path / "model", [scene], **given).path.is_file()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["filled.tif"]


def test_outputs_that_hurt_inputs_are_refused(tmp_path, pixels, gaps) -> None:
    scene, mask = write(tmp_path, pixels, gaps)
    save_bundle(tmp_path / "model", mae_bundle())
    for out, message in ((scene, "over or among"), (mask, "over or among"), (tmp_path / "filled.png", "GeoTIFF")):
        with pytest.raises(ConfigError, match=message):
            bd.inpaint(tmp_path / "model", [scene], mask=mask, out=out)


def test_several_scenes_are_refused(tmp_path, pixels, gaps) -> None:
    scene, mask = write(tmp_path, pixels, gaps)
    aside = rasterio.Affine.translation(10_000, 0) * read(scene)[1]["transform"]
    other = write_tif(tmp_path / "other.tif", pixels, names=NAMES, nodata=0, transform=aside)
    save_bundle(tmp_path / "model", mae_bundle())
    with pytest.raises(ConfigError, match="found 2 scenes"):
        bd.inpaint(tmp_path / "model", [scene, other], mask=mask, out=tmp_path / "filled.tif")


def test_the_verb(tmp_path, pixels, gaps, capsys) -> None:
    scene, mask = write(tmp_path, pixels, gaps)
    save_bundle(tmp_path / "model", mae_bundle("multilabel"))
    words = ["inpaint", tmp_path / "model", scene, "--mask", mask, "--out", tmp_path / "filled.tif"]
    assert main([str(word) for word in words]) == 0
    assert f"filled {int((gaps > 0).sum())} pixels" in capsys.readouterr().out
    assert (tmp_path / "filled.tif").is_file()
    save_bundle(tmp_path / "model", replace(scene_bundle()))
    assert main([str(word) for word in words]) == 2
    assert "hvae, jem, segjem, ssl_mae, vae" in capsys.readouterr().err
    save_bundle(tmp_path / "model", drawing_bundle("vae"))
    filled = []
    for seed in ("1", "2"):
        assert main([*(str(word) for word in words), "--seed", seed]) == 0
        filled.append(read(tmp_path / "filled.tif")[0])
    assert not np.array_equal(*filled, equal_nan=True)
