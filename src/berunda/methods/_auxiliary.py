"""What the two-headed methods ask of an image without labels, and the heads that answer."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from berunda import losses
from berunda.augment.puzzle import GRID, far_permutations
from berunda.errors import ConfigError
from berunda.methods.contract import NetSpec, SplitNet

__all__ = [
    "CLUSTERS",
    "DENSE",
    "TASKS",
    "EarlyHead",
    "JigsawHead",
    "LateHead",
    "LightDecoder",
    "as_described",
    "auxiliary_loss",
    "hole_side",
    "n_described",
]

CLUSTERS = ("kmeans", "mumford_shah")
"""Tasks that assign each pixel softly to clusters or regions."""
DENSE = ("l1", "l2", *CLUSTERS)
"""Tasks on what a net says of every pixel of an image as it is."""
TASKS = (*DENSE, "inpainting", "jigsaw")
"""All tasks."""


def n_described(aux: str, n_clusters: int, n_bands: int) -> int:
    """Return how many maps describe a pixel in the task `aux`: clusters, or bands."""
    return n_clusters if aux in CLUSTERS else n_bands


def auxiliary_loss(
    aux: str, pixels: Tensor, described: Tensor, valid: Tensor, regularisation: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss of one of `DENSE`, and its parts for the log where it has any.

    Args:
        aux: the task.
        pixels: (N, B, H, W).
        described: (N, K, H, W): the pixels rebuilt, or their distributions over the clusters; see `as_described`.
        valid: (N, H, W) bool.
        regularisation: weight of the clusters' indecision, or of the regions' borders.
    """
    if aux in ("l1", "l2"):
        return (losses.l1 if aux == "l1" else losses.l2)(described, pixels, valid), {}
    if aux == "kmeans":
        fit, regular = losses.relaxed_kmeans(pixels, described, valid)
        return fit + regularisation * regular, {"reconstruction": fit.detach(), "indecision": regular.detach()}
    fit, regular = losses.mumford_shah(pixels, described, valid)
    return fit + regularisation * regular, {"reconstruction": fit.detach(), "borders": regular.detach()}


def as_described(aux: str, maps: Tensor) -> Tensor:
    """Return what a net's `maps` (N, K, ...) say: distributions for tasks with clusters, else themselves."""
    return losses.real(maps).softmax(dim=1) if aux in CLUSTERS else maps


def hole_side(hole_px: int, rows: int, cols: int) -> int:
    """Return the side of the hole: `hole_px`, or a quarter of the crop where that is smaller; at least 1.

    Example:
        >>> hole_side(80, 64, 64), hole_side(80, 512, 512), hole_side(80, 2, 2)
        (16, 80, 1)
    """
    return max(1, min(hole_px, min(rows, cols) // 4))


class LateHead(nn.Module):
    """One convolution on the decoded features that the classifier reads too, without those of a pixel path.

    A pixel path hands on the very values that are to be rebuilt: with it the task would be solved past the encoder, and
    teach it nothing.
    """

    def __init__(self, net: nn.Module, n_out: int, aux: str) -> None:
        super().__init__()
        self.aux = aux
        parts = cast(SplitNet, net)
        self.last = nn.Conv2d(parts.feature_dim - parts.pixel_dim, n_out, 1)

    def describe(self, net: SplitNet, decoded: Tensor, pixels: Tensor) -> Tensor:
        """Return (N, n_out, H, W) as `auxiliary_loss` takes it."""
        return net.restore(as_described(self.aux, self.last(decoded[:, : self.last.in_channels])), pixels)


class EarlyHead(nn.Module):
    """A decoder of its own on the encoder's features."""

    def __init__(self, net: nn.Module, n_out: int, aux: str) -> None:
        super().__init__()
        self.aux = aux
        self.decoder = cast(SplitNet, net).second_decoder(n_out)

    def describe(self, features: list[Tensor], pixels: Tensor) -> Tensor:
        """Return (N, n_out, H, W) as `auxiliary_loss` takes it."""
        decoder: Any = self.decoder
        maps = decoder.classify(decoder.decode(features))
        described: Tensor = decoder.restore(as_described(self.aux, maps), pixels)
        return described


class JigsawHead(nn.Module):
    """A linear layer on the mean of the encoder's coarsest features over valid pixels, to the permutations.

    Raises:
        ConfigError: the crop has no pixel for each patch.
    """

    orders: Tensor

    def __init__(self, net: nn.Module, spec: NetSpec, n_permutations: int) -> None:
        super().__init__()
        if spec.crop_px < GRID:
            raise ConfigError(
                f"jigsaw: found training images of {spec.crop_px} px, expected at least {GRID} px, one for each of "
                f"{GRID} x {GRID} patches; choose a larger crop_px, or another auxiliary task"
            )
        self.linear = nn.Linear(_n_coarsest(net, spec), n_permutations)
        self.register_buffer("orders", torch.tensor(far_permutations(n_permutations)))

    def forward(self, features: list[Tensor], valid: Tensor) -> Tensor:
        """Return logits (N, P) of images whose valid pixels are `valid` (N, H, W)."""
        coarsest = losses.real(features[-1])
        rows, cols = coarsest.shape[-2:]
        weight = F.adaptive_avg_pool2d(valid[:, None].to(coarsest.dtype), (rows, cols))
        mean = (coarsest * weight).sum((2, 3)) / weight.sum((2, 3)).clamp(min=1e-6)
        logits: Tensor = self.linear(mean.to(self.linear.weight.dtype))
        return logits


class LightDecoder(nn.Module):
    """From (N, n_in, h, w) to (N, n_out, rows, cols): convolutions at twice the resolution at most, interpolated."""

    def __init__(self, n_in: int, n_out: int, width: int = 32) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(n_in, width, 1)
        self.look = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, n_out, 1)

    def forward(self, coarse: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the maps of the coarsest features `coarse` at `size`."""
        rows, cols = (min(2 * n, whole) for n, whole in zip(coarse.shape[-2:], size, strict=True))
        finer = _resized(F.relu(self.narrow(coarse)), (rows, cols))
        return _resized(self.last(F.relu(self.look(finer))), size)


def _resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    return x if x.shape[-2:] == size else F.interpolate(x, size=size, mode="bilinear", align_corners=False)


@torch.no_grad()
def _n_coarsest(net: nn.Module, spec: NetSpec) -> int:
    """Return the channels of the encoder's coarsest features, as it tells by one small image; it leaves no trace."""
    weight, was_training = next(net.parameters()), net.training
    net.eval()
    features = cast(SplitNet, net).encode(weight.new_zeros(1, spec.n_bands, spec.crop_px, spec.crop_px))
    net.train(was_training)
    return features[-1].shape[1]
