"""Propagation as a method: its loss against numpy, its graphs, and a training that learns from neighbours."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch
from toy_methods import N_LISTED, TaskSource, spec_of, tiny

from berunda.errors import ConfigError
from berunda.methods import make_method, method_names
from berunda.methods.contract import NetSpec, SplitNet, Step, Surveyed
from berunda.methods.propagate import Propagate, propagate_loss
from berunda.models.propagation import aligned, corrected, joined, knn_graph, most_trusted, smoothed
from berunda.train import survey
from berunda.train.config import TrainConfig
from berunda.train.loop import train
from berunda.train.stages import methods_of, plan_stages


def test_loss_equals_its_numpy_twin() -> None:
    draw = np.random.default_rng(0)
    logits, guess, believed = draw.normal(size=(7, 4)), draw.dirichlet(np.ones(4), 7), draw.random(7) > 0.4
    total, count = 0.0, 0
    for row, target, counts in zip(logits, guess, believed, strict=True):
        if counts:
            log_p = row - np.log(np.exp(row).sum())
            total -= 0.9 * log_p[target.argmax()] + 0.1 * log_p.mean()
            count += 1
    found = propagate_loss(torch.from_numpy(logits), torch.from_numpy(guess), torch.from_numpy(believed), 0.1)
    assert found.item() == pytest.approx(total / count, rel=1e-12)


def test_nothing_believed_is_no_loss() -> None:
    logits = torch.randn(3, 4, requires_grad=True)
    loss = propagate_loss(logits, torch.full((3, 4), 0.25), torch.zeros(3, dtype=torch.bool), 0.1)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros(3, 4))  # type: ignore[arg-type]


def test_alignment_gives_the_shares_and_keeps_rows_distributions() -> None:
    soft = np.random.default_rng(1).dirichlet([5, 1, 1], 400).astype(np.float32)
    shares = np.array([0.2, 0.3, 0.5], np.float32)
    found = aligned(soft, shares, iterations=60)
    np.testing.assert_allclose(found.mean(0), shares, atol=1e-3)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)


def test_of_each_class_the_surest_are_trusted() -> None:
    soft = np.array([[0.9, 0.1], [0.6, 0.4], [0.8, 0.2], [0.7, 0.3], [0.3, 0.7], [0.45, 0.55]], np.float32)
    shares = np.array([0.5, 0.5], np.float32)
    assert most_trusted(soft, shares, 0.5).tolist() == [True, False, True, False, True, True]
    assert most_trusted(soft, shares, 1.0).tolist() == [True, False, True, True, True, True]
    assert not most_trusted(soft, shares, 0.0).any()


def test_smoothing_equals_its_dense_twin() -> None:
    draw = np.random.default_rng(2)
    points = draw.normal(size=(30, 5))
    graph = knn_graph((points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32), 4)
    soft = draw.dirichlet(np.ones(3), 30).astype(np.float32)
    dense, answer = graph.toarray().astype(np.float64), soft.astype(np.float64)
    for _ in range(7):
        answer = 0.6 * dense @ answer + 0.4 * soft
    found = smoothed(graph, soft, alpha=0.6, iterations=7)
    np.testing.assert_allclose(found, answer / answer.sum(1, keepdims=True), rtol=1e-4)


def test_answers_are_corrected_by_neighbours_with_the_labels_held_fast() -> None:
    draw = np.random.default_rng(3)
    points = draw.normal(size=(30, 5))
    graph = knn_graph((points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32), 4)
    said, labels = draw.dirichlet(np.ones(3), 30), np.where(np.arange(30) < 6, np.arange(30) % 3, -1)
    weight = 30 / 6 / (graph.nnz / 30)
    start = np.where(labels[:, None] >= 0, weight * np.eye(3)[labels], said)
    dense, answer = graph.toarray().astype(np.float64), start
    for _ in range(20):
        answer = 0.9 * dense @ answer + 0.1 * start
    found = corrected(graph, said.astype(np.float32), labels)
    np.testing.assert_allclose(found, answer / answer.sum(1, keepdims=True), rtol=1e-4)


def test_joined_points_are_near_where_both_are() -> None:
    draw = np.random.default_rng(5)
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (draw.normal(size=(9, 4)), draw.normal(size=(9, 3))))
    both = joined(a.astype(np.float32), b.astype(np.float32))
    np.testing.assert_allclose(both @ both.T, (a @ a.T + b @ b.T) / 2, atol=1e-6)
    np.testing.assert_allclose(joined(a.astype(np.float32), np.zeros((9, 3), np.float32))[:, :4], a, rtol=1e-5)


def clusters(n: int, seed: int, labelled: bool) -> Surveyed:
    """Three clusters of features in turn; the logits are of no use."""
    draw = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    features = np.eye(3, 8)[labels] * 3 + draw.normal(size=(n, 8)) * 0.3
    logits = torch.zeros(n, 3)
    given, twins = (torch.from_numpy(labels), torch.full((n,), -1)) if labelled else (None, None)
    return Surveyed(torch.from_numpy(features).float(), logits, given, twins)


def test_labels_reach_their_cluster() -> None:
    method = Propagate(neighbours=5, components=4)
    extra = method.init(torch.nn.Module(), NetSpec("scene", 3, 3, n_labelled=3, n_unlabelled=90))
    found = method.survey(extra, clusters(3, 0, True), clusters(90, 1, False), Step(0, 10))
    assert found["guess"].argmax(1).tolist() == [i % 3 for i in range(90)]
    assert found["believed"].sum() == 45
    later = method.survey(extra, clusters(3, 0, True), clusters(90, 1, False), Step(9, 10))
    assert later["guess"].argmax(1).tolist() == [i % 3 for i in range(90)], "labels hold where the net says nothing"
    assert later["believed"].sum() > 80


def test_a_labelled_image_among_the_unlabelled_ones_stands_in_the_graph_once_with_its_label() -> None:
    method = Propagate(neighbours=5, components=4)
    extra = method.init(torch.nn.Module(), NetSpec("scene", 3, 3, n_labelled=3, n_unlabelled=90))
    every = clusters(90, 1, False)
    place = torch.tensor([30, 31, 32])
    own = Surveyed(every.features[place], every.logits[place], torch.tensor([1, 1, 2]), place)
    apart = replace(own, twins=torch.full((3,), -1))
    for index in (0, 9):
        found = method.survey(extra, own, every, Step(index, 10))
        assert found["guess"].shape == (90, 3)
        assert found["guess"][place].tolist() == [[0, 1, 0], [0, 1, 0], [0, 0, 1]], "though alone"
        assert found["believed"][place].tolist() == [1, 1, 1]
        twice = method.survey(extra, apart, every, Step(index, 10))
        assert not torch.equal(twice["guess"], found["guess"])


def test_shares_move_from_those_of_the_labels_to_those_that_the_net_finds() -> None:
    """A class that has a third of the labels but a tenth of the images loses what it was given too much."""
    method = Propagate(neighbours=5, components=4, alpha=0.9)
    extra = method.init(torch.nn.Module(), NetSpec("scene", 3, 3, n_labelled=3, n_unlabelled=90, pretrained=False))
    labels, off = torch.tensor([0] * 9 + [1] * 45 + [2] * 36), [0, 0]
    for seed in range(3):
        draw = np.random.default_rng(seed)
        features = torch.from_numpy(np.eye(3, 8)[labels] + draw.normal(size=(90, 8)) * 0.6).float()
        said = Surveyed(features, torch.eye(3)[labels], None)
        for when, index in enumerate((1, 9)):
            found = method.survey(extra, clusters(3, 0, True), said, Step(index, 10))
            off[when] += abs(int((found["guess"].argmax(1) == 0).sum()) - 9)
    assert off[1] < off[0] / 2


def test_what_the_pretrained_net_found_alike_stays_in_the_graph() -> None:
    """The net in training takes some of one class for another, and describes them as halfway; the first graph helps."""
    method = Propagate(neighbours=20, components=4)
    few, many = clusters(3, 0, True), clusters(90, 1, False)
    labels = torch.arange(90) % 3
    draw = torch.Generator().manual_seed(0)
    mistaken = torch.where((labels == 2) & (torch.rand(90, generator=draw) < 0.4), 1, labels)
    features = 1.5 * (torch.eye(3, 8)[mistaken] + torch.eye(3, 8)[labels]) + 0.3 * torch.randn(90, 8, generator=draw)
    learned = Surveyed(features, torch.eye(3)[mistaken], None)
    right = []
    for pretrained in (False, True):
        spec = NetSpec("scene", 3, 3, n_labelled=3, n_unlabelled=90, pretrained=pretrained)
        extra = method.init(torch.nn.Module(), spec)
        for name, value in method.survey(extra, few, many, Step(0, 10)).items():
            extra.get_buffer(name).copy_(value)
        assert bool(extra.get_buffer("first").any()) is pretrained
        found = method.survey(extra, few, learned, Step(5, 10))["guess"].argmax(1)
        right.append(float((found == labels).float().mean()))
    assert 0.8 < right[0] < 0.95
    assert right[1] > 0.97


@pytest.mark.parametrize("pretrained", [True, False])
def test_the_first_look_of_a_pretrained_net_is_at_enlarged_images(
    pretrained: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides: list[int] = []

    def seen(net: SplitNet, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        sides.append(pixels.shape[-1])
        return described(net, pixels)

    described = survey._described
    monkeypatch.setattr(survey, "_described", seen)
    method = replace(tiny("propagate"), graphs=2)
    spec = replace(spec_of(method), pretrained=pretrained)
    train(method, spec, TaskSource(task="scene"), TrainConfig(steps=4, n_labelled=4, device="cpu"))
    first, own = sides[0], sides[-1]
    assert first == (96 if pretrained else own)
    assert own < 96


def test_graphs_are_made_at_even_distances() -> None:
    (stage,) = plan_stages(Propagate(graphs=4), 10)
    assert survey.survey_steps(stage) == {0, 2, 5, 8}
    (stage,) = plan_stages(make_method("fixmatch", {}), 10)
    assert not survey.survey_steps(stage)


class Counting(TaskSource):
    """Counts how often all images are asked for."""

    calls: list[str] = []  # noqa: RUF012

    def every(self, stream, n):  # type: ignore[no-untyped-def]
        self.calls.append(stream)
        return super().every(stream, n)


def test_training_shows_all_images_and_goes_on_with_another_method(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counting, "calls", [])
    method = replace(tiny("propagate"), graphs=2, then="supervised")
    assert [stage.method.name for stage in plan_stages(method, 8)] == ["propagate", "supervised"]
    method = replace(method, then="none")
    spec, config = spec_of(method), TrainConfig(steps=6, n_labelled=4, device="cpu")
    trained = train(method, spec, Counting(task="scene"), config)
    assert Counting.calls == ["labelled", "unlabelled"] * 2
    assert trained.extra.get_buffer("guess").shape == (N_LISTED, 3)
    assert trained.extra.get_buffer("guess").sum(1).allclose(torch.ones(N_LISTED), atol=1e-4)
    assert all(row["used"] > 0 for row in trained.log)
    assert np.isfinite([row["total"] for row in trained.log]).all()


class Endless:
    """Draws images without end."""

    has_unlabelled = True

    def __init__(self) -> None:
        self.inner = TaskSource(task="scene")
        self.labelled, self.unlabelled = self.inner.labelled, self.inner.unlabelled


def test_a_source_without_a_list_is_refused() -> None:
    method = tiny("propagate")
    with pytest.raises(ConfigError, match="looks at all unlabelled images together"):
        train(method, spec_of(method), Endless(), TrainConfig(steps=2, n_labelled=4, device="cpu"))


def test_unknown_follower_is_refused() -> None:
    with pytest.raises(ConfigError, match="fixmtach"):
        Propagate(then="fixmtach")


@pytest.mark.parametrize("name", method_names())
def test_every_method_of_scenes_may_follow_and_no_other(name: str) -> None:
    serves = "scene" in make_method(name, {}).needs().tasks
    if serves and name != "propagate":
        assert [method.name for method in methods_of(Propagate(then=name))] == ["propagate", name]
    else:
        with pytest.raises(ConfigError, match=f"option 'then' is '{name}'"):
            Propagate(then=name)


def test_the_follower_has_options_of_its_own() -> None:
    given = {"then": "fixmatch", "fixmatch.threshold": ".9", "graphs": 2, "fixmatch.balance": False}
    method = make_method("propagate", given)
    _, after = methods_of(method)
    assert after == make_method("fixmatch", {"threshold": 0.9, "balance": False})
    assert plan_stages(method, 8)[1].method == after
    written_out = make_method(
        "propagate", {"then": "fixmatch", "then_options": "balance=no,threshold=0.9", "graphs": 2}
    )
    assert methods_of(written_out)[1] == after
    assert make_method("propagate", asdict(method)) == method


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("propagate", {"then": "fixmatch", "fixmatch.tau": 1}, "method 'fixmatch': option 'tau' is unknown"),
        ("propagate", {"then": "fixmatch", "fixmatch.threshold": 2}, "option 'threshold' is 2.0, expected 0 to 1"),
        ("propagate", {"then": "fixmatch", "mixmatch.mu": 2}, "options mixmatch.mu found, but then=fixmatch"),
        ("propagate", {"fixmatch.threshold": 0.9}, "options fixmatch.threshold found, but then=none"),
        ("propagate", {"then_options": "mu=1"}, "option 'then_options' is 'mu=1', expected nothing"),
        ("propagate", {"then": "fixmatch", "then_options": "mu"}, "holds 'mu', expected NAME=VALUE"),
        ("fixmatch", {"mixmatch.mu": 2}, "option mixmatch.mu is unknown; no other method goes on after it"),
    ],
)
def test_options_that_no_follower_has_are_refused(name: str, given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)):
        make_method(name, given)
