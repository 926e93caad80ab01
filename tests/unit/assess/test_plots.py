"""Colours, pictures and figures."""

from __future__ import annotations

import io
from itertools import permutations

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from berunda.assess import pictures, plots
from berunda.assess.calibration import calibration_figures
from berunda.assess.colors import CYCLE, class_colors, rgb_of
from berunda.assess.intervals import bootstrap_interval
from berunda.assess.metrics import score
from berunda.assess.report_data import ClassInfo, LossCurve, ScenePictures


def test_known_land_cover_gets_the_colours_that_maps_taught() -> None:
    forest, water, town, farm, grass = class_colors(["forest", "water", "residential", "farm", "grassland"])
    red, green, blue = rgb_of(forest)
    assert green > max(red, blue)
    assert rgb_of(water)[2] > max(rgb_of(water)[:2])
    assert rgb_of(town)[0] > max(rgb_of(town)[1:])
    assert min(rgb_of(farm)[:2]) > 150
    assert rgb_of(grass)[1] > green


def test_colours_do_not_depend_on_order_and_never_repeat() -> None:
    names = ["forest", "deciduous forest", "wetland", "x", "y"]
    expected = dict(zip(names, class_colors(names), strict=True))
    assert len(set(expected.values())) == 5
    for order in permutations(names):
        assert dict(zip(order, class_colors(order), strict=True)) == expected
    many = class_colors([f"class {i}" for i in range(len(CYCLE))])
    assert len(set(many)) == len(CYCLE)
    assert len(class_colors([str(i) for i in range(60)])) == 60


def test_words_are_matched_whole_at_their_start() -> None:
    assert class_colors(["waterway"]) == class_colors(["water"])
    assert class_colors(["stable non-forest"]) != class_colors(["forest"])
    assert class_colors(["Urban fabric"]) == class_colors(["residential"])


def test_classes_and_nodata_are_coloured() -> None:
    picture = pictures.color_classes(np.array([[0, 1, 2]], np.uint8), ["#ff0000", "#0000ff"])
    assert picture.tolist() == [[list(rgb_of(pictures.NODATA_COLOR)), [255, 0, 0], [0, 0, 255]]]


def test_only_pixels_beyond_the_threshold_are_coloured() -> None:
    distance = np.array([[1.0, 4.9, 5.1, 9.0, np.nan]])
    picture = pictures.color_ood(distance, 5.0, np.full((1, 5, 3), 100, np.uint8)).astype(int)
    spread = picture.max(2) - picture.min(2)
    assert spread[0, :2].tolist() == [0, 0]
    assert (spread[0, 2:4] > 60).all()
    assert tuple(picture[0, 4]) == rgb_of(pictures.NODATA_COLOR)


@pytest.mark.parametrize(("width", "length"), [(15_360, 2000), (100, 20), (4, 1), (8.1e6, 2e6)])
def test_scale_bars_are_round(width: float, length: float) -> None:
    assert pictures.nice_length_m(width) == length


def test_large_pictures_are_shrunk() -> None:
    assert pictures.shrink_step((1200, 10)) == 1
    assert pictures.shrink_step((1201, 10)) == 2
    assert pictures.shrink_step((10, 100_000)) == 84


def figures() -> list[object]:
    rng = np.random.default_rng(0)
    matrices = rng.integers(0, 20, (6, 3, 3))
    matrices[:, 2] = 0
    names = ["a", "b", "c"]
    logits, labels = rng.normal(size=(100, 3)), rng.integers(0, 3, 100)
    calibrated = calibration_figures(logits, labels)
    flat = ScenePictures(
        "s",
        np.zeros((20, 30, 3), np.uint8),
        np.ones((20, 30), np.uint8),
        np.ones((20, 30), np.float32),
        np.ones((20, 30), np.float32),
        pixel_m=10.0,
    )
    infos = [ClassInfo(n, c) for n, c in zip(names, class_colors(names), strict=True)]
    return [
        plots.reliability_diagram(calibrated, calibrated),
        plots.reliability_diagram(None, calibrated),
        plots.confusion_heat(matrices.sum(0), names),
        plots.class_bars(score(matrices.sum(0), names), bootstrap_interval(matrices), class_colors(names)),
        plots.class_bars(score(matrices.sum(0), names), None, class_colors(names)),
        plots.comparison_dots({"forest": [0.3], "net": [0.4, 0.5]}, "mIoU", "net"),
        plots.loss_curves([LossCurve("total", tuple(range(80)), tuple(np.linspace(2, 1, 80)))]),
        plots.map_panels(flat, infos, 0.5),
    ]


def test_every_figure_draws_and_leaves_no_global_state() -> None:
    before = dict(mpl.rcParams)
    for figure in figures():
        picture = Image.open(io.BytesIO(plots.figure_png(figure, 60)))  # type: ignore[arg-type]
        assert min(picture.size) > 60
        assert len(np.unique(np.asarray(picture.convert("L")))) > 5
    assert dict(mpl.rcParams) == before


def test_drawings_are_reproducible() -> None:
    first, second = (plots.figure_svg(figures()[2]) for _ in range(2))  # type: ignore[arg-type]
    assert first == second
    assert "<svg" in first
