"""DeFixMatch: FixMatch less what its unlabelled loss would be on the labelled images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from berunda import losses
from berunda.data.order import Randomness
from berunda.methods._consistency import (
    answers,
    needs_of_strong,
    terms_of,
    unlabelled_views,
    used_terms,
)
from berunda.methods.contract import Batch, Loss, Method, Needs, NetSpec, Step, View, setting

__all__ = ["DeFixMatch", "defixmatch_loss"]


def defixmatch_loss(
    hard: tuple[Tensor, Tensor],
    probabilities: tuple[Tensor, Tensor],
    threshold: float,
    valid: tuple[Tensor, Tensor],
) -> Tensor:
    """Return FixMatch's loss of unlabelled images less that of labelled images, whose labels it does not look at.

    Args:
        hard: logits (N, C) of the strong views, of unlabelled and of labelled images.
        probabilities: (N, C) of the weak views of both.
        threshold: 0 to 1.
        valid: (N, H, W) bool of both.

    Source: Schmutz et al. 2023, eq. 5.
    """
    unlabelled, labelled = (
        losses.fixmatch_loss(logits, *losses.pseudo_labels(p, threshold), seen)
        for logits, p, seen in zip(hard, probabilities, valid, strict=True)
    )
    return unlabelled - labelled


@dataclass(frozen=True)
class DeFixMatch(Method):
    """FixMatch made unbiased: on labelled images its unlabelled loss is taken off again.

    What the pseudo-labels get wrong on average then cancels out, and the expected loss is the supervised one whatever
    the model believes. Costs one teacher pass and one trained pass an unlabelled image; a
    labelled one costs a teacher pass and two trained ones.

    Source: Schmutz et al. 2023 (Don't fear the unlabelled), eq. 5.
    Deviations: pseudo-labels come from the averaged model (`q_from` "student" is the paper's form); the supervised loss
        is the mean of both views of a labelled image, as in the common benchmark's code; strong views without
        RandAugment, as in `fixmatch`; every class of a batch counts once in the supervised loss (`balance`).
    """

    name: ClassVar[str] = "defixmatch"

    threshold: float = setting(
        0.95, "confidence from which a prediction is a label", valid=(0, 1), source="Sohn et al. 2020, section 2.2"
    )
    lambda_u: float = setting(
        0.5, "weight of the unlabelled loss; above 0.5 it may be unbounded from below", valid=(0, 100)
    )
    mu: float = setting(
        7.0, "unlabelled images for each labelled one", valid=(0, 64), source="Sohn et al. 2020, section 2.2"
    )
    q_from: str = setting("teacher", "which model labels the weak views", valid=("teacher", "student"))
    strength: float = setting(1.0, "factor on the photometric changes of the strong view", valid=(0, 3))
    balance: bool = setting(
        True, "let every class of a batch count once, however many labels it has", valid=(False, True)
    )

    def needs(self) -> Needs:
        """Ask for a weak and a strong view of both streams and, if it labels them, a teacher."""
        views = (View("weak", "weak"), View("strong", "strong", strength=self.strength))
        needs = needs_of_strong(self.mu, self.q_from, self.strength)
        # Both views are trained on; that the weak one is labelled costs a teacher's pass, or the net's own.
        passes = 2.0 + (1 / 3 if needs.teacher else 1.0)
        return replace(needs, labelled=views, labelled_passes=passes)

    def init(self, net: nn.Module, spec: NetSpec) -> nn.Module:
        """Add nothing."""
        del net, spec
        return nn.Module()

    def loss(self, net: nn.Module, extra: nn.Module, batch: Batch, step: Step, rng: Randomness) -> Loss:
        """Return supervised + lambda_u * unsupervised, with all that is trained in one forward pass."""
        del rng
        easy, labelled = batch.labelled["weak"], batch.labelled["strong"]
        weak, strong = unlabelled_views(batch, "weak", "strong")
        shown = [easy.pixels, labelled.pixels, strong.pixels]
        (own, own_hard, hard), guess = answers(self, (net, extra), step, shown, torch.cat([weak.pixels, easy.pixels]))
        p, p_own = losses.probabilities_of(guess).split([weak.pixels.shape[0], easy.pixels.shape[0]])
        supervised = 0.5 * (
            losses.supervised_loss(own, easy.labels, easy.valid, balance=self.balance)
            + losses.supervised_loss(own_hard, labelled.labels, labelled.valid, balance=self.balance)
        )
        unsupervised = defixmatch_loss((hard, own_hard), (p, p_own), self.threshold, (weak.valid, easy.valid))
        weight = self.lambda_u if hard.shape[0] else 0.0  # nothing to take it off from
        labels, sure = losses.pseudo_labels(p, self.threshold)
        seen = losses.positions_of(weak.valid, hard)
        terms = terms_of(supervised=supervised, unsupervised=unsupervised)
        return Loss(supervised + weight * unsupervised, terms | used_terms(labels, sure, seen, hard.shape[1]))
