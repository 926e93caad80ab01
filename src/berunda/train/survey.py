"""Showing every image to the averaged model, for methods that look at all of them together."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Literal, cast

import torch
from torch import Tensor

from berunda.data.resampling import resample_images
from berunda.data.source import ListedSource, Source
from berunda.errors import ConfigError
from berunda.methods.contract import BufferUpdate, SplitNet, Step, Surveyed
from berunda.models.device import computes_bf16
from berunda.train.run import Run
from berunda.train.stages import PlannedStage

__all__ = ["survey", "survey_steps"]

Stream = Literal["labelled", "unlabelled"]
_CHUNK = 256
_N_STAGES = 3
"""Stages that describe an image: labels spread better over a graph of textures and objects than of objects alone."""


def survey_steps(stage: PlannedStage) -> frozenset[int]:
    """Return the steps, counted over all stages, before which the images are shown."""
    n, steps = stage.method.needs().surveys, stage.steps
    return frozenset(steps.start + round(turn * len(steps) / n) for turn in range(n))


def survey(run: Run, stage: PlannedStage, source: Source) -> None:
    """Show all images to the averaged model and write what the method makes of it into the buffers of its extra parts.

    Of several ranks each does it whole, and all take over the mean of what they found.

    Raises:
        ConfigError: the source has no list of its images.
    """
    if not isinstance(source, ListedSource) or not source.has_unlabelled:
        raise ConfigError(
            f"method {stage.method.name!r}: looks at all unlabelled images together, found none or crops without end; "
            "expected a data set of images, some of them unlabelled"
        )
    is_untrained = run.state.step == 0 and run.spec.pretrained
    side_px = stage.method.needs().first_survey_px if is_untrained else 0
    labelled, unlabelled = (_all_of(run, source, stream, side_px) for stream in ("labelled", "unlabelled"))
    labelled = replace(labelled, twins=source.twins())
    where = Step(run.state.step - stage.steps.start, len(stage.steps), run.state.averaged)
    for name, value in stage.method.survey(run.state.extra, labelled, unlabelled, where).items():
        for holder in (run.state.extra, run.state.averaged.extra):
            buffer = holder.get_buffer(name)
            buffer.copy_(run.group.reduced(BufferUpdate(value.to(buffer))))


@torch.inference_mode()
def _all_of(run: Run, source: ListedSource, stream: Stream, side_px: int) -> Surveyed:
    net = cast(Any, run.state.averaged.net)
    parts: list[tuple[Tensor, Tensor]] = []
    labels: list[Tensor] = []
    is_fast = computes_bf16(run.device)
    with torch.autocast(run.device.type, torch.bfloat16) if is_fast else nullcontext():
        for images in source.every(stream, _CHUNK):
            pixels = images.pixels.to(run.device)
            if max(pixels.shape[2:]) < side_px:
                pixels = resample_images(pixels, side_px)
            parts.append(_described(net, pixels.contiguous(memory_format=torch.channels_last)))
            if images.labels is not None:
                labels.append(images.labels)
    features, logits = (torch.cat(column).float().cpu() for column in zip(*parts, strict=True))
    return Surveyed(features, logits, torch.cat(labels) if labels else None)


def _described(net: SplitNet, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the means of the last stages, and the logits; the first of what a net encodes are the pixels."""
    stages = net.encode(pixels)
    pooled = [stage.float().mean((2, 3)) for stage in stages[1:][-_N_STAGES:]]
    return torch.cat(pooled, dim=1), net.classify(net.decode(stages))
