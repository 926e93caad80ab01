"""Wide residual nets, the encoders of the semi-supervised literature, as pyramids for any number of bands."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from berunda.errors import ConfigError

__all__ = ["WIDE_RESNETS", "WideResNet", "build_wide_resnet"]

_SLOPE = 0.1
_SUFFIX = "_no_norm"
_SIZES = {"wide_resnet10_1": (10, 1), "wide_resnet28_2": (28, 2), "wide_resnet28_10": (28, 10)}
"""Layers and width by name."""

WIDE_RESNETS: tuple[str, ...] = tuple(name + suffix for name in _SIZES for suffix in ("", _SUFFIX))
"""The names that `build_wide_resnet` knows."""


def build_wide_resnet(name: str, *, n_bands: int, depth: int, pretrained: bool) -> WideResNet:
    """Return the encoder of this name.

    Args:
        name: one of `WIDE_RESNETS`.
        n_bands: bands of the input, at least 1.
        depth: 2 for the published strides (1, 2, 2), 3 for a stride in the first group as well, which costs a quarter.
        pretrained: there are no weights to start from, so it must be false.

    Raises:
        ConfigError: another depth, or pretrained weights are asked for.
    """
    if depth not in (2, 3):
        raise ConfigError(
            f"encoder '{name}' with encoder_depth {depth}: expected 2 (coarsest stride 4, as published) or 3 (stride 8)"
        )
    if pretrained:
        raise ConfigError(
            f"encoder '{name}': there are no pretrained weights of it; use --no-pretrained, or another encoder"
        )
    n_layers, width = _SIZES[name.removesuffix(_SUFFIX)]
    return WideResNet(n_bands, n_layers, width, depth, norm=not name.endswith(_SUFFIX))


class WideResNet(nn.Module):
    """A convolution, three groups of (n_layers - 4) / 6 pre-activated residual blocks, a last norm.

    Without norms, each block's last convolution starts smaller, so that the sum of all blocks keeps the scale of the
    input, and convolutions have biases.

    Source: Zagoruyko and Komodakis 2016 (Wide residual networks); leaky ReLU of slope 0.1 and Kaiming's initial weights
        as in Oliver et al. 2018 and the later semi-supervised literature; without norms Grathwohl et al. 2020 (JEM).
    Deviations: batch norm records statistics with a momentum of 0.1 instead of 0.001, which short trainings need; the
        averaged model smooths them.

    Attributes:
        out_channels: bands of the input, then channels at strides 2, 4 (and 8).
    """

    def __init__(self, n_bands: int, n_layers: int, width: int, depth: int, *, norm: bool) -> None:
        super().__init__()
        n_blocks = (n_layers - 4) // 6
        scale = 1.0 if norm else 1 / math.sqrt(3 * n_blocks)
        channels = (16, 16 * width, 32 * width, 64 * width)
        strides = (1, 2, 2) if depth == 2 else (2, 2, 2)
        self.out_channels = [n_bands, *channels[-depth:]]
        self.stem = _convolution(n_bands, channels[0], norm=norm)
        self.groups = nn.ModuleList(
            nn.Sequential(
                *(
                    _Block(
                        n_out if i else n_in, n_out, 1 if i else stride, norm=norm, scale=scale, is_first=not (g or i)
                    )
                    for i in range(n_blocks)
                )
            )
            for g, (n_in, n_out, stride) in enumerate(zip(channels[:-1], channels[1:], strides, strict=True))
        )
        self.last = _activation(channels[-1], norm=norm)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Return `pixels` (N, B, H, W), then their features at strides 2, 4 (and 8)."""
        x, features = self.stem(pixels), []
        for group in self.groups:
            x = group(x)
            features.append(x)
        features[-1] = self.last(x)
        return [pixels, *features[-(len(self.out_channels) - 1) :]]


class _Block(nn.Module):
    """x + two convolutions of the activated x; the first block of all takes the activated x on both ways."""

    def __init__(self, n_in: int, n_out: int, stride: int, *, norm: bool, scale: float, is_first: bool) -> None:
        super().__init__()
        self.is_first = is_first
        self.activation = _activation(n_in, norm=norm)
        self.body = nn.Sequential(
            _convolution(n_in, n_out, stride, norm=norm),
            *_activation(n_out, norm=norm),
            _convolution(n_out, n_out, norm=norm, scale=scale),
        )
        is_same = n_in == n_out and stride == 1
        self.shortcut = nn.Identity() if is_same else _convolution(n_in, n_out, stride, norm=norm, side=1)

    def forward(self, x: Tensor) -> Tensor:
        activated = self.activation(x)
        summed: Tensor = self.shortcut(activated if self.is_first else x) + self.body(activated)
        return summed


def _activation(n: int, *, norm: bool) -> nn.Sequential:
    """Return norm and activation; without a norm the activation must not overwrite what the shortcut still needs."""
    if norm:
        return nn.Sequential(nn.BatchNorm2d(n, eps=1e-3), nn.LeakyReLU(_SLOPE, inplace=True))
    return nn.Sequential(nn.LeakyReLU(_SLOPE))


def _convolution(n_in: int, n_out: int, stride: int = 1, *, norm: bool, side: int = 3, scale: float = 1.0) -> Any:
    layer = nn.Conv2d(n_in, n_out, side, stride, side // 2, bias=not norm)
    nn.init.kaiming_normal_(layer.weight, a=_SLOPE, mode="fan_out", nonlinearity="leaky_relu")
    layer.weight.data.mul_(scale)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
