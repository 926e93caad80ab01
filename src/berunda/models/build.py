"""From a NetSpec to a net."""

from __future__ import annotations

from typing import Any, get_args

from torch import nn

from berunda.errors import ConfigError
from berunda.models.encoders import build_encoder, build_transformer
from berunda.models.frozen import freeze_stages
from berunda.models.pooled import PooledNet
from berunda.models.segnet import SegNet, build_pooling_encoder
from berunda.models.slim import SlimNet
from berunda.models.spec import Decoder, NetSpec, Task
from berunda.models.transformer import TRANSFORMERS, undivided
from berunda.models.unet import PixelPath, UNet

__all__ = ["Net", "build_net", "check_spec"]

Net = UNet | SlimNet | SegNet | PooledNet
"""What the builder returns: all offer `encode`, `decode`, `classify`, `feature_dim` and `stride`."""


def build_net(spec: NetSpec) -> Net:
    """Return the house's net for `spec`, in training mode on the CPU.

    Parts without pretrained weights draw from torch's global generator, as all of torch's layers do; the
    caller seeds it (the training loop does, in a fork that leaves the global state as it was).

    Raises:
        ConfigError: a field is out of range, or the encoder cannot be had.
    """
    check_spec(spec)
    if spec.encoder in TRANSFORMERS:
        shape = (spec.n_bands, spec.crop_px)
        return PooledNet(build_transformer(spec.encoder, *shape, pretrained=spec.pretrained), spec.n_classes, stride=1)
    encoder: nn.Module
    how: dict[str, Any] = {"n_bands": spec.n_bands, "depth": spec.encoder_depth, "pretrained": spec.pretrained}
    if spec.task == "segmentation" and spec.decoder == "segnet":
        encoder = build_pooling_encoder(spec.encoder, **how)
        encoder.freeze(spec.frozen_stages)
    else:
        encoder = build_encoder(spec.encoder, **how)
        freeze_stages(encoder, spec.n_bands, spec.frozen_stages)
    if spec.task != "segmentation":
        return PooledNet(encoder, spec.n_classes)
    pixel_path = PixelPath(spec.n_bands) if spec.pixel_path else None
    if spec.decoder == "segnet":
        return SegNet(encoder, spec.n_classes, pixel_path=pixel_path)
    if spec.decoder == "unet":
        return UNet(encoder, spec.n_classes, pixel_path=pixel_path)
    return SlimNet(encoder, spec.n_classes, pixel_path=pixel_path, stride=4 if spec.decoder == "slim4" else 2)


def check_spec(spec: NetSpec) -> None:
    """Refuse a specification that no net is built for; nothing is built.

    Raises:
        ConfigError: listing everything wrong with it.
    """
    faults = []
    if spec.task not in get_args(Task):
        faults.append(f"task {spec.task!r} is unknown, expected one of {', '.join(get_args(Task))}")
    if spec.decoder not in get_args(Decoder):
        faults.append(f"decoder {spec.decoder!r} is unknown, expected one of {', '.join(get_args(Decoder))}")
    if spec.n_bands < 1:
        faults.append(f"n_bands is {spec.n_bands}, expected at least 1")
    if spec.n_classes < (1 if spec.task == "multilabel" else 2):
        faults.append(f"n_classes is {spec.n_classes}, expected at least 2")
    if not 1 <= spec.encoder_depth <= 5:
        faults.append(f"encoder_depth is {spec.encoder_depth}, expected 1 to 5")
    if not 0 <= spec.frozen_stages <= spec.encoder_depth:
        faults.append(f"frozen_stages is {spec.frozen_stages}, expected 0 to {spec.encoder_depth}, the encoder_depth")
    elif spec.frozen_stages and not spec.pretrained:
        faults.append(f"frozen_stages is {spec.frozen_stages}, expected 0 without pretrained weights")
    if spec.encoder in TRANSFORMERS and spec.task == "segmentation":
        faults.append(f"encoder {spec.encoder!r} is for whole images, expected a convolutional one for maps")
    if spec.encoder in TRANSFORMERS and spec.frozen_stages:
        faults.append(f"frozen_stages is {spec.frozen_stages}, expected 0 for {spec.encoder!r}, which has no stages")
    if spec.encoder in TRANSFORMERS and (told := undivided(TRANSFORMERS[spec.encoder][0], spec.crop_px, spec.crop_px)):
        faults.append(told)
    if spec.pixel_path and spec.task != "segmentation":
        faults.append(f"pixel_path is set for task {spec.task!r}, which has no pixels to classify")
    if faults:
        raise ConfigError("net: " + "; ".join(faults))
