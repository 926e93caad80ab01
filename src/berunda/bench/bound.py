"""What a training step cannot do without: forward and backward of the net on as many images, and nothing else.

The share of a step that this bound takes says how much the loop, the views, the loss and the optimizer add to it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from berunda.methods.contract import Method, NetSpec
from berunda.models.device import computes_bf16
from berunda.train.config import TrainConfig
from berunda.train.run import Run

__all__ = ["BareLoss", "Bound", "StepImages", "images_per_step", "measure_bound"]

_WARM_UP = 3
_BLOCKS = 5

BareLoss = Callable[[nn.Module, nn.Module, Tensor], Tensor]
"""From the net, the method's extra parts and images (N, B, H, W) to a loss."""


@dataclass(frozen=True)
class StepImages:
    """Images that go through the net in one step: `trained` forward and backward, `forward` only forward (teacher)."""

    trained: int
    forward: int

    @property
    def passes(self) -> float:
        """Image passes: one for forward and backward, a third for forward alone."""
        return self.trained + self.forward / 3


@dataclass(frozen=True)
class Bound:
    """The bare cost of a step, in seconds.

    Attributes:
        images: of one step.
        trained_s: forward and backward of the trained images, as one batch.
        forward_s: forward of the others, as one batch, without gradient, in bfloat16 where the device computes it, as
            teachers that choose labels do; 0 for none.
    """

    images: StepImages
    trained_s: float
    forward_s: float

    @property
    def step_s(self) -> float:
        """Both together."""
        return self.trained_s + self.forward_s


def images_per_step(method: Method, n_labelled: int) -> StepImages:
    """Return how many images a step of `method` puts through the net, as its `needs` declare.

    An image of which the net sees a part, and which so costs less than a pass, is an image all the same.
    """
    needs = method.needs()
    uses_unlabelled = bool(needs.unlabelled) and needs.unlabelled_ratio > 0
    n_unlabelled = max(1, round(n_labelled * needs.unlabelled_ratio)) if uses_unlabelled else 0
    of_labelled = max(1.0, needs.labelled_passes)
    of_unlabelled = max(1.0, needs.trained_passes) if needs.trained_passes else 0.0
    trained = n_labelled * of_labelled + n_unlabelled * of_unlabelled
    return StepImages(round(trained), round(n_unlabelled * needs.forward_passes))


def measure_bound(
    method: Method, spec: NetSpec, config: TrainConfig, *, repeats: int = 4, bare_loss: BareLoss | None = None
) -> Bound:
    """Measure the bare cost of a step on images that are in place already.

    The net is the method's own, laid out, in the precision and on the device as the loop has it; the images are noise,
    and the loss is the cross-entropy with labels of noise. No optimizer, no average, no views.

    Args:
        method: its `needs` say how many images a step takes.
        spec: of the net, for whole images.
        config: device, precision, images a step.
        repeats: steps in each of five blocks, the median of which is taken.
        bare_loss: what the trained images go through, where that is not the net alone and all of each image.
    """
    run, images = Run(method, spec, config, None), images_per_step(method, config.n_labelled)
    net, extra, averaged = run.state.net, run.state.extra, run.state.averaged.net
    shown = torch.randn(max(images.trained, images.forward), spec.n_bands, spec.crop_px, spec.crop_px)
    pixels = shown.to(run.device).contiguous(memory_format=torch.channels_last)
    labels = (torch.arange(images.trained) % spec.n_classes).to(run.device)

    def of_labels(net: nn.Module, extra: nn.Module, shown: Tensor) -> Tensor:
        del extra
        return functional.cross_entropy(net(shown), labels)

    def train() -> None:
        for part in (net, extra):
            part.zero_grad(set_to_none=True)
        with run.autocast():
            loss = (bare_loss or of_labels)(net, extra, pixels[: images.trained])
        loss.backward()

    @torch.no_grad()
    def forward() -> None:
        with torch.autocast(run.device.type, torch.bfloat16, enabled=computes_bf16(run.device)):
            averaged(pixels[: images.forward])

    trained_s = _seconds(train, run.device, repeats)
    return Bound(images, trained_s, _seconds(forward, run.device, repeats) if images.forward else 0.0)


def _seconds(act: Callable[[], None], device: torch.device, repeats: int) -> float:
    """Return the median over blocks of the mean time of `act`."""
    for _ in range(_WARM_UP):
        act()
    means = []
    for _ in range(_BLOCKS):
        start = _now(device)
        for _ in range(repeats):
            act()
        means.append((_now(device) - start) / repeats)
    return statistics.median(means)


def _now(device: torch.device) -> float:
    """Return the time when all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
