"""Overlaps, supports, class distances, full space and rankings against sets with known answers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.spatial import distance as scipy_distance

from berunda.assess.embedding import appearance_plane, nearest_distances, principal_components
from berunda.assess.full_space import measure_full_space
from berunda.assess.next_labels import rank_next
from berunda.assess.overlap import overlap_of
from berunda.assess.representativeness import class_figures, class_shares_on_plane, jensen_shannon, shares
from berunda.assess.support import PlaneGrid, estimate_supports
from berunda.data.site_classes import ClassCounts
from berunda.data.sites import Item, Site, SiteSet
from berunda.errors import ConfigError, DataError


def rectangle(top: int, bottom: int, left: int, right: int, n: int = 20) -> np.ndarray:
    mask = np.zeros((n, n), bool)
    mask[top:bottom, left:right] = True
    return mask.ravel()


def test_overlaps_of_rectangles_with_known_areas() -> None:
    first, second = rectangle(0, 10, 0, 10), rectangle(5, 10, 0, 20)  # 100 and 100 cells, 50 shared
    small = rectangle(0, 5, 0, 5)
    found = overlap_of({"first": first, "small": small}, {"first": first, "second": second, "small": small})
    np.testing.assert_allclose(found.iou, [[1, 50 / 150, 0.25], [0.25, 0, 1]])
    np.testing.assert_allclose(found.iot, [[1, 0.5, 1], [0.25, 0, 1]])


def test_matrices_agree_with_sets() -> None:
    rng = np.random.default_rng(0)
    masks = rng.random((5, 300)) < rng.random((5, 1))
    sets = {f"s{i}": mask for i, mask in enumerate(masks)}
    found = overlap_of(sets | {"both": masks[0] | masks[1]}, sets)
    cells = [set(np.flatnonzero(mask)) for mask in masks]
    for i, first in enumerate([*cells, cells[0] | cells[1]]):
        for j, second in enumerate(cells):
            assert found.iou[i, j] == pytest.approx(len(first & second) / len(first | second))
            assert found.iot[i, j] == pytest.approx(len(first & second) / len(second))
    assert (found.iot[5] >= found.iot[:2].max(axis=0)).all()


def test_overlaps_of_an_empty_support_are_not_stated_and_grids_must_agree() -> None:
    found = overlap_of({"a": rectangle(0, 2, 0, 2)}, {"none": np.zeros(400, bool)})
    assert np.isnan(found.iou).all()
    assert np.isnan(found.iot).all()
    with pytest.raises(DataError, match="one grid"):
        overlap_of({"a": np.ones(4, bool)}, {"b": np.ones(9, bool)})


def test_jensen_shannon_is_that_of_scipy() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        a, b = rng.integers(0, 9, (2, 7)) + np.array([[1], [0]]) * (rng.random(7) < 0.5)
        if a.sum() and b.sum():
            assert jensen_shannon(a, b) == pytest.approx(scipy_distance.jensenshannon(a, b, base=2), abs=1e-9)
    assert np.isnan(jensen_shannon([0, 0], [1, 2]))
    assert jensen_shannon([3, 0], [0, 8]) == 1.0


def test_the_nearest_are_those_of_all_distances() -> None:
    rng = np.random.default_rng(2)
    points, queries = rng.normal(size=(60, 5)).astype(np.float32), rng.normal(size=(9, 5)).astype(np.float32)
    index, found = nearest_distances(queries, points, 4)
    full = scipy_distance.cdist(queries, points)
    np.testing.assert_array_equal(index, np.argsort(full, axis=1)[:, :4])
    np.testing.assert_allclose(found, np.sort(full, axis=1)[:, :4], atol=1e-4)
    own = nearest_distances(points, points, 1, skip_self=True)[0][:, 0]
    assert (own != np.arange(60)).all()


def test_the_plane_is_the_same_bit_for_bit_for_any_number_of_threads() -> None:
    rng = np.random.default_rng(3)
    features = np.concatenate([rng.normal(size=(40, 12)), rng.normal(size=(40, 12)) + 6]).astype(np.float32)
    components = principal_components(features, 8)
    first = appearance_plane(components, seed=4, perplexity=8, n_threads=1)
    again = appearance_plane(components, seed=4, perplexity=8, n_threads=2)
    assert first.tobytes() == again.tobytes()
    assert (first**2).mean() == pytest.approx(1.0)
    gap = np.linalg.norm(first[:40].mean(0) - first[40:].mean(0))
    assert gap > first[:40].std() + first[40:].std()  # the two groups lie apart


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_plane_of_ten_thousand_images_is_the_same_bit_for_bit() -> None:
    """From 10,000 images on forces are interpolated on a grid. Two runs took 346 s on one core that others used too."""
    rng = np.random.default_rng(5)
    centres = rng.normal(size=(8, 10)) * 3
    points = (rng.normal(size=(10_000, 10)) + centres[np.arange(10_000) % 8]).astype(np.float32)
    components = principal_components(points, 10)
    planes = [appearance_plane(components, seed=7, n_threads=threads) for threads in (1, 2)]
    assert planes[0].tobytes() == planes[1].tobytes()


def test_few_alike_and_broken_features_have_a_verdict() -> None:
    few = principal_components(np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32))
    assert appearance_plane(few).shape == (5, 2)
    with pytest.raises(DataError, match="same features"):
        principal_components(np.ones((9, 4), np.float32))
    broken = np.ones((9, 4), np.float32)
    broken[3, 1] = np.nan
    with pytest.raises(DataError, match="image 3 are not finite"):
        principal_components(broken)
    with pytest.raises(DataError, match="at least 2"):
        principal_components(np.ones((1, 4), np.float32))


def test_stages_count_alike() -> None:
    rng = np.random.default_rng(5)
    loud, quiet = rng.normal(size=(50, 3)) * 1000, rng.normal(size=(50, 2))
    features = np.concatenate([loud, quiet], axis=1).astype(np.float32)
    balanced = principal_components(features, stages=(3, 2))
    shares_of_first = np.corrcoef(np.concatenate([balanced[:, :2].T, quiet.T]))[:2, 2:]
    assert np.abs(shares_of_first).max() > 0.9  # the quiet block decides a leading component
    with pytest.raises(DataError, match="expected 9"):
        principal_components(features, stages=(3, 6))


def test_supports_hold_their_images_and_lie_where_they_are() -> None:
    rng = np.random.default_rng(6)
    plane = np.concatenate([rng.normal(size=(200, 2)) * 0.3 - 1, rng.normal(size=(200, 2)) * 0.3 + 1, [[3.0, 3.0]]])
    site = np.array([0] * 200 + [1] * 200 + [2])
    found = estimate_supports(plane, site, 3, nu=0.05)
    cells = found.grid.cells_of(plane)
    for number in (0, 1):
        inside = found.masks[number][cells[site == number]].mean()
        assert 0.88 <= inside <= 1.0
    assert not (found.masks[0] & found.masks[1]).any()
    assert found.n_fitted.tolist() == [200, 200, 0]
    assert not found.masks[2].any()
    assert (found.union([0, 1]) == (found.masks[0] | found.masks[1])).all()
    with pytest.raises(ConfigError, match="nu is 0"):
        estimate_supports(plane, site, 3, nu=0)


def test_cells_and_their_middles_agree() -> None:
    grid = PlaneGrid.over(np.array([[0.0, 0.0], [2.0, 1.0]]), 16)
    np.testing.assert_array_equal(grid.cells_of(grid.centres), np.arange(256))


def test_the_full_space_counts_images_with_a_near_neighbour() -> None:
    rng = np.random.default_rng(7)
    near, same, far = rng.normal(size=(80, 3)), rng.normal(size=(80, 3)), rng.normal(size=(80, 3)) + 50
    points = np.concatenate([near, same, far]).astype(np.float32)
    site = np.repeat([0, 1, 2], 80)
    space = measure_full_space(points, site, 3, nu=0.05)
    found = space.overlap({"0": [0]}, {"1": [1], "2": [2], "1 and 2": [1, 2]})
    full = scipy_distance.cdist(points, points[:80])
    np.fill_diagonal(full[:80], np.inf)
    radius = np.quantile(full[:80].min(1), 0.95, method="higher")
    assert space.radius[0] == pytest.approx(radius, rel=1e-5)
    assert found.iot[0, 0] == pytest.approx((full[80:160].min(1) <= radius).mean(), abs=0.02)
    assert found.iot[0, 1] == 0.0
    assert found.iot[0, 2] == pytest.approx(found.iot[0, 0] / 2)


def test_overlaps_in_the_full_space_are_counts_of_images(monkeypatch: pytest.MonkeyPatch) -> None:
    from berunda.assess import full_space

    rng = np.random.default_rng(8)
    site = rng.integers(0, 6, 200)
    site[site == 5] = 4
    site[:2] = 5  # too few images for a support
    space = measure_full_space(rng.normal(size=(200, 2)) + site[:, None] / 2, site, 6, nu=0.3)
    unions = {"0": [0], "3": [3], "5": [5], "1, 2 and 5": [1, 2, 5], "0 to 4": [0, 1, 2, 3, 4]}
    monkeypatch.setattr(full_space, "_ROWS", 37)
    found = space.overlap(unions, unions)
    for (i, first), (j, second) in itertools.product(enumerate(unions.values()), repeat=2):
        one, two = (np.isin(site, [s for s in sites if s != 5]) for sites in (first, second))
        if not (one.any() and two.any()):
            assert np.isnan([found.iot[i, j], found.iou[i, j]]).all()
            continue
        in_one, in_two, either = space.covered_by(first), space.covered_by(second), one | two
        assert found.iot[i, j] == in_one[two].mean()
        assert found.iou[i, j] == (in_one & in_two)[either].sum() / (in_one | in_two)[either].sum()


def sites_of(roles: list[str], n_each: int) -> SiteSet:
    from pathlib import Path

    sites = tuple(Site(f"s{i}", role) for i, role in enumerate(roles))
    items = tuple(Item(f"{i}/{k}", i, Path("x.png")) for i in range(len(roles)) for k in range(n_each))
    return SiteSet("toy", sites, items)


def test_class_figures_name_what_is_missing_rare_and_lonely() -> None:
    counts = np.array([[8, 1, 0], [9, 1, 0], [2, 5, 3], [0, 0, 0]], float).repeat(2, axis=0)
    sites = sites_of(["labelled", "labelled", "test", "test"], 2)
    found = class_figures(ClassCounts(("a", "b", "c"), counts, "pixels"), sites)
    assert found.missing == ("c",)
    assert found.rare == ("b",)
    assert found.only_in_one == {"c": "s2"}
    assert found.by_role["labelled"].tolist() == [34, 4, 0]
    assert found.role_distance["labelled", "test"] == pytest.approx(
        scipy_distance.jensenshannon([34, 4, 0], [4, 10, 6], base=2)
    )
    assert np.isnan(found.site_distance[3]).all()
    assert found.site_distance[0, 2] == found.site_distance[2, 0] > 0


def test_shares_over_the_plane_are_means_of_images() -> None:
    counts = np.array([[1, 0], [1, 1], [0, 4]], float)
    plane = np.array([[0.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    maps = class_shares_on_plane(ClassCounts(("a", "b"), counts, "images"), plane, PlaneGrid.over(plane))
    known = maps[0][np.isfinite(maps[0])]
    assert sorted(known.tolist()) == [0.0, 0.75]
    assert np.nansum(shares(counts)[:, 1]) == pytest.approx(1.5)


def test_each_image_to_label_next_is_the_furthest_one() -> None:
    rng = np.random.default_rng(8)
    points = rng.normal(size=(30, 2))
    labelled, candidates = np.arange(3), np.arange(3, 30)
    found = rank_next(points, labelled, candidates, 6)
    covered = list(labelled)
    for index, distance in zip(found.index, found.distance, strict=True):
        left = {c: min(np.linalg.norm(points[c] - points[k]) for k in covered) for c in candidates}
        assert index == max(left, key=lambda c: left[c])
        assert distance == pytest.approx(left[index], abs=1e-5)
        covered.append(int(index))
    assert (np.diff(found.largest_left) <= 1e-9).all()


def test_the_ranking_is_within_twice_the_best_possible_cover() -> None:
    rng = np.random.default_rng(9)
    points = rng.normal(size=(11, 2))
    candidates, start = np.arange(1, 11), np.array([0])
    found = rank_next(points, start, candidates, 3)

    def radius(centres: tuple[int, ...]) -> float:
        return float(scipy_distance.cdist(points, points[[0, *centres]]).min(1).max())

    best = min(radius(choice) for choice in itertools.combinations(range(1, 11), 3))
    assert found.largest_left[-1] <= 2 * best + 1e-6


def test_uncertainty_turns_the_ranking() -> None:
    points = np.array([[0.0], [1.0], [-0.9]])
    plain = rank_next(points, np.array([0]), np.array([1, 2]), 1)
    unsure = rank_next(points, np.array([0]), np.array([1, 2]), 1, uncertainty=np.array([0, 0, 1.0]))
    assert plain.index.tolist() == [1]
    assert unsure.index.tolist() == [2]
    first = rank_next(points, np.zeros(0, int), np.arange(3), 1)
    assert first.index.tolist() == [0]  # without labels: the one in the middle
    with pytest.raises(DataError, match="no unlabelled image"):
        rank_next(points, np.array([0]), np.zeros(0, int), 1)
