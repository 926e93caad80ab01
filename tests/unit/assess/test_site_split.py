"""The choice of sites against a search by hand."""

from __future__ import annotations

import itertools

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
    made = choose_split(candidates(), n_labelled=2, n_test=1, test=[1])
    assert 4 in made.labelled  # the only other site with class d
    assert made.figures["n_classes_missing"] == 0


def test_sites_that_are_given_stay() -> None:
    made = choose_split(candidates(), n_labelled=2, n_test=2, labelled=[0], test=[3])
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
