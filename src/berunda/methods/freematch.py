"""FreeMatch: FixMatch whose thresholds follow the model's own confidence, and a pull towards fair classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
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
    used_terms,
)
from berunda.methods.contract import Batch, Loss, Method, Needs, NetSpec, Step, setting

__all__ = ["FreeMatch", "fairness_loss", "freematch_loss", "freematch_thresholds"]

_PAPER = "Wang et al. 2023 (FreeMatch), section 4"


def freematch_thresholds(level: Tensor, class_means: Tensor) -> Tensor:
    """Return (C,) thresholds p(c) / max p * level.

    Args:
        level: (), running mean of the largest probability.
        class_means: (C,), running mean of the probabilities.

    Source: Wang et al. 2023, eq. 8.
    """
    return class_means / class_means.max().clamp(min=1e-12) * level


def fairness_loss(logits: Tensor, sure: Tensor, class_means: Tensor, class_shares: Tensor) -> Tensor:
    """Return H(norm(class_means / class_shares), norm(p / h)), 0 if nothing is sure.

    p is the mean distribution of the sure strong views and h the share of each class among their argmaxes; classes of
    share 0 stand for nothing. Dividing by h asks how sure each class is, not how common.

    Args:
        logits: (N, C) of the strong views.
        sure: (N,) bool.
        class_means: (C,), running mean of the probabilities of the weak views.
        class_shares: (C,), running shares of their argmaxes.

    Source: Wang et al. 2023, eq. 9 to 12.
    """
    p = losses.real(logits).softmax(1)
    shares = losses.class_shares(p.argmax(1), sure, p.shape[1])
    mean = _per_share(losses.class_means(p, sure), shares)
    target = _per_share(class_means, class_shares).to(p.dtype)
    return -(target * (mean + 1e-12).log()).sum() * (shares.sum() > 0)


def freematch_loss(
    logits: Tensor, probabilities: Tensor, thresholds: Tensor, valid: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return FixMatch's loss with a threshold a class, the labels and which of them are sure.

    Args:
        logits: (N, C) of the strong views.
        probabilities: (N, C) of the weak views.
        thresholds: (C,).
        valid: (N, H, W) bool.

    Source: Wang et al. 2023, eq. 8.
    """
    labels, sure = losses.pseudo_labels(probabilities, thresholds.to(probabilities.dtype))
    return losses.fixmatch_loss(logits, labels, sure, valid), labels, sure


@dataclass(frozen=True)
class FreeMatch(Method):
    """FixMatch with a threshold of its own making for each class, low at first, and classes pulled together.

    Costs one teacher pass and one trained pass an unlabelled image.

    Source: Wang et al. 2023 (FreeMatch), eq. 5 to 13.
    Deviations: pseudo-labels come from the averaged model (`q_from` "student" is the paper's form); the fairness term
        pulls the two distributions together, as the paper's text says (in its equation 12 and the authors' code the
        sign is the opposite one); running means start fast, with decay (1 + t) / (10 + t); strong views without
        RandAugment, as in `fixmatch`; every class of a batch counts once in the supervised loss (`balance`).
    """

    name: ClassVar[str] = "freematch"

    lambda_u: float = setting(1.0, "weight of the unlabelled loss", valid=(0, 100), source=_PAPER)
    lambda_f: float = setting(0.01, "weight of the fairness term", valid=(0, 10), source=_PAPER)
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
        """Return the running level of confidence, class means and class shares."""
        del net
        extra = nn.Module()
        extra.register_buffer("level", torch.tensor(1 / spec.n_classes))
        for name in ("class_means", "class_shares"):
            extra.register_buffer(name, torch.full((spec.n_classes,), 1 / spec.n_classes))
        return extra

    def loss(self, net: nn.Module, extra: nn.Module, batch: Batch, step: Step, rng: Randomness) -> Loss:
        """Return supervised + lambda_u * unsupervised + lambda_f * fairness, trained in one forward pass."""
        del rng
        labelled, (weak, strong) = batch.labelled["weak"], unlabelled_views(batch, "weak", "strong")
        (own, hard), guess = answers(self, (net, extra), step, [labelled.pixels, strong.pixels], weak.pixels)
        p, n_classes, seen = losses.probabilities_of(guess), guess.shape[1], losses.positions_of(weak.valid, guess)
        shown = {
            "level": losses.masked_mean(p.amax(1), seen),
            "class_means": losses.class_means(p, seen),
            "class_shares": losses.class_shares(p.argmax(1), seen, n_classes),
        }
        now = {name: running(extra, name, new, step, self.decay) for name, new in shown.items()}
        thresholds = freematch_thresholds(now["level"], now["class_means"])
        supervised = losses.supervised_loss(own, labelled.labels, labelled.valid, balance=self.balance)
        unsupervised, labels, sure = freematch_loss(hard, p, thresholds, weak.valid)
        fairness = fairness_loss(hard, sure & seen, now["class_means"], now["class_shares"])
        terms = terms_of(supervised=supervised, unsupervised=unsupervised, fairness=fairness, level=now["level"])
        return Loss(
            supervised + self.lambda_u * unsupervised + self.lambda_f * fairness,
            terms | used_terms(labels, sure, seen, n_classes),
            updates_of(**now),
        )


def _per_share(means: Tensor, shares: Tensor) -> Tensor:
    """Return means / shares, 0 where the share is 0, scaled to sum to 1."""
    ratio = torch.where(shares > 0, means / shares.clamp(min=1e-12).to(means.dtype), 0.0)
    return ratio / ratio.sum().clamp(min=1e-12)
