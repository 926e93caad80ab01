"""The worked example of Olofsson et al. 2014 (tables 8 and 9, section 5.2), and the simple random design."""

from __future__ import annotations

import json

import numpy as np
import pytest

from berunda.assess.area import estimate_area
from berunda.errors import DataError

NAMES = ("deforestation", "forest gain", "stable forest", "stable non-forest")
COUNTS = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
MAPPED_HA = np.array([200_000, 150_000, 3_200_000, 6_450_000]) * 0.09


def test_the_papers_areas() -> None:
    found = estimate_area(COUNTS, MAPPED_HA, NAMES)
    assert [round(a.value) for a in found.area_ha] == [21_158, 11_686, 285_770, 581_386]
    assert [round(a.half_width) for a in found.area_ha] == [6_158, 3_756, 15_510, 16_282]
    assert sum(a.value for a in found.area_ha) == pytest.approx(MAPPED_HA.sum())


def test_the_papers_accuracies() -> None:
    found = estimate_area(COUNTS, MAPPED_HA, NAMES)
    assert (round(found.oa.value, 2), round(found.oa.half_width, 2)) == (0.95, 0.02)
    users = [(round(u.value, 2), round(u.half_width, 2)) for u in found.users if u]
    assert users == [(0.88, 0.07), (0.73, 0.10), (0.93, 0.04), (0.96, 0.02)]
    assert [round(p.value, 2) for p in found.producers if p] == [0.75, 0.85, 0.93, 0.96]


def test_producers_intervals_equal_equation_7_restated_in_pixels() -> None:
    found = estimate_area(COUNTS, MAPPED_HA, NAMES)
    mapped_px, n_points = MAPPED_HA / 0.09, COUNTS.sum(1)
    for j in range(4):
        column_px = sum(mapped_px[i] * COUNTS[i, j] / n_points[i] for i in range(4))
        users = COUNTS[j, j] / n_points[j]
        producers = mapped_px[j] * users / column_px
        own = (mapped_px[j] * (1 - producers)) ** 2 * users * (1 - users) / (n_points[j] - 1)
        others = sum(
            mapped_px[i] ** 2 * (COUNTS[i, j] / n_points[i]) * (1 - COUNTS[i, j] / n_points[i]) / (n_points[i] - 1)
            for i in range(4)
            if i != j
        )
        estimate = found.producers[j]
        assert estimate is not None
        assert estimate.value == pytest.approx(producers)
        assert estimate.standard_error == pytest.approx(((own + producers**2 * others) / column_px**2) ** 0.5)


def test_the_papers_cell_proportions() -> None:
    found = estimate_area(COUNTS, MAPPED_HA, NAMES).proportions
    expected = [
        [0.0176, 0, 0.0013, 0.0011],
        [0, 0.0110, 0.0016, 0.0024],
        [0.0019, 0, 0.2967, 0.0213],
        [0.0040, 0.0020, 0.0179, 0.6212],
    ]
    np.testing.assert_allclose(found, expected, atol=6e-5)
    assert found.sum() == pytest.approx(1)


def test_random_design_is_post_stratified_where_it_can_be() -> None:
    found = estimate_area(COUNTS, MAPPED_HA, NAMES, design="random")
    assert found.estimator == "post-stratified"
    assert found.area_ha == estimate_area(COUNTS, MAPPED_HA, NAMES).area_ha


def test_random_design_with_a_thin_class_uses_plain_proportions() -> None:
    found = estimate_area([[40, 10], [1, 0]], [90.0, 10.0], ["a", "b"], design="random")
    assert found.estimator == "simple random"
    assert found.area_ha[1].value == pytest.approx(100 * 10 / 51)
    assert found.area_ha[1].standard_error == pytest.approx(100 * np.sqrt(10 / 51 * 41 / 51 / 50))
    assert found.users[1] is None
    assert found.oa.value == pytest.approx(40 / 51)


def test_intervals_cover_the_true_area_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    truth = rng.choice(2, 20_000, p=[0.8, 0.2])
    mapped = np.where(rng.random(20_000) < 0.85, truth, 1 - truth)
    area = np.bincount(mapped).astype(float)
    covered = 0
    for _ in range(300):
        chosen = np.concatenate([rng.choice(np.flatnonzero(mapped == c), 80, replace=False) for c in (0, 1)])
        counts = np.bincount(mapped[chosen] * 2 + truth[chosen], minlength=4).reshape(2, 2)
        estimate = estimate_area(counts, area, ["a", "b"]).area_ha[1]
        covered += abs(estimate.value - truth.sum()) <= estimate.half_width
    assert 0.90 <= covered / 300 <= 0.99


def test_class_missing_from_the_map_still_gets_an_area() -> None:
    found = estimate_area([[30, 5, 2], [3, 40, 1], [0, 0, 0]], [60.0, 40.0, 0.0], ["a", "b", "c"])
    assert found.users[2] is None
    assert found.producers[2] is not None
    assert found.producers[2].value == 0
    assert found.area_ha[2].value == pytest.approx(60 * 2 / 37 + 40 / 44)


def test_class_that_exists_nowhere_has_no_producers_accuracy() -> None:
    found = estimate_area([[30, 5, 0], [3, 40, 0], [0, 0, 0]], [60.0, 40.0, 0.0], ["a", "b", "c"])
    assert found.producers[2] is None
    assert json.loads(json.dumps(found.as_dict()))["classes"]["c"]["producers_accuracy"] is None


def test_errors_name_class_and_counts() -> None:
    with pytest.raises(DataError, match="class 'b' of the map holds 1 points"):
        estimate_area([[40, 10], [1, 0]], [90.0, 10.0], ["a", "b"])
    with pytest.raises(DataError, match="whose mapped area is 0"):
        estimate_area([[40, 10], [4, 5]], [90.0, 0.0], ["a", "b"])
    with pytest.raises(DataError, match="expected \\(3, 3\\)"):
        estimate_area([[40, 10], [4, 5]], [90.0, 10.0], ["a", "b", "c"])
    with pytest.raises(DataError, match="expected 'stratified' or 'random'"):
        estimate_area([[40, 10], [4, 5]], [90.0, 10.0], ["a", "b"], design="grid")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="some mapped area"):
        estimate_area([[40, 10], [4, 5]], [0.0, 0.0], ["a", "b"])
    with pytest.raises(DataError, match="at least 2"):
        estimate_area([[1, 0], [0, 0]], [9.0, 1.0], ["a", "b"], design="random")
