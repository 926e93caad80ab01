"""Label propagation against dense twins in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from berunda.errors import DataError
from berunda.models.propagation import fit_projection, inductive, knn_graph, nearest, propagate

N, D, K, C = 60, 8, 5, 3


def features(seed: int = 0, n: int = N) -> tuple[np.ndarray, np.ndarray]:
    """Three clouds of points, and which cloud each is of."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(C, size=n)
    centres = np.random.default_rng(7).normal(size=(C, D)) * 2
    return (centres[truth] + rng.normal(size=(n, D))).astype(np.float32), truth


def on_sphere(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def np_graph(points: np.ndarray, k: int) -> np.ndarray:
    cosine = points.astype(np.float64) @ points.T.astype(np.float64)
    np.fill_diagonal(cosine, -np.inf)
    directed = np.zeros_like(cosine)
    for i, row in enumerate(cosine):
        for j in np.argsort(-row)[:k]:
            directed[i, j] = max(row[j], 0) ** 3
    joined = directed + directed.T
    degree = np.maximum(joined.sum(1), 1e-12)
    return joined / np.sqrt(np.outer(degree, degree))


def np_propagate(graph: np.ndarray, labels: np.ndarray, alpha: float, iterations: int, balanced: bool) -> np.ndarray:
    given = np.array([[float(label == c) for c in range(C)] for label in labels])
    if balanced:
        given = given / np.maximum(given.sum(0), 1)
    soft = given.copy()
    for _ in range(iterations):
        soft = alpha * graph @ soft + (1 - alpha) * given
    if balanced:
        soft = soft / np.where(soft.sum(0) > 0, soft.sum(0), 1)
    total = soft.sum(1, keepdims=True)
    return np.where(total > 0, soft / np.where(total > 0, total, 1), 1 / C)


def labels_of(truth: np.ndarray, n: int = 2) -> np.ndarray:
    labels = np.full(len(truth), -1)
    for c in range(C):
        labels[np.flatnonzero(truth == c)[: n + c]] = c
    return labels


def test_neighbours_are_exact_and_exclude_oneself() -> None:
    points = on_sphere(features()[0])
    index, cosine = nearest(None, points, K)
    whole = points @ points.T
    np.fill_diagonal(whole, -2)
    expected = np.argsort(-whole, axis=1)[:, :K]
    assert np.array_equal(index, expected)
    np.testing.assert_allclose(cosine, np.take_along_axis(whole, expected, 1), atol=1e-5)
    assert nearest(points[:4], points, 1)[0].ravel().tolist() == [0, 1, 2, 3]


def test_graph_agrees_with_its_dense_twin() -> None:
    points = on_sphere(features()[0])
    graph = knn_graph(points, K)
    np.testing.assert_allclose(graph.toarray(), np_graph(points, K), atol=1e-5)
    assert graph.dtype == np.float32
    assert abs(graph - graph.T).max() < 1e-6
    assert (graph.diagonal() == 0).all()
    assert np.abs(np.linalg.eigvalsh(graph.toarray().astype(np.float64))).max() < 1 + 1e-5


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("alpha", [0.0, 0.9, 0.99])
def test_propagation_agrees_with_its_dense_twin(balanced: bool, alpha: float) -> None:
    x, truth = features()
    points, labels = on_sphere(x), labels_of(truth)
    found = propagate(knn_graph(points, K), labels, C, alpha=alpha, iterations=20, class_balanced=balanced)
    expected = np_propagate(np_graph(points, K), labels, alpha, 20, balanced)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    if alpha == 0:
        assert np.array_equal(found[labels >= 0].argmax(1), labels[labels >= 0])


def test_few_labels_reach_the_whole_cloud() -> None:
    x, truth = features(n=300)
    points = fit_projection(x, 4).apply(x)
    soft = propagate(knn_graph(points, K), labels_of(truth, 1), C)
    assert (soft.argmax(1) == truth).mean() > 0.9
    others, others_truth = features(seed=1, n=100)
    found = inductive(fit_projection(x, 4).apply(others), points, soft, K)
    assert (found.argmax(1) == others_truth).mean() > 0.9
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)


def test_inductive_agrees_with_its_twin() -> None:
    points, queries = on_sphere(features()[0]), on_sphere(features(seed=1, n=9)[0])
    soft = np.random.default_rng(0).dirichlet(np.ones(C), N).astype(np.float32)
    found = inductive(queries, points, soft, K)
    for row, query in zip(found, queries, strict=True):
        cosine = points @ query
        best = np.argsort(-cosine)[:K]
        weights = np.maximum(cosine[best], 0) ** 3
        np.testing.assert_allclose(row, weights @ soft[best] / weights.sum(), atol=1e-5)


def test_more_labels_of_one_class_do_not_drown_the_others() -> None:
    """Two equal clouds that touch: class 0 has ten labels, class 1 has one."""
    rng = np.random.default_rng(3)
    angle = np.concatenate([rng.uniform(0, 1, 150), rng.uniform(1, 2, 150)])
    points = on_sphere(np.stack([np.cos(angle), np.sin(angle)], axis=1))
    labels = np.full(300, -1)
    labels[:10], labels[200] = 0, 1
    graph = knn_graph(points, 10)
    shares = [(propagate(graph, labels, 2, class_balanced=b).argmax(1) == 0).mean() for b in (True, False)]
    assert abs(shares[0] - 0.5) < abs(shares[1] - 0.5)
    assert 0.35 < shares[0] < 0.65


def test_what_no_label_reaches_stays_undecided() -> None:
    points = on_sphere(np.array([[1, 0.0], [1, 0.1], [1, 0.2], [-1, 0.0], [-1, 0.1], [-1, 0.2]], np.float32))
    soft = propagate(knn_graph(points, 2), np.array([0, -1, -1, -1, -1, -1]), C)
    np.testing.assert_allclose(soft[:3], [[1, 0, 0]] * 3)
    np.testing.assert_allclose(soft[3:], 1 / C)


@pytest.mark.parametrize("whiten", [True, False])
def test_projection_agrees_with_the_singular_value_decomposition(whiten: bool) -> None:
    x = features(n=200)[0].astype(np.float64) * np.linspace(1, 3, D)
    centred = x - x.mean(0)
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    expected = centred @ axes[:4].T
    if whiten:
        expected = expected / (singular[:4] / np.sqrt(len(x)))
    found = fit_projection(x.astype(np.float32), 4, whiten=whiten).apply(x.astype(np.float32))
    np.testing.assert_allclose(found @ found.T, on_sphere(expected) @ on_sphere(expected).T, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_constant_features_do_no_harm() -> None:
    x = np.ones((10, 4), np.float32)
    points = fit_projection(x, 2, whiten=True).apply(x)
    assert np.isfinite(points).all()
    assert np.isfinite(propagate(knn_graph(points, 3), np.array([0, 1] + [-1] * 8), 2)).all()


def _errors() -> list[tuple[Any, str]]:
    x = features()[0]
    graph, none = knn_graph(on_sphere(x), K), np.full(N, -1)
    return [
        (lambda: knn_graph(on_sphere(x), N), f"k is {N}, expected 1 to {N - 1}"),
        (lambda: knn_graph(on_sphere(x), 0), "k is 0, expected 1"),
        (lambda: propagate(graph, none, C), "found none, expected at least one"),
        (lambda: propagate(graph, none[1:], C), "expected \\(60,\\)"),
        (lambda: propagate(graph, none + 5, C), "found 4 to 4, expected -1 \\(none\\) to 2"),
        (lambda: fit_projection(x * np.nan), "not finite"),
        (lambda: fit_projection(x[:1]), "N at least 2"),
        (lambda: fit_projection(x, 0), "n_components is 0"),
        (lambda: fit_projection(x).apply(x[:, 1:]), "expected \\(N, 8\\); use the same net"),
    ]


@pytest.mark.parametrize("case", range(9))
def test_errors_say_what_is_wrong(case: int) -> None:
    call, message = _errors()[case]
    with pytest.raises(DataError, match=message):
        call()
