"""SoftMatch: every pseudo-label counts, the less sure ones less, by a bell curve of the model's own confidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from berunda import losses
from berunda.data.order import Randomness
from berunda.methods._consistency import (
    answers,
    needs_of_strong,
    running,
    terms_of,
    unlabelled_views,
    updates_of,
)
from berunda.methods.contract import Batch, Loss, Method, Needs, NetSpec, Step, setting

__all__ = ["SoftMatch", "confidence_weights", "softmatch_loss"]

_PAPER = "Chen et al. 2023 (SoftMatch), section 3"


def confidence_weights(confidence: Tensor, mean: Tensor, variance: Tensor, n_sigma: float) -> Tensor:
    """Return exp(-n_sigma^2 max(mean - confidence, 0)^2 / (2 variance)), 1 from the mean on.

    Args:
        confidence: (N,) largest probabilities.
        mean: () of the confidence.
        variance: () of the confidence.
        n_sigma: so many of its standard deviations make one of the bell curve.

    Source: Chen et al. 2023, eq. 4 and 6.
    """
    short = (mean - confidence).clamp(min=0) * n_sigma
    return torch.exp(-short.square() / (2 * variance.clamp(min=1e-12)))


def softmatch_loss(logits: Tensor, labels: Tensor, weights: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over positions of weight * H(label, softmax(logits)).

    Args:
        logits: (N, C) of the strong views.
        labels: (N,) int64.
        weights: (N,) in 0..1.
        mask: (N,) bool.

    Source: Chen et al. 2023, eq. 2.
    """
    return losses.masked_mean(weights * F.cross_entropy(losses.real(logits), labels, reduction="none"), mask)


@dataclass(frozen=True)
class SoftMatch(Method):
    """All pseudo-labels of unlabelled images, weighted by a truncated bell curve of their confidence.

    The confidence is that of answers aligned to uniform classes; the labels are those of the answers as they are. It
    has no threshold. Costs one teacher pass and one trained pass an unlabelled image.

    Source: Chen et al. 2023 (SoftMatch), eq. 2 to 7; `n_sigma` after the authors' code.
    Deviations: pseudo-labels come from the averaged model (`q_from` "student" is the paper's form); running means start
        fast, with decay (1 + t) / (10 + t); the variance within a batch is the biased one; strong views without
        RandAugment, as in `fixmatch`; every class of a batch counts once in the supervised loss (`balance`).
    """

    name: ClassVar[str] = "softmatch"

    n_sigma: float = setting(
        2.0, "standard deviations of the confidence that make one of the bell curve", valid=(0.1, 10), source=_PAPER
    )
    align: bool = setting(True, "align to uniform classes before weighting", valid=(False, True), source=_PAPER)
    lambda_u: float = setting(1.0, "weight of the unlabelled loss", valid=(0, 100), source=_PAPER)
    mu: float = setting(7.0, "unlabelled images for each labelled one", valid=(0, 64), source=_PAPER)
    decay: float = setting(0.999, "decay of the running means", valid=(0, 1), source=_PAPER)
    q_from: str = setting("teacher", "which model labels the weak view", valid=("teacher", "student"))
    strength: float = setting(1.0, "factor on the photometric changes of the strong view", valid=(0, 3))
    balance: bool = setting(
        True, "let every class of a batch count once, however many labels it has", valid=(False, True)
    )

    def needs(self) -> Needs:
        """Ask for a weak and a strong view of unlabelled images and, if it labels them, a teacher."""
        return needs_of_strong(self.mu, self.q_from, self.strength)

    def init(self, net: nn.Module, spec: NetSpec) -> nn.Module:
        """Return running class means, and mean and variance of the confidence."""
        del net
        extra = nn.Module()
        extra.register_buffer("class_means", torch.full((spec.n_classes,), 1 / spec.n_classes))
        extra.register_buffer("mean", torch.tensor(1 / spec.n_classes))
        extra.register_buffer("variance", torch.ones(()))
        return extra

    def loss(self, net: nn.Module, extra: nn.Module, batch: Batch, step: Step, rng: Randomness) -> Loss:
        """Return supervised + lambda_u * unsupervised, with all that is trained in one forward pass."""
        del rng
        labelled, (weak, strong) = batch.labelled["weak"], unlabelled_views(batch, "weak", "strong")
        (own, hard), guess = answers(self, (net, extra), step, [labelled.pixels, strong.pixels], weak.pixels)
        p, seen = losses.probabilities_of(guess), losses.positions_of(weak.valid, guess)
        now = {"class_means": running(extra, "class_means", losses.class_means(p, seen), step, self.decay)}
        uniform = torch.full_like(now["class_means"], 1 / p.shape[1])
        fair = losses.align_distribution(p, uniform, now["class_means"]) if self.align else p
        confidence = fair.amax(1)
        mean = losses.masked_mean(confidence, seen)
        shown = {"mean": mean, "variance": losses.masked_mean((confidence - mean).square(), seen)}
        now |= {name: running(extra, name, new, step, self.decay) for name, new in shown.items()}
        weights = confidence_weights(confidence, now["mean"], now["variance"], self.n_sigma)
        supervised = losses.supervised_loss(own, labelled.labels, labelled.valid, balance=self.balance)
        unsupervised = softmatch_loss(hard, p.argmax(1), weights, seen)
        used = losses.masked_mean(weights, seen)
        terms = terms_of(supervised=supervised, unsupervised=unsupervised, used=used, level=now["mean"])
        return Loss(supervised + self.lambda_u * unsupervised, terms, updates_of(**now))
