"""Propagation of several labels: its loss against numpy, its graphs, and a training that learns from neighbours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_methods import N_LISTED, TaskSource, spec_of, tiny

from berunda.api.choices import check_serves
from berunda.errors import ConfigError
from berunda.methods.contract import NetSpec, Step, Surveyed
from berunda.methods.propagate import Propagate, propagate_several_loss
from berunda.models.presence import presence_shares
from berunda.train.config import TrainConfig
from berunda.train.loop import train

NAN = float("nan")
N = 80


def several(n: int, seed: int, *, logits: torch.Tensor | None = None) -> Surveyed:
    """Four clusters of features in turn; a first label tells the halves, a second the quarters, a third is rare."""
    draw, cluster = np.random.default_rng(seed), np.arange(n) % 4
    features = torch.from_numpy(np.eye(4, 8)[cluster] * 3 + draw.normal(size=(n, 8)) * 0.3).float()
    return Surveyed(features, torch.zeros(n, 3) if logits is None else logits, None)


def truth(n: int) -> torch.Tensor:
    """Return (n, 3) labels of `several`: of every eighth image the third."""
    cluster = torch.arange(n) % 4
    return torch.stack([cluster // 2, cluster % 2, (torch.arange(n) % 8 == 1).long()], 1).float()


def labelled(n: int, twins: list[int] | None = None) -> Surveyed:
    """The first images again, with labels; the second label of the first is not known."""
    labels = truth(n)
    labels[0, 1] = NAN
    place = torch.full((n,), -1) if twins is None else torch.tensor(twins)
    return replace(several(n, 7), labels=labels, twins=place)


def surveyed(method: Propagate, few: Surveyed, many: Surveyed, index: int) -> dict[str, torch.Tensor]:
    spec = NetSpec("multilabel", 3, 3, n_labelled=len(few.features), n_unlabelled=len(many.features), pretrained=False)
    extra = method.init(torch.nn.Module(), spec)
    found = dict(method.survey(extra, few, many, Step(index, 10)))
    assert {name: value.shape for name, value in found.items()} == {
        name: value.shape for name, value in extra.named_buffers() if name in found
    }
    return found


def test_loss_equals_its_numpy_twin() -> None:
    draw = np.random.default_rng(0)
    logits, guess, believed = draw.normal(size=(7, 4)), draw.random((7, 4)), draw.random((7, 4)) > 0.4
    p, target = 1 / (1 + np.exp(-logits)), 0.9 * guess + 0.05
    expected = -(target * np.log(p) + (1 - target) * np.log(1 - p))[believed].mean()
    given = (torch.from_numpy(logits), torch.from_numpy(guess), torch.from_numpy(believed))
    assert propagate_several_loss(*given, 0.1).item() == pytest.approx(expected, rel=1e-12)
    assert propagate_several_loss(*given[:2], given[2] & False, 0.1).item() == 0


def test_labels_reach_their_clusters_class_by_class() -> None:
    found = surveyed(Propagate(neighbours=5, components=4), labelled(8), several(N, 1), 0)
    assert ((found["guess"][:, :2] > 0.5) == (truth(N)[:, :2] == 1)).all()
    assert found["guess"].mean(0).numpy() == pytest.approx(presence_shares(labelled(8).labels.numpy()), abs=0.02)
    of_each = found["believed"].sum(0)
    assert ((of_each >= N / 2) & (of_each <= N / 2 + 2)).all(), "half of the labels of each class"


def test_more_is_believed_later_and_of_each_class_present_and_absent() -> None:
    method = Propagate(neighbours=5, components=4, believed=0.25)
    answers = several(N, 1, logits=8 * truth(N) - 4)
    early, late = (surveyed(method, labelled(8), answers, index)["believed"].mean(0) for index in (0, 8))
    assert (late > early + 0.4).all()
    guess, believed = (surveyed(method, labelled(8), answers, 5)[name] for name in ("guess", "believed"))
    for c in range(3):
        mine = guess[believed[:, c] > 0, c]
        assert (mine > 0.5).any()
        assert (mine < 0.5).any()


def test_a_labelled_image_among_the_unlabelled_ones_keeps_what_is_known_and_is_told_the_rest() -> None:
    method = Propagate(neighbours=5, components=4, believed=0.0)
    places = list(range(40, 48))
    few = labelled(8, places)
    few = replace(few, features=several(N, 1).features[places], logits=few.logits)
    for index in (0, 5):
        method_now = method if index == 0 else replace(method, believed=0.0)
        found = surveyed(method_now, few, several(N, 1), index)
        known = ~few.labels.isnan()
        assert torch.equal(found["guess"][places][known], few.labels[known])
        assert found["believed"][places][known].all(), "what was given is believed, whatever the share"
        assert 0 < found["guess"][40, 1] < 1
    assert surveyed(method, few, several(N, 1), 0)["believed"].sum() <= known.sum() + 2 * 3


def test_a_class_with_labels_of_one_kind_alone_is_not_believed() -> None:
    few = labelled(8)
    few.labels[:, 2] = 0
    for index in (0, 5):
        found = surveyed(Propagate(neighbours=5, components=4), few, several(N, 1), index)
        assert not found["believed"][:, 2].any()
        assert found["believed"][:, 0].any()
    few.labels[:, 1] = NAN
    assert not surveyed(Propagate(neighbours=5, components=4), few, several(N, 1), 0)["believed"][:, 1].any()


def test_shares_move_from_those_of_the_labels_to_those_that_the_net_finds() -> None:
    """A third label that the labels know of one image in eight, and the net finds in half of them."""
    said = torch.cat([truth(N)[:, :2], truth(N)[:, :1]], 1)
    answers = several(N, 1, logits=20 * said - 10)
    early, late = (
        surveyed(Propagate(neighbours=5, components=4), labelled(16), answers, index)["guess"][:, 2].mean()
        for index in (1, 9)
    )
    assert early < 0.25
    assert late > 0.4


def test_the_nets_own_answers_are_smoothed_later() -> None:
    """Two in three of a cluster's answers are right: its neighbours correct the third."""
    right = truth(N)[:, :2]
    wrong = torch.rand(N, 2, generator=torch.Generator().manual_seed(0)) < 0.3
    said = torch.where(wrong, 1 - right, right)
    logits = torch.cat([4 * said - 2, torch.zeros(N, 1)], 1)
    found = surveyed(Propagate(neighbours=12, components=4), labelled(4), several(N, 1, logits=logits), 5)["guess"]
    before, after = (((x > 0.5) == (right == 1)).float().mean() for x in (said, found[:, :2]))
    assert before < 0.8
    assert after > 0.95


def test_a_training_keeps_a_belief_for_each_label() -> None:
    method = replace(tiny("propagate"), graphs=2)
    spec = replace(spec_of(method), task="multilabel")
    trained = train(method, spec, TaskSource(task="multilabel"), TrainConfig(steps=6, n_labelled=4, device="cpu"))
    assert trained.extra.get_buffer("believed").shape == (N_LISTED, 3)
    assert all(0 < row["used"] <= 1 for row in trained.log)
    assert np.isfinite([row["total"] for row in trained.log]).all()


def test_a_follower_that_does_not_serve_the_task_is_refused() -> None:
    check_serves(Propagate(then="fixmatch"), "multilabel")
    check_serves(Propagate(then="vat"), "scene")
    with pytest.raises(ConfigError, match="method 'vat' serves scene, expected multilabel"):
        check_serves(Propagate(then="vat"), "multilabel")
