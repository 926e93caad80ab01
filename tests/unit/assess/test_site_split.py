"""The choice of sites against a search by hand."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

from berunda.assess.full_space import measure_full_space
from berunda.assess.site_split import Candidates, _label_cost, _search, choose_split
from berunda.errors import ConfigError


def candidates(n: int = 6, seed: int = 0) -> Candidates:
    rng = np.random.default_rng(seed)
    site = np.repeat(np.arange(n), 20)
    points = (rng.normal(size=(20 * n, 3)) + 3 * (site % 3)[:, None]).astype(np.float32)
    counts = rng.integers(0, 20, (n, 4)).astype(float)
    counts[:, 3] = 0
    counts[1, 3] = counts[4, 3] = 9
    space = measure_full_space(points, site, n, nu=0.05)
    return Candidates(tuple(f"s{i}" for i in range(n)), space, counts, ("a", "b", "c", "d"))


def test_the_choice_of_labels_is_the_best_of_all() -> None:
    given = candidates()
    made = choose_split(given, n_labelled=2, n_test=2)
    rest = [s for s in range(6) if s not in made.test]
    cost = _label_cost(given, made.test)
    best = min(cost(tuple(c)) for c in itertools.combinations(rest, 2))
    assert made.cost == pytest.approx(best)
    assert made.cost <= made.random_cost
    assert sorted([*made.labelled, *made.unlabelled, *made.test]) == list(range(6))
    assert any("cost of this choice" in text for text in made.reasons)


def test_a_class_of_the_test_is_not_left_out_where_a_site_has_it() -> None:
    made = choose_split(candidates(), n_labelled=2, n_test=1, given={"test": [1]})
    assert 4 in made.labelled  # the only other site with class d
    assert made.figures["n_classes_missing"] == 0


def test_sites_that_are_given_stay() -> None:
    made = choose_split(candidates(), n_labelled=2, n_test=2, given={"labelled": [0], "test": [3]})
    assert 0 in made.labelled
    assert 3 in made.test


def test_exchanges_find_a_choice_no_single_exchange_betters() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=60)

    def cost(chosen: tuple[int, ...]) -> float:
        return float(sum(values[s] for s in chosen))

    found = _search(cost, list(range(60)), 12, (), rng)
    assert set(found) == set(np.argsort(values)[:12].tolist())


def test_the_same_seed_gives_the_same_split() -> None:
    assert choose_split(candidates(), n_labelled=2, n_test=2, seed=3) == choose_split(
        candidates(), n_labelled=2, n_test=2, seed=3
    )


def test_too_many_sites_asked_for_are_refused() -> None:
    with pytest.raises(ConfigError, match="6 sites found, 4 to label and 3 to test on"):
        choose_split(candidates(), n_labelled=4, n_test=3)


def test_sites_that_stay_unlabelled_are_neither_labelled_nor_tested() -> None:
    made = choose_split(candidates(), n_labelled=2, n_test=2, given={"unlabelled": [1, 4]})
    assert set(made.unlabelled) == {1, 4}
    with pytest.raises(ConfigError, match=r"6 sites found \(2 of them stay unlabelled\), 3 to label"):
        choose_split(candidates(), n_labelled=3, n_test=2, given={"unlabelled": [1, 4]})


def test_shares_of_images_that_are_not_covered_are_those_of_sets() -> None:
    given = candidates()
    covered, site = given.space.is_covered, given.space.site_of
    for sites, target in ([[0], [1]], [[0, 3], [2, 5]], [[1, 2, 4], [0, 1, 2, 3, 4, 5]]):
        images = np.flatnonzero(np.isin(site, target))
        expected = 1 - covered[images][:, sites].any(axis=1).mean()
        assert given.uncovered(sites, target) == pytest.approx(expected)
    assert given.uncovered([], [1]) == 1.0


def test_labels_are_chosen_from_what_the_test_leaves() -> None:
    given = candidates()
    seen: list[tuple[int, ...]] = []

    def beside(test: tuple[int, ...]) -> Candidates:
        """Return the candidates without the images of the site that is chosen else."""
        seen.append(test)
        kept = given.space.site_of != first
        rng = np.random.default_rng(0)
        points = (rng.normal(size=(120, 3)) + 3 * (given.space.site_of % 3)[:, None]).astype(np.float32)
        space = measure_full_space(points[kept], given.space.site_of[kept], 6, nu=0.05)
        counts = given.counts.copy()
        counts[first] = 0
        return Candidates(given.names, space, counts, given.classes)

    plain = choose_split(given, n_labelled=1, n_test=2)
    first = plain.labelled[0]
    made = choose_split(given, n_labelled=1, n_test=2, beside_test=beside)
    assert seen == [plain.test] == [made.test]
    assert made.labelled != plain.labelled
    assert made.figures["test_covered_by_labelled"] == pytest.approx(
        1 - beside(made.test).uncovered(made.labelled, made.test)
    )


def test_nothing_is_said_of_classes_that_nobody_knows() -> None:
    given = candidates()
    for counts in (None, np.zeros((6, 4))):
        made = choose_split(Candidates(given.names, given.space, counts, given.classes), n_labelled=2, n_test=2)
        assert not any("class" in name for name in made.figures)
        assert not any("class" in text for text in made.reasons)
        assert made.cost < 1


def test_three_hundred_sites_are_split_in_seconds() -> None:
    rng = np.random.default_rng(0)
    site = np.repeat(np.arange(300), 20)
    points = (rng.normal(size=(6000, 4)) + 2 * rng.normal(size=(300, 4))[site]).astype(np.float32)
    space = measure_full_space(points, site, 300, nu=0.05)
    given = Candidates(
        tuple(f"s{i}" for i in range(300)), space, rng.integers(0, 9, (300, 5)).astype(float), tuple("abcde")
    )
    start = time.process_time()
    made = choose_split(given, n_labelled=30, n_test=30)
    assert time.process_time() - start < 30  # about 3 s; minutes where coverage is computed for each choice anew
    assert made.cost < made.random_cost
