"""Forward passes that leave no trace in the running statistics of batch norm."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

__all__ = ["frozen_statistics"]


@contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Keep the running statistics of all norm layers in `module` as they are within the block.

    In training mode the layers still normalise by the statistics of the batch; they only do not record them.
    It is not evaluation mode, which would normalise by the recorded ones. For passes on images that are no
    data: adversarial directions, samples, the second pass of sharpness-aware minimisation.
    """
    layers = [
        layer for layer in module.modules() if isinstance(layer, _NormBase) and layer.track_running_stats
    ]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True
