"""What the logits of a classifier say of the density of images, and the moves of a sampler of that density."""

from __future__ import annotations

import torch
from torch import Tensor

from berunda.losses.masked import masked_mean, real

__all__ = ["energy", "langevin_step", "likelihood_gap", "restarted"]


def energy(logits: Tensor, labels: Tensor | None = None) -> Tensor:
    """Return E(x) = -logsumexp_y f(x)[y], or E(x, y) = -f(x)[y] of the given labels.

    Args:
        logits: (N, C) or (N, C, H, W).
        labels: (N,) or (N, H, W) int64, 0 to C - 1; None for the energy of x alone.

    Returns:
        (N,) or (N, H, W), float32 or better; lower where images are likelier. The energy of a map is the sum of its
        pixels' energies.

    Source: Grathwohl et al. 2020 (JEM), eq. 6; Castillo-Navarro 2022, eq. 4.15 to 4.17 for maps.
    """
    logits = real(logits)
    if labels is None:
        return -logits.logsumexp(dim=1)
    return -logits.gather(1, labels.unsqueeze(1)).squeeze(1)


def langevin_step(
    pixels: Tensor,
    gradient: Tensor,
    step: Tensor | float,
    noise: Tensor,
    *,
    clamp: float,
    bounds: tuple[Tensor | float, Tensor | float],
) -> Tensor:
    """Return x - step * clamp(gradient) + noise, kept within `bounds`.

    Args:
        pixels: (N, B, H, W).
        gradient: of the energy, same shape; an entry beyond -clamp..clamp counts as that.
        step: factor on it, at least 0.
        noise: same shape, or one that broadcasts to it.
        clamp: above 0; infinity for none.
        bounds: smallest and largest of the samples, numbers or tensors that broadcast to them.

    Source: Grathwohl et al. 2020 (JEM), eq. 2, with the step and noise of the published code; Yang and Ji 2021
        (JEM++), algorithm 1 (proximal steps); Yang et al. 2023 (SADA-JEM), section 4.
    """
    moved = pixels - step * gradient.clamp(-clamp, clamp) + noise
    return moved.clamp(min=bounds[0]).clamp(max=bounds[1])


def restarted(samples: Tensor, fresh: Tensor, chance: Tensor, share: float) -> Tensor:
    """Return `samples` (N, ...) with those whose `chance` (N,) is below `share` replaced by `fresh`."""
    return torch.where((chance < share).view(-1, *[1] * (samples.ndim - 1)), fresh, samples)


def likelihood_gap(data: Tensor, sampled: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of E(x_data) - E(x_sample), whose gradient is that of -log p(x_data).

    Args:
        data: energies (N,) or (N, H, W).
        sampled: energies of as many samples, without gradient through how they were made.
        mask: same shape, bool; which positions count. Of maps the mean is over pixels.

    Source: Grathwohl et al. 2020 (JEM), eq. 1; Castillo-Navarro 2022, eq. 4.18 and 4.19.
    """
    return masked_mean(data - sampled, mask)
