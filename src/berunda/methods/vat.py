"""Virtual adversarial training: the answer should not change in the direction in which it changes most."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from berunda import losses
from berunda.augment.mix import draw_normal
from berunda.data.order import Randomness
from berunda.methods._consistency import terms_of, unlabelled_views
from berunda.methods.contract import Batch, Loss, Method, Needs, NetSpec, Step, View, setting, zero_like
from berunda.models.frozen import frozen_statistics

__all__ = ["VirtualAdversarial", "adversarial_direction", "vat_loss"]

_PAPER = "Miyato et al. 2018 (VAT), section 3"


def adversarial_direction(
    classify: Callable[[Tensor], Tensor], pixels: Tensor, clean: Tensor, start: Tensor, valid: Tensor
) -> Tensor:
    """Return one step of the power iteration towards the direction in which KL(clean || moved) grows fastest.

    Args:
        classify: from pixels to logits.
        pixels: (N, B, H, W).
        clean: logits of `pixels`.
        start: (N, B, H, W), how far and where to look first.
        valid: (N, H, W) bool; nothing is moved elsewhere.

    Returns:
        (N, B, H, W) with a root mean square of 1 over the valid pixels and bands of each image.

    Source: Miyato et al. 2018, algorithm 1.
    """
    with torch.enable_grad():
        probe = start.detach().requires_grad_()
        moved = classify(pixels + probe)
        apart = losses.kl_divergence_masked(moved, clean, losses.positions_of(valid, moved))
        (gradient,) = torch.autograd.grad(apart, probe)
    return _unit(gradient, valid)


def vat_loss(moved: Tensor, clean: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over positions of KL(softmax(clean) || softmax(moved)).

    Args:
        moved: logits (N, C) of the moved images.
        clean: logits of the images as they are, without gradient.
        mask: (N,) bool.

    Source: Miyato et al. 2018, eq. 5 to 7.
    """
    return losses.kl_divergence_masked(moved, clean.detach(), mask)


@dataclass(frozen=True)
class VirtualAdversarial(Method):
    """Small changes of an unlabelled image, chosen to change the answer most, should not change it.

    The running statistics of batch norm are left alone on moved images, which are no data. Costs one forward pass and
    two trained passes an unlabelled image, and no teacher.

    Source: Miyato et al. 2018 (VAT), eq. 5 to 8 and algorithm 1.
    Deviations: the size of the change is a root mean square in standardised units instead of a norm, so that it does
        not depend on the image's size; no entropy term; every class of a batch counts once in the supervised loss
        (`balance`).
    """

    name: ClassVar[str] = "vat"

    epsilon: float = setting(
        0.1, "root mean square of the change, where a band's low and high are -1 and 1", valid=(0, 2), source=_PAPER
    )
    probe: float = setting(
        0.01, "root mean square of the random change from which the direction is found", valid=(1e-4, 1)
    )
    lambda_u: float = setting(1.0, "weight of the unlabelled loss", valid=(0, 100), source=_PAPER)
    mu: float = setting(3.0, "unlabelled images for each labelled one", valid=(0, 64))
    balance: bool = setting(
        True, "let every class of a batch count once, however many labels it has", valid=(False, True)
    )

    def needs(self) -> Needs:
        """Ask for one weak view of both streams."""
        return Needs(
            tasks=("scene",),
            unlabelled=(View("weak", "weak"),),
            unlabelled_ratio=self.mu,
            forward_passes=1.0,
            trained_passes=2.0,
        )

    def init(self, net: nn.Module, spec: NetSpec) -> nn.Module:
        """Add nothing."""
        del net, spec
        return nn.Module()

    def loss(self, net: nn.Module, extra: nn.Module, batch: Batch, step: Step, rng: Randomness) -> Loss:
        """Return supervised + lambda_u * unsupervised."""
        del step
        labelled, (weak,) = batch.labelled["weak"], unlabelled_views(batch, "weak")
        own = self.predict(net, extra, labelled.pixels)
        supervised = losses.supervised_loss(own, labelled.labels, labelled.valid, balance=self.balance)
        unsupervised = zero_like(supervised)
        if weak.pixels.shape[0]:
            generator = rng.torch("vat.direction", device=weak.pixels.device)
            start = self.probe * _unit(draw_normal(weak.pixels, generator), weak.valid)
            # Half precision would drown the difference that a small step makes.
            with torch.autocast(weak.pixels.device.type, enabled=False):
                with torch.no_grad():
                    clean = self.predict(net, extra, weak.pixels)
                with frozen_statistics(net):
                    moves = adversarial_direction(
                        lambda x: self.predict(net, extra, x), weak.pixels, clean, start, weak.valid
                    )
            with frozen_statistics(net):
                moved = self.predict(net, extra, weak.pixels + self.epsilon * moves)
            unsupervised = vat_loss(moved, clean, losses.positions_of(weak.valid, moved))
        total = supervised + self.lambda_u * unsupervised
        return Loss(total, terms_of(supervised=supervised, unsupervised=unsupervised))


def _unit(x: Tensor, valid: Tensor) -> Tensor:
    """Return `x` (N, B, H, W) scaled to a root mean square of 1 over the valid pixels of each image, 0 elsewhere."""
    inside = x * valid[:, None].to(x.dtype)
    largest = inside.abs().amax(dim=(1, 2, 3), keepdim=True)
    inside = inside / largest.clamp(min=torch.finfo(x.dtype).tiny)  # squares of tiny gradients would vanish
    count = (valid.sum(dim=(1, 2)) * x.shape[1]).clamp(min=1).to(x.dtype).view(-1, 1, 1, 1)
    size = (inside.square().sum(dim=(1, 2, 3), keepdim=True) / count).sqrt()
    return inside / size.clamp(min=1e-12)
