"""A light net for segmentation: encoder stages summed top-down, one convolution, and a spectral path.

Features stay at stride 2 or 4; only logits are brought to full resolution. A step costs about half of that with the
U-Net on the same encoder (`benchmarks/results/training.json`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from berunda.models.resolution import NoEncoder
from berunda.models.unet import PixelPath, pad_to_stride

__all__ = ["SlimNet"]

WIDTH = 32


class SlimNet(nn.Module):
    """`forward = restore(classify(decode(encode(x))))`, as the U-Net offers it.

    The encoder's stages from `stride` on are projected to 32 channels; from the coarsest to the finest each is added to
    the upsampled sum of those before; a 3x3 convolution follows. The pixel path looks at means of as many pixels.

    Source: Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017 (top-down sums).
    Deviations: one output level, batch norm on the projections, and the pixel path beside it. A pixel path at full
        resolution costs three times the rest of the decoder and gained nothing (docs/adr/0009).

    Attributes:
        feature_dim: channels D of the decoded features.
        decoded_stride: pixels a side that one of them stands for: `stride`, or that of the encoder's finest stage if
            it is coarser, or that of its only one.
        stride: coarsest stride; sizes that are no multiple of it are padded inside and cropped back.
    """

    def __init__(self, encoder: Any, n_classes: int, *, pixel_path: PixelPath | None = None, stride: int = 2) -> None:
        super().__init__()
        stages = encoder.out_channels[1:]
        last = len(stages) - 1
        self.first_stage = next(i for i, n in enumerate(stages) if n and (2 ** (i + 1) >= stride or i == last))
        self.encoder = encoder
        self.project = nn.ModuleList(
            nn.Sequential(nn.Conv2d(n, WIDTH, 1, bias=False), nn.BatchNorm2d(WIDTH)) for n in stages[self.first_stage :]
        )
        self.fuse = nn.Sequential(
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU(inplace=True)
        )
        self.pixel_path = pixel_path
        self.stride = 2 ** len(stages)
        self.decoded_stride = 2 ** (self.first_stage + 1)
        self.pixel_dim = 0 if pixel_path is None else pixel_path.width
        self.feature_dim = WIDTH + self.pixel_dim
        self.head = nn.Conv2d(self.feature_dim, n_classes, 1)

    def encode(self, pixels: Tensor) -> list[Tensor]:
        """Return the pyramid of `pixels` (N, B, H, W): the pixels themselves, then features at strides 2, 4, 8, ..."""
        return [pixels, *self.encoder(pad_to_stride(pixels, self.stride))[1:]]

    def decode(self, features: list[Tensor]) -> Tensor:
        """Return decoded features (N, feature_dim, H / s, W / s), s the decoded stride, of a pyramid from `encode`.

        The padding up to whole strides is included.
        """
        pixels, *stages = features
        parts = [project(stage) for project, stage in zip(self.project, stages[self.first_stage :], strict=True)]
        summed = parts[-1]
        for part in reversed(parts[:-1]):
            summed = part + F.interpolate(summed, size=part.shape[-2:], mode="bilinear", align_corners=False)
        fused = self.fuse(F.relu(summed))
        if self.pixel_path is None:
            return fused
        means = F.avg_pool2d(pad_to_stride(pixels, self.stride), self.decoded_stride)
        return torch.cat([fused, self.pixel_path(means)], dim=1)

    def classify(self, decoded: Tensor) -> Tensor:
        """Return logits (N, n_classes, ...) of decoded features, at their resolution."""
        logits: Tensor = self.head(decoded)
        return logits

    def restore(self, maps: Tensor, pixels: Tensor) -> Tensor:
        """Return `maps` (N, K, ...) of the decoded features' resolution at that of `pixels` (N, B, H, W)."""
        rows, cols = pixels.shape[-2:]
        wide = F.interpolate(maps, scale_factor=self.decoded_stride, mode="bilinear", align_corners=False)
        return wide[..., :rows, :cols]

    def second_decoder(self, n_out: int) -> SlimNet:
        """Return a decoder with weights of its own for the same features, without a pixel path; its classes `n_out`."""
        return SlimNet(NoEncoder(self.encoder.out_channels), n_out, stride=self.decoded_stride)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits (N, n_classes, H, W) of `pixels` (N, B, H, W) with any H, W >= 1."""
        return self.restore(self.classify(self.decode(self.encode(pixels))), pixels)
