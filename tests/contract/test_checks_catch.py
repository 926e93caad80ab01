"""The checks catch what they are for: each method here breaks one promise, and its check says so."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from torch import nn

from berunda.losses import supervised_loss
from berunda.methods.check import CHECKS, check_method
from berunda.methods.contract import BufferUpdate, Loss, Method, Needs, View, setting


@dataclass(frozen=True)
class Sound(Method):
    """Breaks nothing.

    Source: these tests.
    """

    name: ClassVar[str] = __name__.rpartition(".")[2]
    weight: float = setting(1.0, "weight", valid=(0, 2))

    def needs(self):
        return Needs(tasks=("segmentation",))

    def init(self, net, spec):
        extra = nn.Module()
        extra.register_buffer("count", torch.zeros(()))
        return extra

    def loss(self, net, extra, batch, step, rng):
        images = batch.labelled["weak"]
        loss = self.weight * supervised_loss(net(images.pixels), images.labels, images.valid)
        return Loss(loss, {"supervised": loss.detach()}, {"count": BufferUpdate(extra.count + 1)})


def loss_of(method, *args):
    return Sound.loss(method, *args)


class Draws(Sound):
    def loss(self, *args):
        loss = loss_of(self, *args)
        return replace(loss, total=loss.total + 0.01 * torch.rand(()))


class Writes(Sound):
    def loss(self, net, extra, *args):
        extra.count += 1
        return loss_of(self, net, extra, *args)


class Waits(Sound):
    def loss(self, *args):
        loss = loss_of(self, *args)
        return replace(loss, total=loss.total * (1 if loss.total > 0 else 2))


class Misnames(Sound):
    def loss(self, *args):
        return replace(loss_of(self, *args), updates={"counter": BufferUpdate(torch.zeros(()))})


class Misshapes(Sound):
    def loss(self, *args):
        return replace(loss_of(self, *args), updates={"count": BufferUpdate(torch.zeros(2))})


class Attaches(Sound):
    def loss(self, *args):
        loss = loss_of(self, *args)
        return replace(loss, terms={"supervised": loss.total})


class IgnoresValidity(Sound):
    def loss(self, net, extra, batch, step, rng):
        images = batch.labelled["weak"]
        return Loss(supervised_loss(net(images.pixels), images.labels.clamp(min=0), torch.ones_like(images.valid)), {})


class Divides(Sound):
    def loss(self, net, extra, batch, step, rng):
        images = batch.labelled["weak"]
        return Loss(nn.functional.cross_entropy(net(images.pixels), images.labels, ignore_index=-1), {})


class Remembers(Sound):
    def loss(self, net, extra, batch, step, rng):
        loss = loss_of(self, net, extra, batch, step, rng)
        extra.__dict__["calls"] = extra.__dict__.get("calls", 0) + 1
        return replace(loss, total=loss.total * extra.__dict__["calls"])


class LearnsNothing(Sound):
    def loss(self, *args):
        loss = loss_of(self, *args)
        return replace(loss, total=loss.total * 0)


class Predicts(Sound):
    def predict(self, net, extra, pixels):
        return net(pixels)[:, :1]


class AsksOddly(Sound):
    def needs(self):
        return Needs(tasks=("segmentation",), labelled=(View("weak", "enormous"),))


class KeepsOddly(Sound):
    def kept(self):
        return ("extra",)


class Undocumented(Sound):
    pass


CAUGHT = [
    (Draws, "deterministic"),
    (Draws, "no_global_randomness"),
    (Writes, "loss_changes_nothing"),
    (Waits, "stays_on_the_device"),
    (Misnames, "updates_fit"),
    (Misshapes, "updates_fit"),
    (Attaches, "terms_are_plain"),
    (IgnoresValidity, "invalid_never_matters"),
    (IgnoresValidity, "works_without_valid_pixels"),
    (Divides, "works_without_labels"),
    (Remembers, "state_round_trip"),
    (LearnsNothing, "learns_sixteen_images"),
    (LearnsNothing, "gradients_reach_the_net"),
    (Predicts, "predicts"),
    (AsksOddly, "needs_sensible"),
    (KeepsOddly, "kept_exists"),
    (Undocumented, "documented"),
    (Undocumented, "named_like_its_file"),
    (Undocumented, "frozen_dataclass"),
]


def test_a_sound_method_passes():
    assert [r for r in check_method(Sound) if not r.passed] == []


@pytest.mark.parametrize(("method", "check"), CAUGHT, ids=lambda x: getattr(x, "__name__", x))
def test_the_check_catches_it(method, check):
    (result,) = check_method(method, names=[check])
    assert not result.passed


def test_there_are_more_than_twenty_checks():
    assert len(CHECKS) > 20
    assert all(check.__doc__ for check in CHECKS.values())
