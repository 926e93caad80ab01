"""Pseudo-label: what the net is sure of on an unlabelled image is taken for its label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from berunda import losses
from berunda.data.order import Randomness
from berunda.methods._consistency import terms_of, unlabelled_views, used_terms
from berunda.methods._settings import balance_setting
from berunda.methods._several import add_priors, believe, prior_share_setting
from berunda.methods.contract import Batch, Loss, Method, Needs, NetSpec, Step, Task, View, setting

__all__ = ["PseudoLabel", "pseudo_label_loss"]

_PAPER = "Lee 2013 (Pseudo-Label), section 2"


def pseudo_label_loss(logits: Tensor, threshold: float, valid: Tensor) -> Tensor:
    """Return the mean over valid positions of 1[max p >= threshold] H(argmax p, p).

    Args:
        logits: (N, C) or (N, C, H, W) of unlabelled images; their own argmax is the label.
        threshold: 0 to 1.
        valid: (N, H, W) bool.

    Source: Lee 2013, eq. 15; Castillo-Navarro 2022, eq. 3.22.
    """
    labels, sure = losses.pseudo_labels(losses.probabilities_of(logits), threshold)
    return losses.fixmatch_loss(logits, labels, sure, valid)


@dataclass(frozen=True)
class PseudoLabel(Method):
    """Cross-entropy with the net's own confident answers on the very same view of unlabelled images.

    It is not FixMatch: the view that is labelled is the one that is trained on, so that it sharpens answers and
    teaches no invariance. Several labels an image: each class has thresholds of its own for present and absent, matched
    to how often the labelled images have it (`threshold` is for single labels). Costs one trained pass an unlabelled
    image and no teacher.

    Source: Lee 2013 (Pseudo-Label), eq. 15 and 16; Castillo-Navarro 2022, eq. 3.22.
    Deviations: only answers above a threshold count (the thesis's omega; Lee takes all); the weight rises as
        exp(-5 (1 - t)^2) instead of linearly; every class of a batch counts once in the supervised loss (`balance`).
    """

    name: ClassVar[str] = "pseudo_label"

    threshold: float = setting(
        0.95,
        "confidence from which a prediction is a label",
        valid=(0, 1),
        source="Castillo-Navarro 2022, eq. 3.22",
        tasks=("scene",),
    )
    prior_share: float = prior_share_setting()
    lambda_u: float = setting(1.0, "weight of the unlabelled loss", valid=(0, 100))
    mu: float = setting(7.0, "unlabelled images for each labelled one", valid=(0, 64))
    ramp: float = setting(
        0.4, "share of the training over which the weight rises", valid=(0, 1), unit="share", source=_PAPER
    )
    balance: bool = balance_setting("labels", ("scene",))

    def needs(self) -> Needs:
        """Ask for one weak view of both streams."""
        tasks: tuple[Task, ...] = ("scene", "multilabel")
        return Needs(tasks=tasks, unlabelled=(View("weak", "weak"),), unlabelled_ratio=self.mu, trained_passes=1.0)

    def init(self, net: nn.Module, spec: NetSpec) -> nn.Module:
        """Add what is known of several labels; else nothing."""
        del net
        return add_priors(nn.Module(), spec.n_classes) if spec.task == "multilabel" else nn.Module()

    def loss(self, net: nn.Module, extra: nn.Module, batch: Batch, step: Step, rng: Randomness) -> Loss:
        """Return supervised + ramped weight * unsupervised, with both streams in one forward pass."""
        del rng
        labelled, (weak,) = batch.labelled["weak"], unlabelled_views(batch, "weak")
        logits = self.predict(net, extra, torch.cat([labelled.pixels, weak.pixels]))
        own, other = logits.split([labelled.pixels.shape[0], weak.pixels.shape[0]])
        supervised = losses.supervised_loss(own, labelled.labels, labelled.valid, balance=self.balance)
        weight = self.lambda_u * losses.ramp_up(step.progress, self.ramp)
        if losses.has_several(labelled.labels):
            found = believe(extra, labelled, weak, other.detach(), (step, self.prior_share, 0.0))
            several = losses.presence_loss(other, found.labels, found.sure, weak.valid)
            terms = terms_of(supervised=supervised, unsupervised=several) | found.terms
            return Loss(supervised + weight * several, terms, found.updates)
        unsupervised = pseudo_label_loss(other, self.threshold, weak.valid)
        labels, sure = losses.pseudo_labels(losses.probabilities_of(other), self.threshold)
        seen = losses.positions_of(weak.valid, other)
        terms = terms_of(supervised=supervised, unsupervised=unsupervised)
        return Loss(supervised + weight * unsupervised, terms | used_terms(labels, sure, seen, other.shape[1]))
