"""SegNet: an encoder that remembers where its maxima lay, and a decoder that puts values back there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from berunda.errors import ConfigError, FetchError
from berunda.models.encoders import check_encoder_name
from berunda.models.hub import quiet_hub
from berunda.models.resolution import FullResolution, NoEncoder
from berunda.models.unet import PixelPath, pad_to_stride

__all__ = ["PoolingEncoder", "SegNet", "build_pooling_encoder", "pool", "unpool"]

_CONVOLUTIONS = re.compile(r"vgg1[1369]_bn(\..+)?")


def pool(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest of every 2 x 2 values of `x` (N, C, 2h, 2w), and which of the four it was, (N, C, h, w) uint8.

    Of several equal ones the first counts; 0 to 3 stand for upper left, upper right, lower left, lower right.

    Source: Badrinarayanan et al. 2017 (SegNet), section 3: two bits for each window are enough.
    """
    pooled, flat = F.max_pool2d(x, 2, return_indices=True)
    row, col = flat // x.shape[-1], flat % x.shape[-1]
    return pooled, (2 * (row % 2) + col % 2).to(torch.uint8)


def unpool(x: Tensor, place: Tensor) -> Tensor:
    """Return (N, C, 2h, 2w): each value of `x` (N, C, h, w) at its `place` of four, 0 at the other three.

    It is torch's max_unpool2d without a scatter, so that it gives the same bits on every device, in any type.
    """
    four = torch.arange(4, device=place.device, dtype=place.dtype).view(1, 1, 4, 1, 1)
    spread = torch.where(place.unsqueeze(2) == four, x.unsqueeze(2), x.new_zeros(()))
    return F.pixel_shuffle(spread.flatten(1, 2), 2)


class PoolingEncoder(nn.Module):
    """The convolutions of a VGG, stage by stage, each ended by a pooling that says where its maxima lay.

    Attributes:
        out_channels: bands of the input, then channels of each stage.
        n_convolutions: convolutions of each stage.
    """

    def __init__(self, layers: nn.Sequential, n_bands: int, depth: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(nn.Sequential(*stage) for stage in list(_stages(layers))[:depth])
        found = [[layer for layer in stage if isinstance(layer, nn.Conv2d)] for stage in _layers(self.stages)]
        self.n_convolutions = [len(stage) for stage in found]
        self.out_channels = [n_bands, *(stage[-1].out_channels for stage in found)]

    def freeze(self, n_stages: int) -> None:
        """Let the first `n_stages` stages keep their weights; see `berunda.models.frozen.freeze_stages`."""
        for stage in list(self.stages)[:n_stages]:
            stage.requires_grad_(False)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Return the places of the maxima of each stage, fine to coarse, then the coarsest features."""
        x, places = pixels, []
        for stage in self.stages:
            x, place = pool(stage(x))
            places.append(place)
        return [*places, x]


def build_pooling_encoder(name: str, *, n_bands: int, depth: int, pretrained: bool) -> PoolingEncoder:
    """Return the encoder of SegNet.

    Args:
        name: a VGG with batch norm that timm knows: "vgg16_bn" as published, "vgg11_bn", "vgg13_bn", "vgg19_bn".
        n_bands: bands of the input, at least 1.
        depth: stages in use, 1 to 5.
        pretrained: start from ImageNet weights, which timm fetches.

    Raises:
        ConfigError: it is another net.
        FetchError: its weights cannot be fetched.
    """
    if not _CONVOLUTIONS.fullmatch(name):
        raise ConfigError(
            f"decoder 'segnet': rests on the pooling indices of VGG-16, found encoder {name!r}, expected 'vgg16_bn' "
            "(or vgg11_bn, vgg13_bn, vgg19_bn); choose it with --encoder, or another decoder"
        )
    check_encoder_name(name)
    import timm

    try:
        with quiet_hub():
            net: Any = timm.create_model(name, pretrained=pretrained, in_chans=n_bands, num_classes=0)
    except Exception as error:
        if not pretrained:
            raise
        raise FetchError(
            f"encoder {name!r}: its pretrained weights cannot be fetched ({error}); use --no-pretrained, or a machine "
            "that can reach them"
        ) from error
    return PoolingEncoder(net.features, n_bands, depth)


class SegNet(FullResolution, nn.Module):
    """`forward = classify(decode(encode(x)))`; the decoder mirrors the encoder, convolution by convolution.

    There are no skips: of the finer stages the decoder knows only where the maxima lay.

    Source: Badrinarayanan, Kendall and Cipolla 2017 (SegNet), section 3; Castillo-Navarro 2022, section 3.2.

    Attributes:
        feature_dim: channels D of the decoded features: those of the encoder's first stage (and of the pixel path).
        stride: coarsest stride; sizes that are no multiple of it are padded inside and cropped back.
    """

    def __init__(self, encoder: Any, n_classes: int, *, pixel_path: PixelPath | None = None) -> None:
        super().__init__()
        widths, counts = encoder.out_channels[1:], encoder.n_convolutions
        self.encoder = encoder
        below = [widths[0], *widths[:-1]]
        self.blocks = nn.ModuleList(
            _mirror(n, n_out, count) for n, n_out, count in reversed(list(zip(widths, below, counts, strict=True)))
        )
        self.pixel_path = pixel_path
        self.stride = 2 ** len(widths)
        self.pixel_dim = 0 if pixel_path is None else pixel_path.width
        self.feature_dim = widths[0] + self.pixel_dim
        self.head = nn.Conv2d(self.feature_dim, n_classes, 1)

    def encode(self, pixels: Tensor) -> list[Tensor]:
        """Return `pixels` (N, B, H, W), the places of the maxima of each stage (uint8), and the coarsest features."""
        return [pixels, *self.encoder(pad_to_stride(pixels, self.stride))]

    def decode(self, features: list[Tensor]) -> Tensor:
        """Return decoded features (N, feature_dim, H, W) of what `encode` returns."""
        pixels, *places, x = features
        for block, place in zip(self.blocks, reversed(places), strict=True):
            x = block(unpool(x, place))
        decoded = x[..., : pixels.shape[-2], : pixels.shape[-1]]
        return decoded if self.pixel_path is None else torch.cat([decoded, self.pixel_path(pixels)], dim=1)

    def classify(self, decoded: Tensor) -> Tensor:
        """Return logits (N, n_classes, H, W) of decoded features."""
        logits: Tensor = self.head(decoded)
        return logits

    def second_decoder(self, n_out: int) -> SegNet:
        """Return a decoder with weights of its own for the same features, without a pixel path; its classes `n_out`."""
        return SegNet(NoEncoder(self.encoder.out_channels, self.encoder.n_convolutions), n_out)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits (N, n_classes, H, W) of `pixels` (N, B, H, W) with any H, W >= 1."""
        return self.classify(self.decode(self.encode(pixels)))


def _stages(layers: nn.Sequential) -> Iterator[list[nn.Module]]:
    """Yield the layers between one pooling and the next."""
    stage: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, nn.MaxPool2d):
            yield stage
            stage = []
        else:
            stage.append(layer)


def _layers(stages: nn.ModuleList) -> Iterator[nn.Sequential]:
    for stage in stages:
        assert isinstance(stage, nn.Sequential)
        yield stage


def _mirror(n: int, n_out: int, count: int) -> nn.Sequential:
    """Return `count` convolutions of `n` channels with norm and activation, the last to `n_out`."""
    layers: list[nn.Module] = []
    for i in range(count):
        last = n_out if i == count - 1 else n
        layers += [nn.Conv2d(n, last, 3, padding=1, bias=False), nn.BatchNorm2d(last), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
