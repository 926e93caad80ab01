"""The net for whole images (scene, multilabel): an encoder, the mean of its features, a linear layer."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from berunda.models.resolution import FullResolution
from berunda.models.unet import pad_to_stride

__all__ = ["PooledNet"]


class PooledNet(FullResolution, nn.Module):
    """`forward = classify(decode(encode(x)))`; `decode` is the global average of the coarsest features.

    Attributes:
        feature_dim: channels D of the pooled features.
        stride: sizes that are no multiple of it are padded inside.

    Args:
        encoder: `forward(x) -> [x, .., coarsest features]`, `out_channels`.
        n_classes: of the output.
        stride: None for the coarsest of a pyramid; 1 for an encoder that takes sizes as they are, or refuses them.
    """

    def __init__(self, encoder: Any, n_classes: int, stride: int | None = None) -> None:
        super().__init__()
        self.encoder = encoder
        self.stride = stride or 2 ** (len(encoder.out_channels) - 1)
        self.feature_dim: int = encoder.out_channels[-1]
        self.head = nn.Linear(self.feature_dim, n_classes)

    def encode(self, pixels: Tensor) -> list[Tensor]:
        """Return `pixels` (N, B, H, W), then their features, fine to coarse."""
        return [pixels, *self.encoder(pad_to_stride(pixels, self.stride))[1:]]

    def decode(self, features: list[Tensor]) -> Tensor:
        """Return the mean (N, feature_dim) over the coarsest features of a pyramid from `encode`."""
        return features[-1].mean((2, 3))

    def classify(self, decoded: Tensor) -> Tensor:
        """Return logits (N, n_classes) of pooled features (N, feature_dim)."""
        logits: Tensor = self.head(decoded)
        return logits

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits (N, n_classes) of `pixels` (N, B, H, W)."""
        return self.classify(self.decode(self.encode(pixels)))
