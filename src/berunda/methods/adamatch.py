"""AdaMatch: FixMatch with aligned classes, a threshold relative to the labelled images, and mixed logits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from berunda import losses
from berunda.augment.mix import draw_uniform
from berunda.data.order import Randomness
from berunda.methods._consistency import (
    answers,
    needs_of_strong,
    running,
    terms_of,
    unlabelled_views,
    updates_of,
    used_terms,
)
from berunda.methods.contract import Batch, Loss, Method, Needs, NetSpec, Step, setting
from berunda.models.frozen import frozen_statistics

__all__ = ["AdaMatch", "adamatch_loss", "relative_threshold"]

_PAPER = "Berthelot et al. 2022 (AdaMatch), section 3"


def relative_threshold(threshold: float, labelled: Tensor, known: Tensor) -> Tensor:
    """Return threshold * mean of the largest probability of labelled images; threshold where none is labelled.

    Args:
        threshold: 0 to 1.
        labelled: (N, C) probabilities of labelled weak views.
        known: (N,) bool.

    Source: Berthelot et al. 2022, eq. 3.
    """
    confidence = losses.masked_mean(labelled.amax(1), known)
    return threshold * torch.where(confidence > 0, confidence, 1.0)


def adamatch_loss(logits: Tensor, aligned: Tensor, threshold: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return FixMatch's loss of aligned answers, the labels and which of them are sure.

    Args:
        logits: (N, C) of the strong views.
        aligned: (N, C) aligned probabilities of the weak views.
        threshold: ().
        valid: (N, H, W) bool.

    Source: Berthelot et al. 2022, eq. 4 and 6.
    """
    labels, sure = losses.pseudo_labels(aligned, threshold)
    return losses.fixmatch_loss(logits, labels, sure, valid), labels, sure


@dataclass(frozen=True)
class AdaMatch(Method):
    """FixMatch that expects of unlabelled images the classes and the confidence that labelled ones show.

    The logits of labelled images are randomly between those computed with the unlabelled images, whose statistics
    batch norm then sees, and without. Costs one teacher pass and one trained pass an unlabelled image, and a second
    trained pass a labelled one.

    Source: Berthelot et al. 2022 (AdaMatch), eq. 1 to 7.
    Deviations: pseudo-labels come from the averaged model (`q_from` "student" is the paper's form); class means are
        running ones instead of a batch's; labelled images have no strong view; the weight rises as exp(-5 (1 - t)^2)
        instead of as a cosine; strong views without RandAugment, as in `fixmatch`; every class of a batch counts once
        in the supervised loss (`balance`).
    """

    name: ClassVar[str] = "adamatch"

    threshold: float = setting(
        0.9, "confidence, relative to labelled images, from which a prediction is a label", valid=(0, 1), source=_PAPER
    )
    lambda_u: float = setting(1.0, "weight of the unlabelled loss", valid=(0, 100), source=_PAPER)
    mu: float = setting(3.0, "unlabelled images for each labelled one", valid=(0, 64), source=_PAPER)
    ramp: float = setting(
        0.5, "share of the training over which the weight rises", valid=(0, 1), unit="share", source=_PAPER
    )
    decay: float = setting(0.99, "decay of the running class means", valid=(0, 1))
    q_from: str = setting("teacher", "which model labels the weak view", valid=("teacher", "student"))
    strength: float = setting(1.0, "factor on the photometric changes of the strong view", valid=(0, 3))
    balance: bool = setting(
        True, "let every class of a batch count once, however many labels it has", valid=(False, True)
    )

    def needs(self) -> Needs:
        """Ask for a weak and a strong view of unlabelled images and, if it labels them, a teacher."""
        return replace(needs_of_strong(self.mu, self.q_from, self.strength), labelled_passes=2.0)

    def init(self, net: nn.Module, spec: NetSpec) -> nn.Module:
        """Return the running class means of labelled and unlabelled images."""
        del net
        extra = nn.Module()
        for name in ("labelled_means", "unlabelled_means"):
            extra.register_buffer(name, torch.full((spec.n_classes,), 1 / spec.n_classes))
        return extra

    def loss(self, net: nn.Module, extra: nn.Module, batch: Batch, step: Step, rng: Randomness) -> Loss:
        """Return supervised + ramped weight * unsupervised."""
        labelled, (weak, strong) = batch.labelled["weak"], unlabelled_views(batch, "weak", "strong")
        (joint, hard), guess = answers(self, (net, extra), step, [labelled.pixels, strong.pixels], weak.pixels)
        with frozen_statistics(net):
            alone = self.predict(net, extra, labelled.pixels)
        share = draw_uniform(joint.shape, rng.torch("adamatch.logits", device=joint.device))
        own = torch.lerp(losses.real(alone), losses.real(joint), share.to(losses.real(joint).dtype))
        p, p_own = losses.probabilities_of(guess), losses.probabilities_of(own)
        known = losses.positions_of(labelled.valid, own)
        if labelled.labels is not None:
            known = losses.is_labelled(labelled.labels, labelled.valid)
        seen = losses.positions_of(weak.valid, guess)
        shown = {"labelled_means": losses.class_means(p_own, known), "unlabelled_means": losses.class_means(p, seen)}
        now = {name: running(extra, name, new, step, self.decay) for name, new in shown.items()}
        aligned = losses.align_distribution(p, now["labelled_means"], now["unlabelled_means"])
        threshold = relative_threshold(self.threshold, p_own, known)
        supervised = losses.supervised_loss(own, labelled.labels, labelled.valid, balance=self.balance)
        unsupervised, labels, sure = adamatch_loss(hard, aligned, threshold, weak.valid)
        weight = self.lambda_u * losses.ramp_up(step.progress, self.ramp)
        terms = terms_of(supervised=supervised, unsupervised=unsupervised, level=threshold)
        used = used_terms(labels, sure, seen, p.shape[1])
        return Loss(supervised + weight * unsupervised, terms | used, updates_of(**now))
