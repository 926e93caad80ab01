"""Parts of a net that do not learn: its first stages for good, statistics of batch norm for a pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

__all__ = ["freeze_stages", "frozen_statistics", "in_evaluation", "to_training"]


def freeze_stages(encoder: nn.Module, n_bands: int, n_stages: int) -> None:
    """Let nothing that the features of the first `n_stages` strides of an encoder depend on be trained.

    What they depend on is asked of automatic differentiation, so it holds for any encoder. A step gets cheaper, since
    no gradient goes back through these stages, and a few labels can no longer spoil what the pretraining learned of
    edges and colours. Layers that follow the last of these features are trained, whatever their name.

    Args:
        encoder: `forward(x) -> [x, stride 2, stride 4, ...]`.
        n_bands: bands of its input.
        n_stages: of strides 2 to 2 ** n_stages; 0 for none.
    """
    if n_stages == 0:
        return
    was_training = encoder.training
    encoder.eval()
    parameters = list(encoder.parameters())
    early = encoder(torch.zeros(1, n_bands, 64, 64))[n_stages].sum()
    for parameter, gradient in zip(parameters, torch.autograd.grad(early, parameters, allow_unused=True), strict=True):
        if gradient is not None:
            parameter.requires_grad_(False)
    encoder.train(was_training)


def to_training(net: nn.Module) -> None:
    """Put `net` into training mode, except for parts whose parameters are all frozen, which stay in evaluation mode.

    A frozen batch norm so goes on normalising by the statistics that its weights were trained with.
    """
    net.train()
    for part in net.modules():
        parameters = list(part.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            part.eval()


@contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Keep the running statistics of all norm layers in `module` as they are within the block.

    In training mode the layers still normalise by the statistics of the batch; they only do not record them.
    It is not evaluation mode, which would normalise by the recorded ones. For passes on images that are no
    data: adversarial directions, samples, the second pass of sharpness-aware minimisation.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, _NormBase) and layer.track_running_stats]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


@contextmanager
def in_evaluation(*modules: nn.Module) -> Iterator[None]:
    """Put `modules` into evaluation mode within the block, and every part back into its own mode afterwards.

    For passes that shall see what the net predicts with: recorded statistics, no dropout, no random draw.
    """
    training = [part for module in modules for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True
