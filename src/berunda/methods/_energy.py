"""What the energy-based methods have in common: chains that sample images from the net, and the likelihood."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from berunda import losses
from berunda.augment.mix import draw_normal, draw_uniform
from berunda.data.order import Randomness
from berunda.data.scaling import CLIP
from berunda.errors import ConfigError
from berunda.methods._filling import continued
from berunda.methods._generators import AT_ONCE
from berunda.methods.contract import BufferUpdate, Method, NetSpec, Step
from berunda.models.frozen import frozen_statistics, in_evaluation

__all__ = [
    "VARIANTS",
    "WATCHED",
    "Chains",
    "Langevin",
    "bounds_of",
    "energies_of",
    "likelihood",
    "noisy",
    "refilled",
    "refined",
    "resembling",
    "sample",
]

_FARTHER = 5
"""So many times as far as in a step of the training chains go that have to end at an image."""
_LARGEST_BYTES = 1 << 30
"""Of the chains that are kept: the averaged model holds them again, a step makes copies, a bundle carries them."""
WATCHED = (("energy_data", 100.0), ("energy_samples", 100.0))
"""Only differences of energies are trained, so their level may wander."""
_LARGEST_GAP = 10.0
"""In nats, of energies between images and samples and of cross-entropy: such odds are no longer learning."""
_LARGEST_SATURATION = 0.5
"""Share of pixels at their bounds: beyond, a chain shows no image, and a gradient that is not finite ends there too."""
Energies = Callable[[Tensor], Tensor]
"""From pixels (N, B, H, W) to energies, (N,) or (N, H, W)."""


@dataclass(frozen=True)
class Langevin:
    """How a chain moves.

    Attributes:
        n_steps: gradients that a chain takes each time.
        step: factor on the gradient.
        clamp: largest entry of the gradient.
        noise: standard deviation of what is added in each step.
        is_informed: whether chains begin at draws of a Gaussian with the mean and covariance of the images at hand,
            instead of uniform noise in -1..1.
        bounds: smallest and largest that a pixel may become, numbers or (1, B, 1, 1).
    """

    n_steps: int
    step: float | Tensor
    clamp: float
    noise: float
    is_informed: bool = False
    bounds: tuple[Tensor | float, Tensor | float] = (-CLIP, CLIP)

    def within(self, images: Tensor) -> Langevin:
        """Return the moves that stay within the range of `images` (N, B, H, W), N at least 1, band by band.

        What no image has would tell samples from images at a glance.
        """
        return replace(self, bounds=(images.amin((0, 2, 3), keepdim=True), images.amax((0, 2, 3), keepdim=True)))


VARIANTS: dict[str, Langevin] = {
    "jem": Langevin(20, 1.0, math.inf, 0.01),
    "jem++": Langevin(10, 5 * 0.2, 1.0, 0.01, is_informed=True),
    "sada": Langevin(5, 1.0, 1.0, 0.0, is_informed=True),
}
"""Published settings: 20 plain steps; 10 gradients, each followed for 5 steps of 0.2; 5 steps without noise."""


def resembling(images: Tensor, generator: torch.Generator, n_draws: int | None = None) -> Tensor:
    """Return draws, as many as images unless told, of the Gaussian with the mean and the covariance of images.

    Args:
        images: (N, B, H, W).
        generator: on the device of the images.
        n_draws: how many; None for N.

    Source: Yang and Ji 2021 (JEM++), section 4.3 (informative initialization).
    Deviations: one Gaussian of the images at hand, labelled or not, instead of one for each class of all images.
    """
    n = len(images)
    weights = draw_normal(images.new_empty(n if n_draws is None else n_draws, n), generator)
    mean = images.mean(dim=0, keepdim=True)
    spread = torch.einsum("nm,mbhw->nbhw", weights, images - mean) / math.sqrt(max(1, n - 1))
    return (mean + spread).clamp(-CLIP, CLIP)


def sample(
    energies: Energies,
    start: Tensor,
    valid: Tensor,
    moves: Langevin,
    generator: torch.Generator,
    free: Tensor | None = None,
) -> Tensor:
    """Return where chains that begin at `start` are after the steps of `moves`.

    Gradients are taken of the pixels alone: none reaches a parameter.

    Args:
        energies: of whole images or of pixels.
        start: (N, B, H, W).
        valid: (N, H, W) bool; elsewhere the net is shown 0, as it is of data, and nothing but noise moves.
        moves: how.
        generator: on the device of the pixels.
        free: (N, H, W) bool, the pixels that move while all others stay as in `start`; None for all.

    Returns:
        (N, B, H, W) detached; what moved is within the bounds of `moves`.
    """
    gaps, x = valid[:, None].to(start.dtype), start.detach()
    for _ in range(moves.n_steps):
        with torch.enable_grad():
            probe = x.requires_grad_()
            found = energies(probe * gaps)
            total = torch.where(valid if found.ndim == 3 else valid.flatten(1).any(dim=1), found, 0.0).sum()
            (gradient,) = torch.autograd.grad(total, probe)
        noise = moves.noise * draw_normal(start, generator) if moves.noise else x.new_zeros(())
        x = losses.langevin_step(x.detach(), gradient, moves.step, noise, clamp=moves.clamp, bounds=moves.bounds)
        x = x if free is None else torch.where(free[:, None], x, start)
    return x


@dataclass(frozen=True)
class Chains:
    """Persistent chains in the buffers "replay" (P, B, side, side), "begun" (P,) and "step_share" () of extra.

    Attributes:
        moves: how they move; "step_share" multiplies their step and is lowered when a run diverged.
        n_kept: P, chains that are kept; each begins when it is first drawn.
        restart: chance of a chain to begin anew.
    """

    moves: Langevin
    n_kept: int
    restart: float

    def add_to(self, extra: nn.Module, spec: NetSpec) -> None:
        """Register the buffers, in which no chain has begun.

        Raises:
            ConfigError: the chains would take more than 1 GiB.
        """
        shape = (spec.n_bands, spec.crop_px, spec.crop_px)
        most = _LARGEST_BYTES // (4 * math.prod(shape))
        if self.n_kept > most:
            raise ConfigError(
                f"replay buffer: found {self.n_kept} chains of {spec.n_bands} bands at {spec.crop_px} x {spec.crop_px} "
                f"px, which take {4 * self.n_kept * math.prod(shape) / 1e9:.1f} GB, expected at most {most} chains "
                f"({_LARGEST_BYTES / 1e9:.1f} GB); choose a smaller replay, or smaller images"
            )
        extra.register_buffer("replay", torch.zeros(self.n_kept, *shape))
        extra.register_buffer("begun", torch.zeros(self.n_kept))
        extra.register_buffer("step_share", torch.ones(()))

    def draw(
        self, energies: Energies, extra: nn.Module, images: tuple[Tensor, Tensor], step: Step, rng: Randomness
    ) -> tuple[Tensor, dict[str, BufferUpdate]]:
        """Return a sample for each of the images, pixels (N, B, H, W) and valid (N, H, W), and what the buffers become.

        In the second pass of sharpness-aware minimisation they are those of the first.

        Raises:
            ConfigError: the buffer holds fewer chains, or of another size.
        """
        pixels, valid = images
        replay, begun = extra.get_buffer("replay"), extra.get_buffer("begun")
        generator = rng.torch("chains", device=valid.device)
        _check_fits(replay, valid)
        rows = torch.rand(len(replay), generator=generator, device=valid.device).argsort()[: len(valid)]
        if step.before is not None and "replay" in step.before.updates:
            return step.before.updates["replay"].value[rows], {}
        old, chance = replay[rows], draw_uniform((len(rows),), generator)
        chance = torch.where(begun[rows] > 0, chance, -1.0)
        if self.moves.is_informed:
            fresh = resembling(pixels.to(old.dtype), generator)
        else:
            fresh = 2 * draw_uniform(old.shape, generator).to(old.dtype) - 1
        start = losses.restarted(old, fresh, chance, self.restart)
        start = start.contiguous(memory_format=torch.channels_last)
        drawn = sample(energies, start, valid, self.moves_in(extra).within(pixels), generator)
        values = {"replay": replay.index_copy(0, rows, drawn), "begun": begun.index_fill(0, rows, 1)}
        return drawn, {name: BufferUpdate(value, "per_rank") for name, value in values.items()}

    def calmed(self, extra: nn.Module) -> dict[str, Tensor]:
        """Return the buffers with which a run that diverged goes on: half the step, and lost chains begin anew.

        A chain is lost when more than half of its pixels lie where at most 2% of an image's do: at the bands' low or
        high, or beyond.
        """
        outside = (~(extra.get_buffer("replay").abs() < 1)).float().mean((1, 2, 3))
        begun = extra.get_buffer("begun") * (outside <= _LARGEST_SATURATION)
        return {"step_share": extra.get_buffer("step_share") / 2, "begun": begun}

    def moves_in(self, extra: nn.Module, times: int = 1) -> Langevin:
        """Return the moves with the step that the training came down to, `times` as many as in one of its steps."""
        step = self.moves.step * extra.get_buffer("step_share")
        return replace(self.moves, n_steps=times * self.moves.n_steps, step=step)


def refined(
    method: Method, nets: tuple[nn.Module, nn.Module], labels: Tensor, chains: Chains, rng: Randomness
) -> Tensor:
    """Return an image (N, B, side, side) of each class of `labels` (N,), or with that class at every pixel.

    They begin at kept chains, drawn by how likely the net finds the class there, each image at another one, and go on
    by the gradient of E(x, y), five times as far as in a step of the training.
    """
    generator = rng.torch("generate", device=labels.device)
    most = max((int((labels == number).sum()) for number in labels.unique()), default=0)
    kept = _beginnings(nets[1], most, generator)
    with in_evaluation(*nets), torch.no_grad():
        shares = torch.cat([method.predict(*nets, part).log_softmax(1) for part in kept.split(256)])
    start = kept[_resampled(shares if shares.ndim == 2 else shares.mean((2, 3)), labels, generator)]
    moves = chains.moves_in(nets[1], _FARTHER).within(kept)

    def drawn(begin: Tensor, wanted: Tensor) -> Tensor:
        def energies(pixels: Tensor) -> Tensor:
            with in_evaluation(*nets):
                logits = method.predict(*nets, pixels)
            shown = wanted if logits.ndim == 2 else wanted.view(-1, 1, 1).expand(-1, *logits.shape[2:])
            return losses.energy(logits, shown)

        everywhere = torch.ones(len(begin), *begin.shape[2:], dtype=torch.bool, device=begin.device)
        return sample(energies, begin, everywhere, moves, generator)

    return torch.cat([drawn(*some) for some in zip(start.split(AT_ONCE), labels.split(AT_ONCE), strict=True)])


def _beginnings(extra: nn.Module, n: int, generator: torch.Generator) -> Tensor:
    """Return the kept chains that have begun and, where these are fewer than `n`, new ones that resemble them."""
    replay, begun = extra.get_buffer("replay"), extra.get_buffer("begun")
    kept = replay[begun > 0]
    if len(kept) >= n:
        return kept
    shape = (n - len(kept), *replay.shape[1:])
    if len(kept) > 1:
        low, high = kept.amin((0, 2, 3), keepdim=True), kept.amax((0, 2, 3), keepdim=True)
        fresh = resembling(kept, generator, shape[0]).clamp(low, high)
    else:
        fresh = 2 * draw_uniform(shape, generator).to(kept.dtype) - 1
    return torch.cat([kept, fresh])


def _resampled(liking: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Return (N,) a row of `liking` (P, C), logarithms of chances, for each of `labels` (N,), drawn by these chances.

    Images of a class get different rows, of which there are enough: the largest of chances with Gumbel noise are draws
    without replacement.
    """
    uniform = draw_uniform(liking.shape, generator).clamp(1e-12, 1 - 1e-7)
    order, turn = (liking - (-uniform.log()).log()).argsort(dim=0, descending=True), torch.zeros_like(labels)
    for number in labels.unique():
        turn[labels == number] = torch.arange(int((labels == number).sum()), device=labels.device)
    return order[turn, labels]


def refilled(
    method: Method, nets: tuple[nn.Module, nn.Module], images: tuple[Tensor, Tensor], chains: Chains, rng: Randomness
) -> Tensor:
    """Return pixels (N, B, H, W) with those that are not known (N, H, W) sampled given the rest.

    They begin as a smooth continuation of the known ones and follow the gradient of E(x), five times as far as in a
    step of the training and within the range of the kept chains, while the known ones stay.

    Source: Du and Mordatch 2019 (images restored by Langevin dynamics of their hidden part).
    """
    pixels, known = images
    start, everywhere = continued(pixels, known), torch.ones_like(known)
    generator = rng.torch("fill", device=pixels.device)
    begun, moves = nets[1].get_buffer("begun") > 0, chains.moves_in(nets[1], _FARTHER)
    moves = moves.within(nets[1].get_buffer("replay")[begun]) if bool(begun.any()) else moves
    return sample(energies_of(method, nets), start, everywhere, moves, generator, free=~known)


def likelihood(
    method: Method, nets: tuple[nn.Module, nn.Module], images: tuple[Tensor, Tensor], samples: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return what, made small, makes images likelier than samples, and its parts for the log.

    Images and samples go through the net together: norm layers that saw them apart would take away what tells them
    apart, such as a cast of colour, and it would never be trained. They leave the recorded statistics alone.

    Args:
        method: predicts.
        nets: net and extra.
        images: pixels (N, B, H, W), and where they hold data, (N, H, W) bool; the samples get the same gaps.
        samples: (N, B, H, W).
    """
    pixels, valid = images
    with frozen_statistics(nets[0]):
        logits = method.predict(*nets, torch.cat([pixels, samples * valid[:, None].to(samples.dtype)]))
    mask = losses.positions_of(valid, logits[: len(pixels)])
    data, sampled = losses.energy(logits).chunk(2)
    parts = {
        "energy_data": losses.masked_mean(data, mask),
        "energy_samples": losses.masked_mean(sampled, mask),
        "saturated": _saturated(samples, pixels, valid),
    }
    return losses.likelihood_gap(data, sampled, mask), {name: value.detach() for name, value in parts.items()}


def _saturated(samples: Tensor, pixels: Tensor, valid: Tensor) -> Tensor:
    """Return the share of the samples' valid pixels that lie at a bound, in bands that are not of one value."""
    low, high = pixels.amin((0, 2, 3), keepdim=True), pixels.amax((0, 2, 3), keepdim=True)
    at_bound = ((samples <= low) | (samples >= high)) & (high > low)
    return losses.masked_mean(losses.real(at_bound.to(pixels.dtype)).mean(1), valid)


def bounds_of(lambda_p: float) -> tuple[tuple[str, float], ...]:
    """Return the terms that may not stay large where the likelihood has the weight `lambda_p`, with their limits."""
    supervised = (("supervised", _LARGEST_GAP),)
    return (*supervised, ("gap", _LARGEST_GAP), ("saturated", _LARGEST_SATURATION)) if lambda_p else supervised


def noisy(pixels: Tensor, valid: Tensor, deviation: float, rng: Randomness) -> Tensor:
    """Return `pixels` (N, B, H, W) with normal noise, in the samples' range, 0 still where there is no data."""
    noise = deviation * draw_normal(pixels, rng.torch("input noise", device=pixels.device))
    return (pixels + noise).clamp(-CLIP, CLIP) * valid[:, None].to(pixels.dtype)


def energies_of(method: Method, nets: tuple[nn.Module, nn.Module]) -> Energies:
    """Return the energies that the net, in evaluation mode, sees in pixels."""

    def energies(pixels: Tensor) -> Tensor:
        with in_evaluation(*nets):
            return losses.energy(method.predict(*nets, pixels))

    return energies


def _check_fits(replay: Tensor, valid: Tensor) -> None:
    if len(replay) < len(valid) or replay.shape[2:] != valid.shape[1:]:
        found = f"{len(replay)} chains of {replay.shape[2]} x {replay.shape[3]} px"
        raise ConfigError(
            f"replay buffer: found {found}, expected at least {len(valid)} of {valid.shape[1]} x {valid.shape[2]} px; "
            "choose a larger replay, or fewer images a step"
        )
