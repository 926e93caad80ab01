"""Checks of the numbers: odd batches, invalid pixels, other types, predictions, and that it learns."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from berunda.methods._checking.registry import CheckFailed, check, gradients_finite, require
from berunda.methods._checking.trial import (
    PointNet,
    Trial,
    batch_of,
    make_trial,
    without_images,
    without_labels,
    without_pixels,
)
from berunda.methods.contract import Batch, Images, Loss


@check
def works_without_unlabelled(trial: Trial) -> None:
    """Without an unlabelled stream, and with one of no images, it trains on the labelled images."""
    needs = trial.method.needs()
    for unlabelled in (None, without_images(trial.unlabelled)):
        batch = batch_of(needs, trial.labelled, unlabelled, trial.rng)
        _backward(trial, trial.loss(batch))


@check
def works_without_labels(trial: Trial) -> None:
    """With every label unknown the loss is finite and its supervised part is 0."""
    batch = batch_of(trial.method.needs(), without_labels(trial.labelled), trial.unlabelled, trial.rng)
    loss = trial.loss(batch)
    _backward(trial, loss)
    supervised = loss.terms.get("supervised")
    require(supervised is None or float(supervised) == 0, "unknown labels enter the supervised term")


@check
def works_without_valid_pixels(trial: Trial) -> None:
    """Where no pixel is valid the loss is 0, with finite gradients."""
    streams = (without_pixels(trial.labelled), without_pixels(trial.unlabelled))
    loss = trial.loss(batch_of(trial.method.needs(), *streams, trial.rng))
    _backward(trial, loss)
    require(abs(loss.total.item()) < 1e-4, f"the loss of nothing is {loss.total.item()}")


@check
def works_with_one_image(trial: Trial) -> None:
    """A batch of one labelled image, one unlabelled one, is enough."""
    one = make_trial(trial.method, trial.spec.task, lambda spec: trial.net, n_labelled=1)
    _backward(one, one.loss())


@check
def invalid_never_matters(trial: Trial) -> None:
    """Labels and values of invalid pixels do not change the loss.

    Values are changed only where each pixel is seen by itself; where pixels see each other the views'
    zeros must do.
    """
    if trial.spec.task != "segmentation":
        return
    pointwise = isinstance(trial.net, PointNet) and not _mixes_pixels(trial.extra)
    batch = trial.batch()
    spoilt = Batch(
        {name: _spoilt(images, pointwise) for name, images in batch.labelled.items()},
        {name: _spoilt(images, pointwise) for name, images in batch.unlabelled.items()},
    )
    first, second = trial.loss(batch).total.item(), trial.loss(spoilt).total.item()
    require(abs(first - second) <= 1e-5 * max(1, abs(first)), f"{first} became {second}")


def _mixes_pixels(module: nn.Module) -> bool:
    parts = list(module.modules())
    return any(isinstance(p, _BatchNorm) or max(getattr(p, "kernel_size", (1,))) > 1 for p in parts)


def _spoilt(images: Images, pointwise: bool) -> Images:
    pixels, labels = images.pixels, images.labels
    if pointwise:
        pixels = pixels.masked_fill(~images.valid[:, None], 3.0)
    if labels is not None and labels.ndim == 3:
        labels = labels.masked_fill(~images.valid, 0)
    return replace(images, pixels=pixels, labels=labels)


@check
def runs_in_bfloat16(trial: Trial) -> None:
    """Under autocast the loss stays finite and near the one in full precision."""
    batch = trial.batch()
    full = trial.loss(batch).total.item()
    with torch.autocast("cpu", torch.bfloat16):
        loss = trial.loss(batch)
    _backward(trial, loss)
    require(abs(loss.total.item() - full) <= 0.1 * max(1, abs(full)), f"{full} became {loss.total.item()}")


@check
def runs_in_float64(trial: Trial) -> None:
    """It has no type of its own: a net and images in float64 give a loss in float64."""
    for module in (trial.net, trial.extra, trial.teacher):
        if module is not None:
            module.double()
    trial.labelled = replace(trial.labelled, pixels=trial.labelled.pixels.double())
    trial.unlabelled = replace(trial.unlabelled, pixels=trial.unlabelled.pixels.double())
    require(trial.loss().total.dtype == torch.float64, "the loss falls back to a coarser type")


@check
def predicts(trial: Trial) -> None:
    """Prediction gives finite logits of the task's shape and changes nothing."""
    trial.net.eval()
    trial.extra.eval()
    pair = nn.ModuleDict({"net": trial.net, "extra": trial.extra})
    before = {name: value.clone() for name, value in pair.state_dict().items()}
    with torch.no_grad():
        logits = trial.method.predict(trial.net, trial.extra, trial.labelled.pixels)
    n, _, n_rows, n_cols = trial.labelled.pixels.shape
    expected = (n, trial.spec.n_classes, *((n_rows, n_cols) if trial.spec.task == "segmentation" else ()))
    require(tuple(logits.shape) == expected, f"logits have shape {tuple(logits.shape)}, expected {expected}")
    require(bool(logits.isfinite().all()), "logits are not finite")
    changed = [name for name, value in pair.state_dict().items() if not torch.equal(value, before[name])]
    require(not changed, f"prediction changed {', '.join(changed)}")


@check
def learns_sixteen_images(trial: Trial) -> None:
    """It can fit 16 easy images."""
    trial = make_trial(trial.method, trial.spec.task, lambda spec: trial.net, n_labelled=16)
    trial.train(80)
    trial.net.eval()
    labels = trial.labelled.labels
    if labels is None:
        raise CheckFailed("the trial has no labels")
    with torch.no_grad():
        logits = trial.method.predict(trial.net, trial.extra, trial.labelled.pixels)
    if labels.is_floating_point():
        share = ((logits > 0) == (labels > 0.5)).float().mean()
    else:
        known = (labels >= 0) & (trial.labelled.valid if labels.ndim == 3 else True)
        share = ((logits.argmax(dim=1) == labels) & known).sum() / known.sum()
    require(float(share) > 0.9, f"only {float(share):.2f} of the training labels are met after 80 steps")


def _backward(trial: Trial, loss: Loss) -> None:
    """Require a finite loss, finite terms and finite gradients."""
    require(bool(loss.total.isfinite()), f"the loss is {loss.total.item()}")
    for name, term in loss.terms.items():
        require(bool(term.isfinite()), f"term '{name}' is {term.item()}")
    for name, update in loss.updates.items():
        require(bool(update.value.isfinite().all()), f"update '{name}' is not finite")
    loss.total.backward()
    gradients_finite(trial)
