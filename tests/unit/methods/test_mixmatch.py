"""MixMatch: the joint guess and the loss against twins in numpy; maps are guessed on the original image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from berunda import losses
from berunda.augment.geometry import Geometry, draw_geometry
from berunda.methods import make_method
from berunda.methods._checking.trial import make_trial
from berunda.methods.contract import Batch, Images
from berunda.methods.mixmatch import joint_guess, mixmatch_loss

N, C, S = 3, 4, 6


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def np_softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def np_sharpen(p, temperature):
    powered = p ** (1 / temperature)
    return powered / powered.sum(1, keepdims=True)


def images(geometry: Geometry, valid: Tensor) -> Images:
    return Images(torch.zeros(N, 1, S, S), valid, None, geometry, torch.arange(N))


@pytest.mark.parametrize("shape", [(), (S, S)])
def test_loss_agrees_with_its_twin(shape: tuple[int, ...]) -> None:
    logits = draw(N, C, *shape), draw(5, C, *shape, seed=1)
    targets = draw(N, C, *shape, seed=2).softmax(1), draw(5, C, *shape, seed=3).softmax(1)
    masks = draw(N, *shape, seed=4) > -0.5, draw(5, *shape, seed=5) > -0.5
    entropy = -(targets[0].numpy() * np.log(np_softmax(logits[0].numpy()))).sum(1)[masks[0].numpy()].mean()
    error = np.moveaxis((np_softmax(logits[1].numpy()) - targets[1].numpy()) ** 2, 1, -1)[masks[1].numpy()].mean()
    found = mixmatch_loss(logits, targets, masks)
    assert [float(x) for x in found] == pytest.approx([entropy, error], abs=1e-6)
    inputs = tuple(x.requires_grad_() for x in logits)
    assert torch.autograd.gradcheck(lambda a, b: mixmatch_loss((a, b), targets, masks), inputs)


def test_guess_of_scenes_agrees_with_its_twin() -> None:
    answers = [draw(N, C, seed=i).softmax(1) for i in range(2)]
    valid = torch.ones(N, S, S, dtype=torch.bool)
    valid[0] = False
    views = [images(Geometry.identity(N), v) for v in (torch.ones_like(valid), valid)]
    guesses, seen = joint_guess(answers, views, 0.5)
    mean = (answers[0].numpy() + answers[1].numpy()) / 2
    mean[0] = answers[0][0].numpy()  # the other view of the first image shows nothing
    assert torch.equal(guesses[0], guesses[1])
    np.testing.assert_allclose(guesses[0].numpy(), np_sharpen(mean, 0.5), atol=1e-6)
    assert [x.tolist() for x in seen] == [[True] * 3, [False, True, True]]


def test_guess_of_maps_is_made_on_the_original_image() -> None:
    """A twin that walks over the pixels: each view's pixel is followed to the original by its index."""
    place = torch.arange(S * S).view(1, S, S).expand(N, S, S)
    geometries = [draw_geometry((N, S, S), torch.Generator().manual_seed(i), max_shift_px=2) for i in range(2)]
    views = [images(g, g.apply(draw(N, S, S, seed=9) > -1)) for g in geometries]
    answers = [draw(N, C, S, S, seed=i).softmax(1) for i in range(2)]
    sources = [g.apply(place, fill=-1).numpy() for g in geometries]
    total, count = np.zeros((N, S * S, C)), np.zeros((N, S * S))
    for source, view, answer in zip(sources, views, answers, strict=True):
        for n, row, col in zip(*np.nonzero(view.valid.numpy()), strict=True):
            total[n, source[n, row, col]] += answer[n, :, row, col].numpy()
            count[n, source[n, row, col]] += 1
    guesses, seen = joint_guess(answers, views, 0.5)
    for source, view, guess, mask in zip(sources, views, guesses, seen, strict=True):
        assert torch.equal(mask, view.valid), "a pixel that a view shows has at least this view's answer"
        for n, row, col in zip(*np.nonzero(mask.numpy()), strict=True):
            at = source[n, row, col]
            expected = np_sharpen((total[n, at] / count[n, at])[None], 0.5)[0]
            np.testing.assert_allclose(guess[n, :, row, col].numpy(), expected, atol=1e-6)
    assert (count == 2).any()
    assert (count == 1).any()


def test_maps_of_a_net_that_looks_at_pixels_are_guessed_alike_in_every_view() -> None:
    """The teacher says the same of a pixel wherever it lies, so the guess is its own answer sharpened."""
    trial = make_trial(make_method("mixmatch", {"temperature": 1.0}), "segmentation")
    assert trial.teacher is not None
    views = list(trial.batch().unlabelled.values())
    answers = [trial.teacher.net(view.pixels).softmax(1) for view in views]
    guesses, seen = joint_guess(answers, views, 1.0)
    for answer, guess, mask in zip(answers, guesses, seen, strict=True):
        torch.testing.assert_close(guess.movedim(1, -1)[mask], answer.movedim(1, -1)[mask])


@pytest.mark.parametrize("task", ["scene", "segmentation"])
def test_all_views_are_trained_on_in_one_pass(task) -> None:
    trial = make_trial(make_method("mixmatch", {"n_views": 3}), task)
    seen: list[int] = []
    trial.net.register_forward_hook(lambda net, args, out: seen.append(len(args[0])))
    trial.loss()
    assert seen == [4 + 3 * 4]


def test_without_mixing_it_is_cross_entropy_and_squared_error() -> None:
    """With a tiny alpha the own image stays whole."""
    trial = make_trial(make_method("mixmatch", {"alpha": 0.01, "mu": 2.0}), "scene")
    batch = trial.batch()
    labelled = batch.labelled["weak"]
    expected = losses.supervised_loss(trial.net(labelled.pixels), labelled.labels, labelled.valid, balance=True)
    assert float(trial.loss(batch).terms["supervised"]) == pytest.approx(float(expected.detach()), rel=0.05)
    assert trial.loss(Batch(batch.labelled)).terms["unsupervised"] == 0


@pytest.mark.parametrize("balance", [True, False])
def test_classes_of_maps_are_balanced_as_those_of_other_methods(balance) -> None:
    """Hardly mixed, the labelled part is the supervised method's loss of the same option."""
    trial = make_trial(make_method("mixmatch", {"alpha": 0.01, "balance": balance}), "segmentation")
    batch = trial.batch()
    labelled = batch.labelled["weak"]
    assert labelled.labels is not None
    labelled.labels[labelled.labels == 2] = 1
    labelled.labels[:, 6, 6] = 2  # a rare class, of which the net is sure everywhere
    trial.net.get_parameter("head.bias").data += torch.tensor([0.0, 0.0, 5.0])
    logits = trial.net(labelled.pixels).detach()
    expected, other = (
        float(losses.supervised_loss(logits, labelled.labels, labelled.valid, balance=b))
        for b in (balance, not balance)
    )
    found = float(trial.loss(batch).terms["supervised"])
    assert abs(found - expected) < abs(found - other) / 2
