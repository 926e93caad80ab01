"""What a net must serve, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Decoder", "NetSpec", "Task"]

Task = Literal["segmentation", "scene", "multilabel"]
Decoder = Literal["unet", "slim", "slim4", "segnet"]


@dataclass(frozen=True)
class NetSpec:
    """The task, bands and classes of a net, and which encoder it rests on.

    Attributes:
        task: "segmentation", "scene" or "multilabel".
        n_bands: bands of the input, at least 1.
        n_classes: classes of the output, at least 2.
        encoder: "efficientnet_lite0" (packaged weights), "wide_resnet28_2" and its kin, for whole images
            "vit_mini_patch16" and its kin, or any timm name.
        encoder_depth: number of stages of the encoder in use (1 to 5); the coarsest stride is 2 ** depth. Vision
            transformers have none and are always whole.
        pretrained: start the encoder from its pretrained weights.
        crop_px: side of a training image in pixels.
        pixel_path: segmentation only: add a per-pixel path at full resolution (two 1x1 convolutions on the
            bands) beside the decoder, so that the spectrum of a pixel reaches the classifier undiluted.
        decoder: segmentation only: "unet", "slim" (top-down sums at stride 2; about half the cost of a step), "slim4"
            (the same at stride 4, for methods that look at single pixels by themselves) or "segnet" (pooling indices
            instead of skips; for the VGGs with batch norm alone).
        n_labelled: images of the labelled stream, for methods that remember something of each; 0 where they are
            drawn without end.
        n_unlabelled: of the unlabelled stream, likewise.
        frozen_stages: stages of the encoder, from the first, that keep their pretrained weights and statistics.
    """

    task: Task
    n_bands: int
    n_classes: int
    encoder: str = "efficientnet_lite0"
    encoder_depth: int = 3
    pretrained: bool = True
    crop_px: int = 64
    pixel_path: bool = False
    decoder: Decoder = "unet"
    n_labelled: int = 0
    n_unlabelled: int = 0
    frozen_stages: int = 0
