"""The recipe of training on images with masks: the one place where it is tuned."""

from __future__ import annotations

from collections.abc import Mapping

from berunda.api.mask_fit import MaskNet
from berunda.options.bench import BenchOptions
from berunda.options.train import TrainOptions
from berunda.train.config import TrainConfig

__all__ = ["STEPS", "mask_config", "mask_net"]

STEPS: Mapping[str, int] = {"quick": 250, "standard": 1000, "thorough": 5000}
"""Training steps by effort: about 2, 6 and 30 minutes of FixMatch on two cores, at 4 labelled crops of 96 px a step."""
N_LABELLED, CROP_PX = 4, 96
"""A step shows about as many pixels as one of `berunda map` does (8 of 64 px), with more of what lies around them."""


def mask_net(options: TrainOptions | BenchOptions) -> MaskNet:
    """Return the net that the options ask for."""
    return MaskNet(
        encoder=options.encoder,
        depth=options.encoder_depth,
        pretrained=options.pretrained,
        crop_px=options.crop_px or CROP_PX,
        decoder=options.decoder,
        frozen_stages=options.frozen_stages or 0,
    )


def mask_config(options: TrainOptions | BenchOptions, *, seed: int, run_key: str = "") -> TrainConfig:
    """Return the loop's settings of one run."""
    return TrainConfig(
        steps=options.steps or STEPS[options.effort],
        n_labelled=options.n_labelled or N_LABELLED,
        learning_rate=options.learning_rate or 1e-3,
        seed=seed,
        device=options.device,
        run_key=run_key,
    )
