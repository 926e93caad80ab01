"""MixMatch: guesses from several views, sharpened, and everything mixed with everything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from berunda import losses
from berunda.augment.mix import draw_mixup
from berunda.data.order import Randomness
from berunda.methods._consistency import taught, terms_of, unlabelled_views, used_terms
from berunda.methods.contract import Batch, Images, Loss, Method, Needs, NetSpec, Step, View, setting
from berunda.models.frozen import frozen_statistics

__all__ = ["MixMatch", "joint_guess", "mixmatch_loss"]

_PAPER = "Berthelot et al. 2019 (MixMatch), section 3.5 and 4"


def mixmatch_loss(
    logits: Sequence[Tensor], targets: Sequence[Tensor], masks: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Return cross-entropy of the mixed labelled images and squared error of the mixed unlabelled ones.

    Args:
        logits: (N, C, ...) of labelled and (M, C, ...) of unlabelled images.
        targets: their mixed distributions, in the same shapes.
        masks: (N, ...) bool or weights, and (M, ...) bool.

    Source: Berthelot et al. 2019, eq. 3 and 4.
    """
    supervised = losses.soft_cross_entropy_masked(logits[0], targets[0], masks[0])
    unsupervised = losses.squared_error_masked(losses.real(logits[1]).softmax(1), targets[1], masks[1])
    return supervised, unsupervised


def joint_guess(
    answers: Sequence[Tensor], views: Sequence[Images], temperature: float
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the sharpened mean of what is said of several views of the same images, as each view shows it.

    Args:
        answers: probabilities (M, C) or (M, C, H, W) of each view.
        views: those views.
        temperature: of the sharpening, above 0.

    Returns:
        For each view the joint guess in the shape of its answer, and where it holds. Maps are turned and shifted back
        to the original image, averaged over the views that show a pixel there, and carried to each view.
    """
    are_maps = answers[0].ndim == 4
    shown = [losses.positions_of(view.valid, answer) for view, answer in zip(views, answers, strict=True)]
    backed = list(zip(answers, shown, strict=True))
    if are_maps:
        backed = [(v.geometry.inverse(a), v.geometry.inverse(s)) for v, a, s in zip(views, answers, shown, strict=True)]
    total = torch.stack([answer * seen.unsqueeze(1) for answer, seen in backed]).sum(0)
    count = torch.stack([seen for _, seen in backed]).sum(0)
    guess = losses.sharpen(total / count.clamp(min=1).unsqueeze(1), temperature)
    if not are_maps:
        return [guess] * len(views), shown
    return [v.geometry.apply(guess) for v in views], [v.geometry.apply(count > 0) & v.valid for v in views]


@dataclass(frozen=True)
class MixMatch(Method):
    """One sharpened guess for all views of an unlabelled image; labelled and unlabelled images mixed among each other.

    Maps: image and soft labels are mixed alike; a pixel counts where both images that meet there have a label or a
    guess. Costs one forward and one trained pass for each view of an unlabelled image.

    Source: Berthelot et al. 2019 (MixMatch), eq. 2 to 9; for maps Hruska 2023.
    Deviations: guesses come from the averaged model (`q_from` "student" is the paper's form); the weight rises as
        exp(-5 (1 - t)^2) instead of linearly; classes are balanced (`balance`) by the labels of the
        larger part of each mix.
    """

    name: ClassVar[str] = "mixmatch"

    temperature: float = setting(0.5, "temperature of the sharpening", valid=(0.01, 1), source=_PAPER)
    n_views: int = setting(2, "views from which an image is guessed", valid=(1, 8), unit="views", source=_PAPER)
    alpha: float = setting(0.75, "of the Beta distribution of the mix", valid=(0.01, 100), source=_PAPER)
    lambda_u: float = setting(75.0, "weight of the unlabelled loss", valid=(0, 1000), source=_PAPER)
    mu: float = setting(1.0, "unlabelled images for each labelled one", valid=(0, 64), source=_PAPER)
    ramp: float = setting(
        0.4, "share of the training over which the weight rises", valid=(0, 1), unit="share", source=_PAPER
    )
    q_from: str = setting("teacher", "which model guesses", valid=("teacher", "student"))
    balance: bool = setting(
        True, "let every class of a batch count once, however many labelled pixels it has", valid=(False, True)
    )

    def needs(self) -> Needs:
        """Ask for several weak views of unlabelled images and, if it guesses, a teacher."""
        return Needs(
            tasks=("scene", "segmentation"),
            unlabelled=tuple(View(f"weak_{i}", "weak") for i in range(self.n_views)),
            unlabelled_ratio=self.mu,
            teacher=self.q_from == "teacher",
            forward_passes=float(self.n_views),
            trained_passes=float(self.n_views),
        )

    def init(self, net: nn.Module, spec: NetSpec) -> nn.Module:
        """Return the distribution that each label stands for."""
        del net
        extra = nn.Module()
        extra.register_buffer("one_hot", torch.eye(spec.n_classes))
        return extra

    def loss(self, net: nn.Module, extra: nn.Module, batch: Batch, step: Step, rng: Randomness) -> Loss:
        """Return the loss of mixed labelled images + ramped weight * that of mixed unlabelled ones."""
        labelled = batch.labelled["weak"]
        views = unlabelled_views(batch, *(view.name for view in self.needs().unlabelled))
        labels, known = _given(labelled)
        target = extra.get_buffer("one_hot")[labels].movedim(-1, 1)
        pixels, targets, masks, told = [labelled.pixels], [target], [known], {}
        if views[0].pixels.shape[0]:
            guesses, seen = joint_guess(self._answers((net, extra), views, step), views, self.temperature)
            pixels, targets, masks = [*pixels, *(view.pixels for view in views)], [*targets, *guesses], [*masks, *seen]
            told = used_terms(guesses[0].argmax(1), seen[0], seen[0], target.shape[1])
        sizes = [x.shape[0] for x in pixels]
        mix = draw_mixup(sizes, rng.torch("mixmatch.mix", device=known.device), self.alpha)
        logits = self.predict(net, extra, mix.apply(torch.cat(pixels)))
        parts = [sizes[0], sum(sizes[1:])]
        counting = list(mix.apply_mask(torch.cat(masks)).split(parts))
        if self.balance:
            counting[0] = losses.balancing_weights(labels, counting[0], losses.real(logits))
        supervised, unsupervised = mixmatch_loss(
            logits.split(parts), mix.apply(torch.cat(targets)).split(parts), counting
        )
        weight = self.lambda_u * losses.ramp_up(step.progress, self.ramp)
        terms = terms_of(supervised=supervised, unsupervised=unsupervised)
        return Loss(supervised + weight * unsupervised, terms | told)

    def _answers(self, nets: tuple[nn.Module, nn.Module], views: Sequence[Images], step: Step) -> list[Tensor]:
        """Return the probabilities (M, C, ...) of each view, by the teacher or the net in training mode."""
        pixels = torch.cat([view.pixels for view in views])
        if self.q_from == "teacher":
            logits = taught(self, step, pixels)
        else:
            with torch.no_grad(), frozen_statistics(nets[0]):
                logits = self.predict(*nets, pixels)
        return list(losses.probabilities_of(logits).to(pixels.dtype).chunk(len(views)))


def _given(labelled: Images) -> tuple[Tensor, Tensor]:
    """Return the labels (N, ...), 0 where there is none, and where there are any."""
    labels = labelled.labels
    if labels is None:
        labels = labelled.index.new_full(labelled.pixels.shape[:1], -1, device=labelled.pixels.device)
    return labels.clamp(min=0), losses.is_labelled(labels, labelled.valid)
