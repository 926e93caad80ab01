"""What an analysis of sites says in words, from figures made by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from berunda.assess.description import BINS, Description
from berunda.assess.full_space import FullSpace, measure_full_space
from berunda.assess.representativeness import class_figures
from berunda.assess.site_analysis import SiteAnalysis, find_overlaps, findings_of, smaller, warnings_of
from berunda.assess.site_plots import class_maps
from berunda.assess.site_report import site_report_json, write_site_report
from berunda.assess.support import PlaneGrid, Support
from berunda.data.scaling import Scaling
from berunda.data.site_classes import ClassCounts
from berunda.data.sites import Item, Site, SiteSet


def analysis_of(
    sites: tuple[Site, ...],
    counts: tuple[int, ...],
    masks: np.ndarray,
    distance: np.ndarray,
    classes: ClassCounts | None = None,
) -> SiteAnalysis:
    """Return an analysis whose supports on the plane are `masks` (S, 16) and whose radii in the full space are 1."""
    site_of = np.repeat(np.arange(len(sites)), counts)
    items = tuple(Item(f"i{k}", int(s), Path("x.png")) for k, s in enumerate(site_of))
    n, found = len(items), SiteSet("toy", sites, items)
    described = Description(
        found,
        features=np.zeros((n, 1), np.float32),
        thumbs=np.zeros((n, 40, 40, 3), np.uint8),
        hashes=np.zeros(n, np.uint64),
        contents=np.arange(n, dtype=np.uint64),
        histograms=np.ones((n, 1, BINS), np.uint16),
        sizes=np.full((n, 2), 32),
        bands=("grey",),
        scaling=Scaling(np.zeros(1), np.ones(1)),
    )
    radius = np.where(np.array(counts) >= 3, 1.0, np.nan)
    space = FullSpace(distance[site_of].astype(np.float32), radius, site_of)
    support = Support(PlaneGrid(0, 4, 0, 4, 4), masks.astype(bool), np.array(counts), 0.05, 4.0)
    return SiteAnalysis(
        found=described,
        plane=np.stack([np.linspace(0, 4, n), np.linspace(0, 4, n)], axis=1),
        support=support,
        space=space,
        overlaps=find_overlaps(found, support, space),
        classes=classes,
        class_figures=None if classes is None else class_figures(classes, found),
    )


WHOLE, HALF = np.ones(16), np.repeat([1, 0], 8)
NEAR, FAR = np.zeros((2, 2)), np.array([[0, 9], [9, 0]])


@pytest.mark.parametrize(
    ("labelled", "distance", "told"),
    [
        (WHOLE, FAR, "Site b is covered to 0% by the labelled sites in the full space (100% on the plane): a model"),
        (HALF, NEAR, "Site b is covered to 50% by the labelled sites on the plane (100% in the full space): expect"),
        (WHOLE, NEAR, "Site b is covered to 100% by the labelled sites on the plane (100% in the full space): its"),
    ],
)
def test_the_verdict_rests_on_the_smaller_one_of_plane_and_full_space(
    labelled: np.ndarray, distance: np.ndarray, told: str
) -> None:
    sites = (Site("a", "labelled"), Site("b", "test"))
    found = findings_of(analysis_of(sites, (4, 4), np.stack([labelled, WHOLE]), distance))
    assert found[0].startswith(told)
    others = findings_of(analysis_of((Site("a"), Site("b")), (4, 4), np.stack([WHOLE, WHOLE]), distance))
    assert all(("covered to 0%" in text) == (distance is FAR) for text in others)
    assert smaller(float("nan"), 0.4) == (0.4, "in the full space")
    assert np.isnan(smaller(float("nan"), float("nan"))[0])


def test_sites_named_like_unions_keep_their_own_figures(tmp_path: Path) -> None:
    sites = (Site("test", "labelled"), Site("labelled", "test"), Site("all labelled", "test"))
    masks = np.stack([HALF, WHOLE, 1 - HALF])
    made = analysis_of(sites, (4, 4, 4), masks, np.zeros((3, 3)))
    assert made.overlaps.names == {"labelled": "all all labelled", "test": "all test"}
    assert made.overlaps.iot_of("labelled", "labelled")[0] == 0.5
    assert made.overlaps.iot_of("labelled", "all labelled")[0] == 0.0
    assert made.overlaps.iot_of("labelled", "all test")[0] == 0.5
    assert len(set(made.overlaps.unions.cols)) == 4  # type: ignore[union-attr]
    html = write_site_report(tmp_path, made, {}).read_text(encoding="utf-8")
    assert "all all labelled" in html


def test_the_page_says_what_the_full_space_is(tmp_path: Path) -> None:
    made = analysis_of((Site("a"), Site("b")), (4, 4), np.stack([WHOLE, WHOLE]), NEAR)
    for n_features, n_components in ((1, 1), (960, 50)):
        found = replace(made.found, features=np.zeros((8, n_features), np.float32))
        html = write_site_report(tmp_path, replace(made, found=found), {}).read_text(encoding="utf-8")
        assert f"first {n_components} principal components" in html


@pytest.mark.parametrize(("n_classes", "told"), [(14, ""), (50, "The 2 of 50 classes with the")])
def test_all_classes_have_a_map_or_are_counted(tmp_path: Path, n_classes: int, told: str) -> None:
    names = tuple(f"class {k:02d}" for k in range(n_classes))
    given = ClassCounts(names, np.ones((8, n_classes)), "pixels")
    made = analysis_of((Site("a"), Site("b")), (4, 4), np.stack([WHOLE, WHOLE]), NEAR, given)
    maps = class_maps(np.ones((n_classes, 4, 4)), names, made.support.grid)
    drawn = {axis.get_title(loc="left") for axis in maps.axes if axis.get_visible()} & set(names)
    assert len(drawn) == min(n_classes, 48)
    html = write_site_report(tmp_path, made, {}).read_text(encoding="utf-8")
    assert told in html
    assert ("smallest shares are left out" in html) == bool(told)


def many(n_training: int, n_test: int) -> SiteAnalysis:
    sites = tuple(Site(f"s{k}", "labelled" if k < n_training else "test") for k in range(n_training + n_test))
    n = len(sites)
    return analysis_of(sites, (3,) * n, np.ones((n, 16)), np.zeros((n, n)))


@pytest.mark.parametrize(("n_training", "n_test", "is_drawn"), [(40, 5, True), (41, 5, False), (5, 41, False)])
def test_pictures_end_where_pairs_are_too_many_for_one(
    tmp_path: Path, n_training: int, n_test: int, is_drawn: bool
) -> None:
    made = many(n_training, n_test)
    assert made.overlaps.pairs is not None
    assert made.overlaps.pairs.iot.shape == (n_training, n_test)
    assert any("too many for a picture" in text for text in warnings_of(made)) != is_drawn
    html = write_site_report(tmp_path, made, {}).read_text(encoding="utf-8")
    assert ("Heat map" in html) == is_drawn
    assert any(f"at most 40 of {n_training + n_test} sites" in text for text in warnings_of(made))


def test_millions_of_pairs_are_left_out_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from berunda.assess import site_analysis

    monkeypatch.setattr(site_analysis, "MAX_PAIRS", 11)
    assert many(2, 5).overlaps.pairs is not None
    made = many(3, 4)
    assert made.overlaps.pairs is None
    assert any("7 sites are too many to compare pair by pair (over 11 pairs)" in text for text in warnings_of(made))


def test_names_of_data_sets_are_not_changed() -> None:
    sites = (Site("a", group="EuroSAT"), Site("b", group="RESISC45"))
    found = findings_of(analysis_of(sites, (4, 4), np.stack([WHOLE, WHOLE]), NEAR))
    assert "Data set EuroSAT covers 100% of the appearance of data set RESISC45 on the plane." in found


def test_sites_of_too_few_images_have_no_figures_anywhere(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    site = np.repeat([0, 1, 2], [5, 2, 5])
    space = measure_full_space(rng.normal(size=(12, 3)), site, 3, nu=0.05)
    assert space.is_known.tolist() == [True, False, True]
    assert np.isnan(space.covered_by_others()[1])
    found = space.overlap({"0": [0], "1": [1]}, {"1": [1], "2": [2], "1 and 2": [1, 2]})
    assert np.isnan(found.iot[:, 0]).all()
    assert np.isnan(found.iot[1]).all()
    assert found.iot[0, 1] == found.iot[0, 2]
    sites = (Site("a", "labelled"), Site("b", "test"), Site("c", "test"))
    made = analysis_of(sites, (4, 2, 4), np.stack([WHOLE, WHOLE * 0, WHOLE]), np.zeros((3, 3)))
    assert not any("Site b" in text for text in findings_of(made))
    assert write_site_report(tmp_path, made, {}).read_text(encoding="utf-8").count("too few images") == 2


def test_an_empty_support_is_told() -> None:
    sites = (Site("a", "labelled"), Site("b", "test"))
    made = analysis_of(sites, (4, 4), np.stack([WHOLE, WHOLE * 0]), FAR)
    assert any("The support of b on the plane is empty" in text for text in warnings_of(made))
    assert findings_of(made)[0].startswith("Site b is covered to 0% by the labelled sites in the full space: ")
    whole = analysis_of(sites, (4, 4), np.stack([WHOLE, WHOLE]), FAR)
    assert not any("is empty" in text for text in warnings_of(whole))


@pytest.mark.parametrize("first_known", [0, 4, 8])
def test_classes_are_missing_only_where_labels_are_known(tmp_path: Path, first_known: int) -> None:
    sites = (Site("a", "labelled"), Site("b", "test"))
    counts = np.zeros((8, 2))
    counts[first_known:, 0] = 1
    given = ClassCounts(("field", "town"), counts, "images")
    made = analysis_of(sites, (4, 4), np.stack([WHOLE, WHOLE]), NEAR, given)
    html = write_site_report(tmp_path, made, {}).read_text(encoding="utf-8")
    assert ("of 2 classes" in html) == (first_known == 0)
    assert ("no class of a labelled site is known" in html) == (first_known == 4)
    assert ("classes are not known" in html) == (first_known == 8)
    missing = site_report_json(made, {})["classes"]["missing_from_labelled"]
    assert missing == ([] if first_known == 0 else None)
    assert not any("class" in text for text in findings_of(replace(made, class_figures=None)))
