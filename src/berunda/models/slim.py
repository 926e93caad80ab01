"""A light net for segmentation: encoder stages summed top-down, one convolution at stride 2, and a per-pixel path.

A step costs about half of that with the U-Net on the same encoder (`benchmarks/results/training.json`): nothing wide
runs at full resolution.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from berunda.models.unet import PixelPath, pad_to_stride

__all__ = ["SlimNet"]

WIDTH = 32


class SlimNet(nn.Module):
    """`forward = classify(decode(encode(x)))`, as the U-Net offers it.

    Every encoder stage is projected to 32 channels; from the coarsest to stride 2 each is added to the upsampled sum
    of those before; a 3x3 convolution follows, then bilinear upsampling to full resolution.

    Source: Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017 (top-down sums).
    Deviations: one output level, batch norm on the projections, and the pixel path beside it.

    Attributes:
        feature_dim: channels D of the decoded features.
        stride: coarsest stride; sizes that are no multiple of it are padded inside and cropped back.
    """

    def __init__(self, encoder: Any, n_classes: int, *, pixel_path: PixelPath | None = None) -> None:
        super().__init__()
        stages = encoder.out_channels[1:]
        self.encoder = encoder
        self.project = nn.ModuleList(
            nn.Sequential(nn.Conv2d(n, WIDTH, 1, bias=False), nn.BatchNorm2d(WIDTH))
            for n in stages
            if n  # encoders that start at stride 4 have no stage of stride 2
        )
        self.fuse = nn.Sequential(
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU(inplace=True)
        )
        self.pixel_path = pixel_path
        self.stride = 2 ** len(stages)
        self.feature_dim = WIDTH + (pixel_path.width if pixel_path is not None else 0)
        self.head = nn.Conv2d(self.feature_dim, n_classes, 1)

    def encode(self, pixels: Tensor) -> list[Tensor]:
        """Return the pyramid of `pixels` (N, B, H, W): the pixels themselves, then features at strides 2, 4, 8, ..."""
        return [pixels, *self.encoder(pad_to_stride(pixels, self.stride))[1:]]

    def decode(self, features: list[Tensor]) -> Tensor:
        """Return decoded features (N, feature_dim, H, W) of a pyramid from `encode`."""
        pixels, *stages = features
        rows, cols = pixels.shape[-2:]
        there = [stage for stage in stages if stage.shape[1]]
        parts = [project(stage) for project, stage in zip(self.project, there, strict=True)]
        summed = parts[-1]
        for part in reversed(parts[:-1]):
            summed = part + F.interpolate(summed, size=part.shape[-2:], mode="bilinear", align_corners=False)
        fused = self.fuse(F.relu(summed))
        whole = [side + -side % self.stride for side in (rows, cols)]
        decoded = F.interpolate(fused, size=whole, mode="bilinear", align_corners=False)[..., :rows, :cols]
        if self.pixel_path is None:
            return decoded
        return torch.cat([decoded, self.pixel_path(pixels)], dim=1)

    def classify(self, decoded: Tensor) -> Tensor:
        """Return logits (N, n_classes, H, W) of decoded features."""
        logits: Tensor = self.head(decoded)
        return logits

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits (N, n_classes, H, W) of `pixels` (N, B, H, W) with any H, W >= 1."""
        return self.classify(self.decode(self.encode(pixels)))
