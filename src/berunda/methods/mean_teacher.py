"""Mean teacher: the net should answer as the average of its own past does on another view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from berunda import losses
from berunda.data.order import Randomness
from berunda.methods._consistency import answers, carried, terms_of, unlabelled_views, used_terms
from berunda.methods._settings import balance_setting
from berunda.methods.contract import Batch, Loss, Method, Needs, NetSpec, Step, View, setting

__all__ = ["MeanTeacher", "mean_teacher_loss"]

_PAPER = "Tarvainen and Valpola 2017, section 3"


def mean_teacher_loss(logits: Tensor, taught: Tensor, mask: Tensor, *, several: bool = False) -> Tensor:
    """Return the mean over positions and classes of (softmax(logits) - taught)^2.

    Args:
        logits: (N, C) or (N, C, H, W) of the student.
        taught: same shape, the teacher's probabilities, without gradient.
        mask: (N,) or (N, H, W) bool.
        several: with sigmoid instead of softmax, for several labels an image.

    Source: Tarvainen and Valpola 2017, section 2.
    """
    said = losses.real(logits)
    return losses.squared_error_masked(said.sigmoid() if several else said.softmax(1), taught, mask)


@dataclass(frozen=True)
class MeanTeacher(Method):
    """Squared error between the probabilities of the net and of its average, each on a view of its own.

    Maps: the teacher's answer is carried from its view to the student's, exactly, since views turn and shift by whole
    pixels; pixels that both views show count. It has no threshold. Costs one teacher pass and one trained pass an
    unlabelled image.

    Source: Tarvainen and Valpola 2017 (Mean teachers), section 2.
    Deviations: the decay of the average is the loop's; consistency is asked of the unlabelled stream alone, which holds
        the labelled images as well; the weight is 50 where the paper has 100 times the share of labels; every class of
        a batch counts once in the supervised loss (`balance`).
    """

    name: ClassVar[str] = "mean_teacher"

    lambda_u: float = setting(50.0, "weight of the unlabelled loss", valid=(0, 1000), source=_PAPER)
    mu: float = setting(7.0, "unlabelled images for each labelled one", valid=(0, 64))
    ramp: float = setting(
        0.4, "share of the training over which the weight rises", valid=(0, 1), unit="share", source=_PAPER
    )
    recipe: str = setting(
        "medium", "how the student's view is drawn", valid=("weak", "medium", "strong"), source=_PAPER
    )
    balance: bool = balance_setting("labels", ("scene", "segmentation"))

    def needs(self) -> Needs:
        """Ask for a view for the teacher, one for the student, and a teacher."""
        return Needs(
            tasks=("scene", "segmentation", "multilabel"),
            unlabelled=(View("weak", "weak"), View("student", self.recipe)),
            unlabelled_ratio=self.mu,
            teacher=True,
            forward_passes=1.0,
            trained_passes=1.0,
        )

    def init(self, net: nn.Module, spec: NetSpec) -> nn.Module:
        """Add nothing."""
        del net, spec
        return nn.Module()

    def loss(self, net: nn.Module, extra: nn.Module, batch: Batch, step: Step, rng: Randomness) -> Loss:
        """Return supervised + ramped weight * unsupervised, with all that is trained in one forward pass."""
        del rng
        labelled, (weak, student) = batch.labelled["weak"], unlabelled_views(batch, "weak", "student")
        shown = [labelled.pixels, student.pixels]
        (own, other), guess = answers(self, (net, extra), step, shown, weak.pixels, regressed=True)
        several = losses.has_several(labelled.labels)
        said = losses.real(guess).sigmoid() if several else losses.probabilities_of(guess)
        taught, seen = carried(said, weak, student)
        supervised = losses.supervised_loss(own, labelled.labels, labelled.valid, balance=self.balance)
        unsupervised = mean_teacher_loss(other, taught, seen, several=several)
        weight = self.lambda_u * losses.ramp_up(step.progress, self.ramp)
        terms = terms_of(supervised=supervised, unsupervised=unsupervised)
        if not several:
            terms |= used_terms(taught.argmax(1), seen, seen, taught.shape[1])
        return Loss(supervised + weight * unsupervised, terms)
