"""The net for segmentation: a U-Net on an encoder, with an optional per-pixel path at full resolution."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from berunda.models.resolution import FullResolution, NoEncoder

__all__ = ["DECODER_CHANNELS", "PixelPath", "UNet", "pad_to_stride"]

DECODER_CHANNELS = (256, 128, 96, 64, 32)
"""Channels of the decoder from stride 16 to stride 1; an encoder of depth d uses the last d."""


def pad_to_stride(pixels: Tensor, stride: int) -> Tensor:
    """Return `pixels` (N, B, H, W) with the last row and column repeated up to multiples of `stride`."""
    rows, cols = pixels.shape[-2:]
    pad_rows, pad_cols = -rows % stride, -cols % stride
    if not pad_rows and not pad_cols:
        return pixels
    return F.pad(pixels, (0, pad_cols, 0, pad_rows), mode="replicate")


def _encoder_precision(pixels: Tensor) -> AbstractContextManager[Any]:
    """Return the context of the encoder: training under autocast on the CPU leaves it in float32.

    The backward pass of a depthwise convolution is slow in bfloat16 there: a step of 24 images of 64 px takes 500 ms
    of one core in float32, 340 in bfloat16, 290 with the encoder in float32 and the decoder in bfloat16.
    """
    if pixels.device.type == "cpu" and torch.is_grad_enabled() and torch.is_autocast_enabled("cpu"):
        return torch.autocast("cpu", enabled=False)
    return nullcontext()


class PixelPath(nn.Sequential):
    """Two 1x1 convolutions with batch norm: (N, n_bands, H, W) -> (N, width, H, W), each pixel on its own."""

    def __init__(self, n_bands: int, width: int = 32) -> None:
        super().__init__(
            nn.Conv2d(n_bands, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        self.width = width


class UNet(FullResolution, nn.Module):
    """`forward = classify(decode(encode(x)))`, with each part open to methods that split or perturb it.

    It has no skip at full resolution: the last decoder block sees the encoder's stride 2 upsampled. The pixel
    path, when given, is concatenated to the decoder's output.

    Attributes:
        feature_dim: channels D of the decoded features.
        stride: coarsest stride; sizes that are no multiple of it are padded inside and cropped back.
    """

    def __init__(self, encoder: Any, n_classes: int, *, pixel_path: PixelPath | None = None) -> None:
        super().__init__()
        from segmentation_models_pytorch.base.initialization import initialize_decoder, initialize_head
        from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder

        depth = len(encoder.out_channels) - 1
        widths = DECODER_CHANNELS[-depth:]
        self.encoder = encoder
        self.decoder = UnetDecoder(encoder.out_channels, widths, n_blocks=depth)
        self.pixel_path = pixel_path
        self.stride = 2**depth
        self.pixel_dim = 0 if pixel_path is None else pixel_path.width
        self.feature_dim = widths[-1] + self.pixel_dim
        self.head = nn.Conv2d(self.feature_dim, n_classes, 1)
        initialize_decoder(self.decoder)
        initialize_head(self.head)

    def encode(self, pixels: Tensor) -> list[Tensor]:
        """Return `pixels` (N, B, H, W), then their features at strides 2, 4, 8, ..."""
        with _encoder_precision(pixels):
            return [pixels, *self.encoder(pad_to_stride(pixels, self.stride))[1:]]

    def decode(self, features: list[Tensor]) -> Tensor:
        """Return decoded features (N, feature_dim, H, W) of a pyramid from `encode`."""
        pixels = features[0]
        rows, cols = pixels.shape[-2:]
        decoded = self.decoder([pad_to_stride(pixels, self.stride), *features[1:]])[..., :rows, :cols]
        if self.pixel_path is None:
            return decoded
        return torch.cat([decoded, self.pixel_path(pixels)], dim=1)

    def classify(self, decoded: Tensor) -> Tensor:
        """Return logits (N, n_classes, H, W) of decoded features, under autocast too in full precision."""
        with torch.autocast(decoded.device.type, enabled=False):
            logits: Tensor = self.head(decoded.to(self.head.weight.dtype))
        return logits

    def second_decoder(self, n_out: int) -> UNet:
        """Return a decoder with weights of its own for the same features, without a pixel path; its classes `n_out`."""
        return UNet(NoEncoder(self.encoder.out_channels), n_out)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits (N, n_classes, H, W) of `pixels` (N, B, H, W) with any H, W >= 1."""
        return self.classify(self.decode(self.encode(pixels)))
