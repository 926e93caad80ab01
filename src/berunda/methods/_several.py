"""What methods that believe confident answers have in common where an image has several labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from berunda import losses
from berunda.methods.contract import BufferUpdate, Images, Step, setting

__all__ = ["Believed", "add_priors", "believe", "prior_ramp_setting", "prior_share_setting"]

_COUNTS, _SHARES = "label_counts", "logit_shares"
_DECAY = 0.99


def prior_share_setting() -> Any:
    """Return the field of a method that says how many pseudo-labels of each class are believed."""
    return setting(
        0.5,
        "several labels: share of the presences and absences that the labels lead to expect which are believed",
        valid=(0, 1),
        unit="share",
        tasks=("multilabel",),
        source="matched to the priors: Xie et al. 2023 (class-distribution-aware pseudo-labelling), section 3",
    )


def prior_ramp_setting() -> Any:
    """Return the field of a method that says how long it takes until `prior_share` of the labels is believed."""
    return setting(
        0.4,
        "several labels: share of the training over which prior_share rises from almost none",
        valid=(0, 1),
        unit="share",
        tasks=("multilabel",),
        source="form: Laine and Aila 2017, section 3",
    )


def add_priors(extra: nn.Module, n_classes: int) -> nn.Module:
    """Return `extra` with the counts of the labels and the running distribution of the predictions."""
    extra.register_buffer(_COUNTS, torch.zeros(2, n_classes))
    extra.register_buffer(_SHARES, torch.zeros(n_classes, losses.N_LOGIT_BINS))
    return extra


@dataclass(frozen=True)
class Believed:
    """Pseudo-labels of several an image.

    Attributes:
        labels: (N, C) 1 or 0.
        sure: (N, C) bool, which of them are believed.
        terms: for the log: "used", the share that is believed; "used_c", that of class c; "pseudo_c", the share of
            images that get class c.
        updates: of the buffers of `add_priors`.
    """

    labels: Tensor
    sure: Tensor
    terms: dict[str, Tensor]
    updates: dict[str, BufferUpdate]


def believe(
    extra: nn.Module, labelled: Images, weak: Images, guess: Tensor, where: tuple[Step, float, float]
) -> Believed:
    """Return what is believed of the logits `guess` (N, C) of the unlabelled images `weak`.

    Args:
        extra: with the buffers of `add_priors`.
        labelled: images with labels, which count into the priors.
        weak: the images that `guess` is of.
        guess: logits without gradient.
        where: the step, the method's `prior_share`, and over which share of the training it rises; 0 for at once.
    """
    step, share, ramp = where
    assert labelled.labels is not None
    counts = extra.get_buffer(_COUNTS) + losses.presence_counts(labelled.labels, labelled.valid)
    seen = losses.positions_of(weak.valid, guess)
    shown = losses.logit_shares(guess, seen)
    shares = losses.running_distribution(extra.get_buffer(_SHARES), shown, step.index, _DECAY)
    present, absent = losses.prior_thresholds(
        shares, losses.class_priors(counts), share * losses.ramp_up(step.progress, ramp)
    )
    labels, sure = losses.believed_presence(guess, present, absent)
    terms = _terms(labels, sure, seen)
    return Believed(labels, sure, terms, {_COUNTS: BufferUpdate(counts), _SHARES: BufferUpdate(shares)})


def _terms(labels: Tensor, sure: Tensor, seen: Tensor) -> dict[str, Tensor]:
    used = losses.class_means(sure.float(), seen)
    pseudo = losses.class_means((sure & (labels == 1)).float(), seen)
    named = {"used": used, "pseudo": pseudo}
    by_class = {f"{name}_{c}": share for name, values in named.items() for c, share in enumerate(values.unbind())}
    return {"used": used.mean(), **by_class}
