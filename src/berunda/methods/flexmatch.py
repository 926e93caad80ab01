"""FlexMatch: FixMatch with a lower threshold for classes of which fewer images are sure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from berunda import losses
from berunda.augment.mix import whole_batch
from berunda.data.order import Randomness
from berunda.methods._consistency import (
    answers,
    needs_of_strong,
    terms_of,
    unlabelled_views,
    updates_of,
    used_terms,
)
from berunda.methods.contract import Batch, Loss, Method, Needs, NetSpec, Step, setting

__all__ = ["FlexMatch", "flexmatch_loss", "memory_counts", "remembered"]

_PAPER = "Zhang et al. 2021 (FlexMatch), section 3"


def memory_counts(memory: Tensor, n_classes: int) -> Tensor:
    """Return (C + 1,) float: how many remembered images are sure of each class, and how many of none.

    Args:
        memory: (M,) integers: a class, C for an image that was never sure, -1 for one that was never seen.
        n_classes: C.
    """
    counts = torch.zeros(n_classes + 2, device=memory.device)
    return counts.index_add(0, memory.long() + 1, torch.ones_like(memory, dtype=counts.dtype))[1:]


def remembered(memory: Tensor, index: Tensor, labels: Tensor, n_classes: int) -> Tensor:
    """Return the memory after a batch: images with a label get it, others keep theirs or become "never sure".

    Args:
        memory: as for `memory_counts`.
        index: (N,) int64 of each image in its stream; beyond the memory's size, images share places.
        labels: (N,) int64, -1 where not sure.
        n_classes: C.
    """
    place = index % memory.shape[0]
    old = memory[place]
    kept = torch.where(old < 0, n_classes, old).to(memory.dtype)
    return memory.index_put((place,), torch.where(labels >= 0, labels.to(memory.dtype), kept))


def flexmatch_loss(
    logits: Tensor, probabilities: Tensor, counts: Tensor, threshold: float, valid: Tensor
) -> tuple[Tensor, Tensor]:
    """Return FixMatch's loss with thresholds tau b_c / (2 - b_c), and which images are used.

    Args:
        logits: (N, C) of the strong views.
        probabilities: (N, C) of the weak views.
        counts: (C + 1,) images sure of each class, and of none; b_c is a class's count over the largest of them.
        threshold: tau.
        valid: (N, H, W) bool.

    Source: Zhang et al. 2021, eq. 5 to 8 and 11.
    """
    thresholds = losses.flexible_thresholds(threshold, counts[:-1], counts[-1])
    labels, sure = losses.pseudo_labels(probabilities, thresholds.to(probabilities.dtype))
    return losses.fixmatch_loss(logits, labels, sure, valid), sure


@dataclass(frozen=True)
class FlexMatch(Method):
    """FixMatch with thresholds that follow how many unlabelled images are sure of each class.

    It remembers the last confident label of every unlabelled image. Costs one teacher pass and one trained pass an
    unlabelled image.

    Source: Zhang et al. 2021 (FlexMatch), eq. 5 to 8, 10 and 11.
    Deviations: pseudo-labels come from the averaged model (`q_from` "student" is the paper's form); images that were
        not drawn yet are left out of the count of undecided ones; strong views without RandAugment, as in `fixmatch`;
        every class of a batch counts once in the supervised loss (`balance`).
    """

    name: ClassVar[str] = "flexmatch"

    threshold: float = setting(
        0.95, "confidence from which a prediction of the easiest class is a label", valid=(0, 1), source=_PAPER
    )
    lambda_u: float = setting(1.0, "weight of the unlabelled loss", valid=(0, 100), source=_PAPER)
    mu: float = setting(7.0, "unlabelled images for each labelled one", valid=(0, 64), source=_PAPER)
    q_from: str = setting("teacher", "which model labels the weak view", valid=("teacher", "student"))
    strength: float = setting(1.0, "factor on the photometric changes of the strong view", valid=(0, 3))
    memory: int = setting(
        65536, "images whose last label is remembered; further ones share places", valid=(1, 10_000_000), unit="images"
    )
    balance: bool = setting(
        True, "let every class of a batch count once, however many labels it has", valid=(False, True)
    )

    def needs(self) -> Needs:
        """Ask for a weak and a strong view of unlabelled images and, if it labels them, a teacher."""
        return needs_of_strong(self.mu, self.q_from, self.strength)

    def init(self, net: nn.Module, spec: NetSpec) -> nn.Module:
        """Return the memory: a class for each image, n_classes for none so far, -1 for not seen."""
        del net
        extra = nn.Module()
        extra.register_buffer("memory", torch.full((self.memory,), -1, dtype=torch.int16))
        return extra

    def loss(self, net: nn.Module, extra: nn.Module, batch: Batch, step: Step, rng: Randomness) -> Loss:
        """Return supervised + lambda_u * unsupervised, with all that is trained in one forward pass."""
        del rng
        labelled, (weak, strong) = batch.labelled["weak"], unlabelled_views(batch, "weak", "strong")
        (own, hard), guess = answers(self, (net, extra), step, [labelled.pixels, strong.pixels], weak.pixels)
        probabilities, n_classes = losses.probabilities_of(guess), guess.shape[1]
        seen, memory = losses.positions_of(weak.valid, guess), extra.get_buffer("memory")
        counts = memory_counts(memory, n_classes)
        supervised = losses.supervised_loss(own, labelled.labels, labelled.valid, balance=self.balance)
        unsupervised, sure = flexmatch_loss(hard, probabilities, counts, self.threshold, weak.valid)
        labels, certain = losses.pseudo_labels(probabilities, self.threshold)
        certain_labels = whole_batch(labels.masked_fill(~(certain & seen), -1))
        memory = remembered(memory, whole_batch(weak.index), certain_labels, n_classes)
        terms = terms_of(supervised=supervised, unsupervised=unsupervised)
        return Loss(
            supervised + self.lambda_u * unsupervised,
            terms | used_terms(labels, sure, seen, n_classes),
            updates_of(memory=memory),
        )
