"""FixMatch: what the model is sure of on a weak view is the label of the strong view."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from berunda import losses
from berunda.augment.mix import draw_cutmix
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
from berunda.methods._settings import balance_setting
from berunda.methods._several import add_priors, believe, prior_ramp_setting, prior_share_setting
from berunda.methods._weighting import add_weighting, joined, rates_of, weighting_setting
from berunda.methods.contract import Batch, Images, Loss, Method, Needs, NetSpec, Step, Task, setting

__all__ = ["FixMatch"]

_PAPER = "Sohn et al. 2020 (FixMatch), section 2.2"
_FLEX = "Zhang et al. 2021 (FlexMatch), eq. 6 and 11"
_ONE_LABEL: tuple[Task, ...] = ("segmentation", "scene")
_DENSE = "French et al. 2020; Yang et al. 2023 (UniMatch), section 3.1"


@dataclass(frozen=True)
class FixMatch(Method):
    """Consistency between a weak and a strong view by hard pseudo-labels above a threshold.

    Maps: the strong view is photometric plus CutMix on the geometry of the weak view, so that labels agree
    pixel by pixel; each pixel is believed or not on its own; pixels without data take part in nothing.
    Whole images: the strong view has a geometry of its own. Several labels an image: each class has thresholds of its
    own for present and absent that match the priors, and since these ask for no confidence, what is believed grows over
    the `ramp`. Costs one teacher pass and one trained pass an unlabelled image.

    Source: Sohn et al. 2020 (FixMatch), eq. 3 and 4; Castillo-Navarro 2022, eq. 3.24 to 3.26.
    Deviations: pseudo-labels come from the averaged model (`q_from` "student" is the paper's form); the strong view is
        the house's recipe (turns, shifts and photometric changes for any number of bands) instead of RandAugment; every
        class of a batch counts once in the supervised loss (`balance`); thresholds and `ramp` of several labels.
    """

    name: ClassVar[str] = "fixmatch"

    threshold: float = setting(0.95, "confidence that makes a label", valid=(0, 1), source=_PAPER, tasks=_ONE_LABEL)
    lambda_u: float = setting(1.0, "weight of the unlabelled loss", valid=(0, 100), source=_PAPER)
    mu: float = setting(7.0, "unlabelled images for each labelled one", valid=(0, 64), source=_PAPER)
    q_from: str = setting("teacher", "which model labels the weak view", valid=("teacher", "student"))
    align: str = setting(
        "none",
        "class distribution to which pseudo-labels are aligned: that of the labels, uniform, or none",
        valid=("none", "labelled", "uniform"),
        source="Berthelot et al. 2020 (ReMixMatch), section 3.1",
        tasks=_ONE_LABEL,
    )
    adaptive: bool = setting(
        False, "lower the threshold of rarely sure classes", valid=(False, True), source=_FLEX, tasks=_ONE_LABEL
    )
    prior_share: float = prior_share_setting()
    ramp: float = prior_ramp_setting()
    cutmix: float = setting(
        1.0, "share of the strong views that are mixed", valid=(0, 1), source=_DENSE, tasks=("segmentation",)
    )
    strength: float = setting(1.0, "factor on the photometric changes of the strong view", valid=(0, 3))
    weighting: str = weighting_setting()
    decay: float = setting(0.99, "decay of the running class distributions", valid=(0, 1), tasks=_ONE_LABEL)
    balance: bool = balance_setting("labelled pixels", _ONE_LABEL)

    def needs(self) -> Needs:
        """Ask for a weak and a strong view of unlabelled images and, if it labels them, a teacher."""
        tasks: tuple[Task, ...] = (*_ONE_LABEL, "multilabel")
        needs = needs_of_strong(self.mu, self.q_from, self.strength, tasks=tasks, like="weak")
        return replace(needs, parameter_groups=rates_of(self.weighting))

    def init(self, net: nn.Module, spec: NetSpec) -> nn.Module:
        """Return running class distributions of the labels, predictions and confident predictions."""
        del net
        extra = nn.Module()
        if spec.task == "multilabel":
            return add_weighting(add_priors(extra, spec.n_classes), self.weighting)
        for name in ("labelled_classes", "predicted_classes", "confident_classes"):
            extra.register_buffer(name, torch.full((spec.n_classes,), 1 / spec.n_classes))
        return add_weighting(extra, self.weighting)

    def loss(self, net: nn.Module, extra: nn.Module, batch: Batch, step: Step, rng: Randomness) -> Loss:
        """Return supervised + lambda_u * unsupervised, with all that is trained in one forward pass."""
        labelled, (weak, strong) = batch.labelled["weak"], unlabelled_views(batch, "weak", "strong")
        mixed = self._mixing(labelled, strong, rng)
        (own, hard), guess = answers(self, (net, extra), step, [labelled.pixels, mixed(strong.pixels)], weak.pixels)
        if losses.has_several(labelled.labels):
            return self._several((own, hard), guess, (labelled, weak), extra, step)
        raw, n_classes = losses.probabilities_of(guess), guess.shape[1]
        labels, sure = losses.pseudo_labels(self._aligned(raw, extra), self._threshold(extra))
        seen = losses.is_labelled(labels, weak.valid)
        supervised = losses.supervised_loss(own, labelled.labels, labelled.valid, balance=self.balance)
        unsupervised = losses.fixmatch_loss(hard, mixed(labels), mixed(sure), mixed(weak.valid))
        shown_classes = {
            "labelled_classes": _given_shares(labelled, n_classes),
            "predicted_classes": losses.class_means(raw, seen),
            "confident_classes": losses.class_shares(labels, sure & seen, n_classes),
        }
        updates = {name: running(extra, name, new, step, self.decay) for name, new in shown_classes.items()}
        joint = joined(extra, supervised, self.lambda_u * unsupervised, step)
        terms = terms_of(supervised=supervised, unsupervised=unsupervised) | joint.terms
        terms |= used_terms(labels, sure, seen, n_classes)
        return Loss(joint.total, terms, updates_of(**updates) | joint.updates)

    def _several(
        self, logits: tuple[Tensor, Tensor], guess: Tensor, shown: tuple[Images, Images], extra: nn.Module, step: Step
    ) -> Loss:
        """Return the loss of several labels an image, of logits of labelled and strong views."""
        labelled, weak = shown
        supervised = losses.supervised_loss(logits[0], labelled.labels, labelled.valid)
        found = believe(extra, labelled, weak, guess, (step, self.prior_share, self.ramp))
        unsupervised = losses.presence_loss(logits[1], found.labels, found.sure, weak.valid)
        joint = joined(extra, supervised, self.lambda_u * unsupervised, step)
        terms = terms_of(supervised=supervised, unsupervised=unsupervised) | joint.terms
        return Loss(joint.total, terms | found.terms, {**found.updates, **joint.updates})

    def _mixing(self, labelled: Images, strong: Images, rng: Randomness) -> Callable[[Tensor], Tensor]:
        """Return what mixes pixels, labels and masks of the strong views alike; nothing for whole images."""
        if self.cutmix == 0 or (labelled.labels is not None and labelled.labels.ndim != 3):
            return lambda x: x
        n, _, n_rows, n_cols = strong.pixels.shape
        generator = rng.torch("fixmatch.cutmix", device=strong.pixels.device)
        return draw_cutmix((n, n_rows, n_cols), generator, probability=self.cutmix).apply

    def _aligned(self, probabilities: Tensor, extra: nn.Module) -> Tensor:
        if self.align == "none":
            return probabilities
        target = extra.get_buffer("labelled_classes")
        if self.align == "uniform":
            target = torch.full_like(target, 1 / target.numel())
        return losses.align_distribution(probabilities, target, extra.get_buffer("predicted_classes"))

    def _threshold(self, extra: nn.Module) -> Tensor | float:
        if not self.adaptive:
            return self.threshold
        return losses.flexible_thresholds(self.threshold, extra.get_buffer("confident_classes"))


def _given_shares(labelled: Images, n_classes: int) -> Tensor:
    if labelled.labels is None:
        return labelled.pixels.new_zeros(n_classes)
    known = losses.is_labelled(labelled.labels, labelled.valid)
    return losses.class_shares(labelled.labels, known, n_classes)
