"""Pi-model: two random views of one image should get the same answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from berunda import losses
from berunda.data.order import Randomness
from berunda.methods._consistency import terms_of, unlabelled_views
from berunda.methods.contract import Batch, Loss, Method, Needs, NetSpec, Step, View, setting

__all__ = ["PiModel", "pi_model_loss"]

_PAPER = "Laine and Aila 2017, section 2.1"


def pi_model_loss(first: Tensor, second: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over positions and classes of (softmax(first) - softmax(second))^2.

    Args:
        first: logits (N, C) of one view.
        second: logits of the other one; both carry gradient.
        mask: (N,) bool.

    Source: Laine and Aila 2017, algorithm 1.
    """
    return losses.squared_error_masked(losses.real(first).softmax(1), losses.real(second).softmax(1), mask)


@dataclass(frozen=True)
class PiModel(Method):
    """Squared error between the probabilities that one net gives to two random views of an unlabelled image.

    It has no pseudo-labels and no teacher. Costs two trained passes an unlabelled image.

    Source: Laine and Aila 2017 (Temporal Ensembling), algorithm 1.
    Deviations: consistency is asked of the unlabelled stream alone, which holds the labelled images as well; the weight
        is 10 where the paper has 100 times the share of labelled images; every class of a batch counts once in the
        supervised loss (`balance`).
    """

    name: ClassVar[str] = "pi_model"

    lambda_u: float = setting(10.0, "weight of the unlabelled loss", valid=(0, 1000), source=_PAPER)
    mu: float = setting(7.0, "unlabelled images for each labelled one", valid=(0, 64))
    ramp: float = setting(
        0.4, "share of the training over which the weight rises", valid=(0, 1), unit="share", source=_PAPER
    )
    recipe: str = setting("medium", "how both views are drawn", valid=("weak", "medium", "strong"), source=_PAPER)
    balance: bool = setting(
        True, "let every class of a batch count once, however many labels it has", valid=(False, True)
    )

    def needs(self) -> Needs:
        """Ask for two views of unlabelled images."""
        return Needs(
            tasks=("scene",),
            unlabelled=(View("first", self.recipe), View("second", self.recipe)),
            unlabelled_ratio=self.mu,
            trained_passes=2.0,
        )

    def init(self, net: nn.Module, spec: NetSpec) -> nn.Module:
        """Add nothing."""
        del net, spec
        return nn.Module()

    def loss(self, net: nn.Module, extra: nn.Module, batch: Batch, step: Step, rng: Randomness) -> Loss:
        """Return supervised + ramped weight * unsupervised, with all views in one forward pass."""
        del rng
        labelled, (first, second) = batch.labelled["weak"], unlabelled_views(batch, "first", "second")
        shown = [labelled.pixels, first.pixels, second.pixels]
        own, one, other = self.predict(net, extra, torch.cat(shown)).split([x.shape[0] for x in shown])
        supervised = losses.supervised_loss(own, labelled.labels, labelled.valid, balance=self.balance)
        seen = losses.positions_of(first.valid, one) & losses.positions_of(second.valid, other)
        unsupervised = pi_model_loss(one, other, seen)
        weight = self.lambda_u * losses.ramp_up(step.progress, self.ramp)
        return Loss(supervised + weight * unsupervised, terms_of(supervised=supervised, unsupervised=unsupervised))
