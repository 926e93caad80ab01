"""Several labels on a graph against dense twins in numpy."""

from __future__ import annotations

import numpy as np
import pytest

from berunda.models.presence import (
    aligned_presence,
    corrected_presence,
    held_presence,
    inductive_presence,
    is_told,
    presence_shares,
    propagate_presence,
    trusted_presence,
)
from berunda.models.propagation import knn_graph

N, K = 60, 5
NAN = np.nan


def points(seed: int = 0, n: int = N) -> tuple[np.ndarray, np.ndarray]:
    """Four clouds of points on the sphere, and two labels that tell them: which half, which quarter of it."""
    cloud = np.arange(n) % 4
    given = np.eye(4, 8)[cloud] + 0.15 * np.random.default_rng(seed).normal(size=(n, 8))
    found = (given / np.linalg.norm(given, axis=1, keepdims=True)).astype(np.float32)
    return found, np.stack([cloud // 2, cloud % 2], axis=1).astype(np.float32)


def few(truth: np.ndarray, n: int = 12) -> np.ndarray:
    """The labels of the first images, one of them not known."""
    labels = np.full_like(truth, NAN)
    labels[:n] = truth[:n]
    labels[0, 1] = NAN
    return labels


def np_two_classes(labels: np.ndarray) -> np.ndarray:
    """Known absences and presences (N, 2) of one class."""
    return np.stack([labels == 0, labels == 1], axis=1).astype(float)


def np_aligned(presence: np.ndarray, share: float) -> np.ndarray:
    """Multiply the odds by what gives the mean `share`, found by halving."""
    given = np.clip(presence, 1e-6, 1 - 1e-6)
    odds = given / (1 - given)
    low, high = -40.0, 40.0
    for _ in range(100):
        middle = (low + high) / 2
        factor = odds * np.exp(middle)
        low, high = (middle, high) if (factor / (1 + factor)).mean() < share else (low, middle)
    factor = odds * np.exp(low)
    return factor / (1 + factor)


def test_shares_leave_out_what_is_not_known() -> None:
    labels = np.array([[1, 1, NAN, 0], [0, NAN, NAN, 0], [0, 0, NAN, 0]], np.float32)
    np.testing.assert_allclose(presence_shares(labels), [1.5 / 4, 1.5 / 3, 0.5, 0.5 / 4])
    assert is_told(labels).tolist() == [True, True, False, False]


@pytest.mark.parametrize("alpha", [0.5, 0.95])
def test_labels_spread_class_by_class_like_the_dense_twin(alpha: float) -> None:
    x, truth = points()
    labels, graph = few(truth), knn_graph(x, K)
    dense = graph.toarray().astype(float)
    found = propagate_presence(graph, labels, alpha=alpha)
    for c in range(2):
        start = np_two_classes(labels[:, c])
        start /= start.sum(0)
        soft = start
        for _ in range(60):
            soft = alpha * dense @ soft + (1 - alpha) * start
        soft = soft / soft.sum(0)
        expected = np_aligned(soft[:, 1] / soft.sum(1), float(presence_shares(labels)[c]))
        np.testing.assert_allclose(found[:, c], expected, atol=1e-4)


def test_labels_reach_the_images_of_their_cloud() -> None:
    x, truth = points()
    found = propagate_presence(knn_graph(x, K), few(truth), alpha=0.9)
    assert ((found > 0.5) == (truth == 1)).all()


def test_a_class_without_both_kinds_of_label_is_everywhere_the_same() -> None:
    x, truth = points()
    labels = few(truth)
    labels[:, 1] = np.where(np.isnan(labels[:, 1]), NAN, 0)
    found = propagate_presence(knn_graph(x, K), labels)
    np.testing.assert_allclose(found[:, 1], presence_shares(labels)[1], rtol=1e-3)
    assert np.ptp(found[:, 0]) > 0.5
    answers = np.random.default_rng(0).random((N, 2)).astype(np.float32)
    labels[:, 1] = NAN
    np.testing.assert_array_equal(corrected_presence(knn_graph(x, K), answers, labels)[:, 1], answers[:, 1])


def test_answers_are_corrected_class_by_class_with_the_labels_held() -> None:
    x, truth = points()
    labels, graph = few(truth), knn_graph(x, K)
    answers = np.random.default_rng(1).random((N, 2)).astype(np.float32)
    found = corrected_presence(graph, answers, labels, alpha=0.6)
    dense = graph.toarray().astype(float)
    for c in range(2):
        known = ~np.isnan(labels[:, c])
        start = np.stack([1 - answers[:, c], answers[:, c]], axis=1).astype(float)
        start[known] = np_two_classes(labels[:, c])[known] * (N / known.sum() / (graph.nnz / N))
        soft = start
        for _ in range(20):
            soft = 0.6 * dense @ soft + 0.4 * start
        np.testing.assert_allclose(found[:, c], soft[:, 1] / soft.sum(1), rtol=1e-4)


def test_alignment_gives_the_share_and_keeps_the_order() -> None:
    draw = np.random.default_rng(2)
    presence = draw.beta(0.5, 2, (400, 3)).astype(np.float32)
    shares = np.array([0.02, 0.3, 0.9], np.float32)
    found = aligned_presence(presence, shares)
    for c in range(3):
        np.testing.assert_allclose(found[:, c], np_aligned(presence[:, c], float(shares[c])), atol=1e-4)
        assert (np.diff(found[np.argsort(presence[:, c]), c]) >= 0).all()
    np.testing.assert_allclose(found.mean(0), shares, atol=1e-5)


def test_known_labels_stay_what_they_are() -> None:
    labels = np.array([[1, NAN], [NAN, 0]], np.float32)
    assert held_presence(np.full((2, 2), 0.5, np.float32), labels).tolist() == [[1, 0.5], [0.5, 0]]


def test_of_each_class_the_likeliest_to_have_it_and_to_lack_it_are_trusted() -> None:
    presence = np.array([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6]], np.float32)
    shares = np.array([0.5, 0.25], np.float32)
    found = trusted_presence(presence, shares, 0.5)
    assert found[:, 0].tolist() == [True, False, False, True], "none is above 0.5: their order decides"
    assert found[:, 1].tolist() == [True, False, True, True]
    assert trusted_presence(presence, shares, 1.0).all()
    assert not trusted_presence(presence, shares, 0.0).any()


def test_images_outside_the_graph_ask_their_neighbours() -> None:
    x, truth = points()
    others, expected = points(seed=1, n=20)
    presence = np.random.default_rng(3).random((N, 2)).astype(np.float32)
    found = inductive_presence(others, x, presence, k=3)
    cosine = others.astype(float) @ x.T.astype(float)
    for i in range(20):
        near = np.argsort(-cosine[i])[:3]
        weights = cosine[i, near] ** 3
        np.testing.assert_allclose(found[i], weights @ presence[near] / weights.sum(), rtol=1e-4)
    told = inductive_presence(others, x, truth, k=3)
    assert ((told > 0.5) == (expected == 1)).all()
