"""The exponential moving average of a net and its extra parts: the teacher, and the model that predicts."""

from __future__ import annotations

import copy
import weakref

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

__all__ = ["Averaged", "averaging_decay"]


def averaging_decay(decay: float, step: int) -> float:
    """Return min(decay, (1 + step) / (10 + step)), so that a short run does not report its initial weights.

    Example:
        >>> averaging_decay(0.999, 0), averaging_decay(0.999, 100000)
        (0.1, 0.999)
    """
    return min(decay, (1 + step) / (10 + step))


class Averaged(nn.Module):
    """A copy of (net, extra) that follows them as an exponential moving average; eval mode, no gradient.

    Parameters are averaged. So are the running mean and variance of norm layers, with the same weights: they
    describe the activations of the averaged parameters better than the student's last statistics, and are
    less noisy on small batches (an average of variances stays positive). All other buffers (thresholds,
    replay buffers, counters) are values, not estimates of the weights, and are copied when they changed.

    Attributes:
        net: the averaged net.
        extra: the averaged extra parts.
        decay: the decay d in [0, 1) that is approached.
    """

    def __init__(self, net: nn.Module, extra: nn.Module, decay: float) -> None:
        super().__init__()
        pair = copy.deepcopy(nn.ModuleDict({"net": net, "extra": extra}))  # one copy: shared parts stay shared
        self.net = pair["net"]
        self.extra = pair["extra"]
        self.decay = decay
        self._copied: dict[str, tuple[weakref.ref[Tensor], int]] = {}
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Averaged:
        """Stay in evaluation mode whatever is asked."""
        del mode
        super().train(False)
        return self

    @torch.no_grad()
    def update(self, net: nn.Module, extra: nn.Module, step: int) -> None:
        """Move towards `net` and `extra` as they are after step `step` (from 0)."""
        own = nn.ModuleDict({"net": self.net, "extra": self.extra})
        source = nn.ModuleDict({"net": net, "extra": extra})
        weight = 1.0 - averaging_decay(self.decay, step)
        averages, targets = _averaged_tensors(own), _averaged_tensors(source)
        torch._foreach_lerp_(list(averages.values()), [targets[name].detach() for name in averages], weight)
        for name, buffer in own.named_buffers():
            if name not in averages:
                self._copy(name, buffer, source.get_buffer(name))

    def _copy(self, name: str, target: Tensor, source: Tensor) -> None:
        """Copy a buffer (a replay buffer is large) unless it was copied last time and not written since."""
        last, version = self._copied.get(name, (None, -1))
        if last is None or last() is not source or version != source._version:
            target.copy_(source)
            self._copied[name] = (weakref.ref(source), source._version)


def _averaged_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return the tensors that are averaged by name: parameters, running statistics of norm layers."""
    tensors: dict[str, Tensor] = dict(module.named_parameters())
    for prefix, layer in module.named_modules():
        if isinstance(layer, _NormBase):
            buffers = layer.named_buffers(prefix, recurse=False)
            tensors.update((name, value) for name, value in buffers if value.is_floating_point())
    return tensors
