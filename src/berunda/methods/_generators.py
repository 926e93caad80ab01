"""Nets that make images from latent variables, and the distributions of these."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from berunda import losses
from berunda.augment.mix import draw_normal, draw_uniform

__all__ = [
    "AT_ONCE",
    "Generator",
    "Inference",
    "Latent",
    "WholeImage",
    "convolutions",
    "halved",
    "one_hot",
    "resized",
    "weighted_rows",
]

AT_ONCE = 64
"""Images that are generated together: more would take more memory."""
_GAIN, _NOISE = 3.0, 0.2
"""Of a new generator: without a gradient through draws, latent maps come into use only if images show them at first."""
_SMALLEST, _LARGEST = -4.0, 2.0
"""Logarithms of the scales of latent variables: wide enough for any, narrow enough that none collapses to a point."""
_SMALLEST_NOISE = -3.0
"""Of the pixels' noise, a fortieth of a band's range: below it a few images that are known by heart set the scale, and
one that is not, with a residual of 1, costs a thousand nats a pixel; a clip would then leave its gradient alone."""


@dataclass(frozen=True)
class Latent:
    """A family of independent latent variables.

    Attributes:
        kind: "gaussian", with two numbers a variable (mean, logarithm of the scale), or "bernoulli", with one (logit).
        n: variables at each position.
    """

    kind: str
    n: int

    @property
    def n_numbers(self) -> int:
        """Numbers at each position that say the distribution."""
        return 2 * self.n if self.kind == "gaussian" else self.n

    def draw(self, numbers: Tensor, generator: torch.Generator) -> Tensor:
        """Return a draw (N, n, ...) of the distribution that `numbers` (N, n_numbers, ...) say, without gradient."""
        numbers = losses.real(numbers.detach())
        if self.kind == "gaussian":
            mean, log_scale = numbers.chunk(2, dim=1)
            return mean + log_scale.clamp(_SMALLEST, _LARGEST).exp() * draw_normal(mean, generator)
        uniform = draw_uniform(numbers.shape, generator)
        return (uniform < numbers.sigmoid()).to(numbers.dtype)

    def mean(self, numbers: Tensor) -> Tensor:
        """Return the mean of the distribution."""
        return numbers.chunk(2, dim=1)[0] if self.kind == "gaussian" else losses.real(numbers).sigmoid()

    def log(self, values: Tensor, numbers: Tensor) -> Tensor:
        """Return the log-density or log-probability of `values`, summed over the variables of a position."""
        if self.kind == "gaussian":
            mean, log_scale = losses.real(numbers).chunk(2, dim=1)
            return losses.gaussian_log(values, mean, log_scale.clamp(_SMALLEST, _LARGEST))
        return losses.bernoulli_log(values, numbers)


class WholeImage(nn.Module):
    """From a latent vector (N, n) to the means of pixels (N, B, side, side), and the scale of their noise."""

    def __init__(self, n: int, width: int, n_bands: int, side_px: int) -> None:
        super().__init__()
        sides = [side_px]
        while sides[0] > 4 and len(sides) < 6:
            sides.insert(0, -(-sides[0] // 2))
        widths = [min(4 * width, width * 2 ** (len(sides) - 1 - i)) for i in range(len(sides))]
        self.sides, self.first_width = sides, widths[0]
        self.spread = nn.Linear(n, widths[0] * sides[0] ** 2)
        pairs = pairwise(widths)
        self.blocks = nn.ModuleList(convolutions(n_in, n_out, n_out) for n_in, n_out in pairs)
        self.last = nn.Conv2d(widths[-1], n_bands, 3, padding=1)
        self.log_scale = nn.Parameter(torch.zeros(n_bands, 1, 1))

    @property
    def noise(self) -> Tensor:
        """Logarithm of the scale of the pixels' noise, (B, 1, 1)."""
        return self.log_scale.clamp(_SMALLEST_NOISE, _LARGEST)

    def forward(self, latent: Tensor) -> Tensor:
        """Return the means of the pixels."""
        x = F.relu(self.spread(latent)).view(len(latent), self.first_width, self.sides[0], self.sides[0])
        for block, side in zip(self.blocks, self.sides[1:], strict=True):
            x = F.relu(block(F.interpolate(x, size=(side, side), mode="nearest")))
        means: Tensor = self.last(x)
        return means


class Generator(nn.Module):
    """p of the hierarchy: from a segmentation and further latent maps to latent maps in the middle, and on to pixels.

    Attributes:
        n_classes: of the segmentation.
        side_px: of the images of the training.
    """

    def __init__(self, n_classes: int, deep: Latent, middle: Latent, width: int, n_bands: int, *, side_px: int) -> None:
        super().__init__()
        self.n_classes, self.side_px = n_classes, side_px
        self.to_middle = convolutions(n_classes + deep.n, width, middle.n_numbers)
        self.to_pixels = convolutions(middle.n + n_classes + deep.n, width, n_bands)
        for weight in (p for p in self.to_pixels[-1].parameters() if p.ndim > 1):
            nn.init.normal_(weight, std=_GAIN / math.sqrt(9 * width))
        self.log_scale = nn.Parameter(torch.full((n_bands, 1, 1), math.log(_NOISE)))

    @property
    def noise(self) -> Tensor:
        """Logarithm of the scale of the pixels' noise, (B, 1, 1)."""
        return self.log_scale.clamp(_SMALLEST_NOISE, _LARGEST)

    def middle(self, classes: Tensor, deep: Tensor) -> Tensor:
        """Return the numbers of p(z_1 | s, l) at half the resolution of `classes` (N, C, H, W)."""
        size = halved(classes)
        numbers: Tensor = self.to_middle(torch.cat([resized(classes, size), resized(deep, size)], dim=1))
        return numbers

    def pixels(self, middle: Tensor, classes: Tensor, deep: Tensor) -> Tensor:
        """Return the means (N, B, H, W) of p(x | z_1, s, l)."""
        size = (classes.shape[-2], classes.shape[-1])
        means: Tensor = self.to_pixels(torch.cat([resized(middle, size), classes, resized(deep, size)], dim=1))
        return means


class Inference(nn.Module):
    """q of the hierarchy but for the segmentation: from pixels to the latent maps, deep and in the middle."""

    def __init__(self, n_classes: int, deep: Latent, middle: Latent, width: int, n_bands: int) -> None:
        super().__init__()
        self.look = nn.Conv2d(n_bands, width, 3, stride=2, padding=1)
        self.to_deep = nn.Sequential(
            nn.Conv2d(width, width, 3, stride=2, padding=1), nn.LeakyReLU(0.1), nn.Conv2d(width, deep.n_numbers, 1)
        )
        self.to_middle = convolutions(width + n_classes + deep.n, width, middle.n_numbers)

    def seen(self, pixels: Tensor) -> Tensor:
        """Return what both distributions look at, at half the resolution of `pixels`."""
        return F.leaky_relu(self.look(pixels), 0.1)

    def deep(self, seen: Tensor) -> Tensor:
        """Return the numbers of q(l | x)."""
        numbers: Tensor = self.to_deep(seen)
        return numbers

    def middle(self, seen: Tensor, classes: Tensor, deep: Tensor) -> Tensor:
        """Return the numbers of q(z_1 | x, s, l), or what has to be added to those of p."""
        size = (seen.shape[-2], seen.shape[-1])
        numbers: Tensor = self.to_middle(torch.cat([seen, resized(classes, size), resized(deep, size)], dim=1))
        return numbers


def halved(x: Tensor) -> tuple[int, int]:
    """Return half the rows and columns of maps, rounded up, as a convolution of stride 2 gives them."""
    return -(-x.shape[-2] // 2), -(-x.shape[-1] // 2)


def convolutions(n_in: int, width: int, n_out: int) -> nn.Sequential:
    """Return two 3x3 convolutions with an activation between them."""
    return nn.Sequential(nn.Conv2d(n_in, width, 3, padding=1), nn.LeakyReLU(0.1), nn.Conv2d(width, n_out, 3, padding=1))


def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Return maps (N, K, h, w) at another size: means of what falls together, repeats of what is spread."""
    if x.shape[-2] > size[0]:
        return F.adaptive_avg_pool2d(x, size)
    return F.interpolate(x, size=size, mode="nearest")


def one_hot(labels: Tensor, net: Generator) -> Tensor:
    """Return maps (N, C, H, W) of the classes `labels` (N, H, W), in the type of the net's weights."""
    return F.one_hot(labels, net.n_classes).movedim(-1, 1).to(net.log_scale.dtype)


def weighted_rows(weights: Tensor, generator: torch.Generator) -> Tensor:
    """Return (N,) int64: for each row of `weights` (N, K) an index drawn with their chances."""
    uniform = draw_uniform(weights.shape, generator).clamp(1e-12, 1 - 1e-7).to(weights.dtype)
    return (weights.clamp(min=1e-30).log() - (-uniform.log()).log()).argmax(dim=1)
