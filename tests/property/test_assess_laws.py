"""Laws of the assessment functions over random inputs."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from berunda.assess.area import estimate_area
from berunda.assess.calibration import fit_temperature, reliability_table, softmax
from berunda.assess.intervals import bootstrap_interval
from berunda.assess.metrics import confusion_matrix, score
from berunda.assess.ood import auroc, threshold_at

COUNTS = arrays(np.int64, (4, 4), elements=st.integers(0, 50))
SCORES = arrays(np.float64, st.integers(1, 60), elements=st.floats(-1e6, 1e6))


@given(COUNTS, st.permutations(range(4)))
def test_scores_do_not_depend_on_the_order_of_classes(counts: np.ndarray, order: list[int]) -> None:
    plain, mixed = score(counts), score(counts[np.ix_(order, order)])
    assert mixed.iou == tuple(plain.iou[i] for i in order)
    for name in ("oa", "miou", "macro_f1", "kappa"):
        first, second = getattr(plain, name), getattr(mixed, name)
        assert (first is None) == (second is None)
        assert first is None or abs(first - second) < 1e-9


@given(COUNTS)
def test_scores_stay_in_their_ranges_and_absent_means_none(counts: np.ndarray) -> None:
    found = score(counts)
    for i in range(4):
        values = (found.iou[i], found.precision[i], found.recall[i], found.f1[i])
        assert all((v is None) == (counts[i].sum() == 0) for v in values)
        assert all(v is None or 0 <= v <= 1 for v in values)
        if found.iou[i] is not None and found.f1[i] is not None:
            assert abs(found.f1[i] - 2 * found.iou[i] / (1 + found.iou[i])) < 1e-9  # type: ignore[operator]
    assert found.kappa is None or -1 <= found.kappa <= 1


@given(arrays(np.int8, 40, elements=st.integers(-1, 2)), arrays(np.int8, 40, elements=st.integers(-1, 2)))
def test_confusion_counts_each_usable_pixel_once(truth: np.ndarray, predicted: np.ndarray) -> None:
    counts = confusion_matrix(truth, predicted, 3)
    assert counts.sum() == ((truth >= 0) & (predicted >= 0)).sum()
    np.testing.assert_array_equal(counts.T, confusion_matrix(predicted, truth, 3))


@settings(max_examples=30)
@given(arrays(np.int64, (5, 3, 3), elements=st.integers(0, 30)), st.integers(0, 2**31))
def test_intervals_are_ordered_and_within_range(matrices: np.ndarray, seed: int) -> None:
    found = bootstrap_interval(matrices, n_draws=100, seed=seed)
    for interval in (found.oa, found.miou, found.macro_f1, *found.iou, *found.recall):
        assert interval is None or 0 <= interval.low <= interval.high <= 1


@given(SCORES, st.floats(0.01, 1))
def test_threshold_keeps_at_least_its_share(scores: np.ndarray, share: float) -> None:
    threshold = threshold_at(scores, share)
    assert threshold in scores
    assert (scores <= threshold).mean() >= share - 1e-12


@given(SCORES, st.randoms())
def test_auroc_of_the_opposite_scores_is_the_complement(scores: np.ndarray, random: object) -> None:
    is_out = np.arange(scores.size) % 3 == 0
    found, opposite = auroc(scores, is_out), auroc(-scores, is_out)
    assert (found is None) == (opposite is None)
    assert found is None or abs(found + opposite - 1) < 1e-9  # type: ignore[operator]


@settings(max_examples=40)
@given(
    arrays(np.int64, (3, 3), elements=st.integers(1, 90)),
    arrays(np.float64, 3, elements=st.floats(1, 1e6)),
)
def test_areas_sum_to_the_mapped_area(counts: np.ndarray, mapped: np.ndarray) -> None:
    found = estimate_area(counts, mapped, ["a", "b", "c"])
    assert abs(sum(a.value for a in found.area_ha) - mapped.sum()) < 1e-6 * mapped.sum()
    assert 0 <= found.oa.value <= 1
    assert all(e is not None and 0 <= e.value <= 1 for e in (*found.users, *found.producers))


@settings(max_examples=25)
@given(st.integers(0, 2**31), st.floats(0.2, 5))
def test_temperature_never_worsens_the_likelihood_and_scales_with_the_logits(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (200, 3))
    labels = (softmax(logits).cumsum(1) < rng.random((200, 1))).sum(1)
    plain, scaled = fit_temperature(logits, labels), fit_temperature(logits * scale, labels)
    assert plain.nll_after is not None
    assert plain.nll_before is not None
    assert plain.nll_after <= plain.nll_before + 1e-9
    if plain.warning is None and scaled.warning is None:
        assert abs(scaled.value / (scale * plain.value) - 1) < 0.02


@given(arrays(np.float64, (30, 3), elements=st.floats(-20, 20)))
def test_reliability_counts_everything(logits: np.ndarray) -> None:
    table = reliability_table(softmax(logits), np.arange(30) % 3)
    assert table.count.sum() == 30
