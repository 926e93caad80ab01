"""The optimizer, its schedule, and the first half of sharpness-aware minimisation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from berunda.train.config import TrainConfig

__all__ = ["build_optimizer", "schedule", "set_rate", "sharper_weights"]


def schedule(step: int, total: int, warmup_steps: int, warmup_share: float = 0.5) -> float:
    """Return the factor on the learning rate at `step` (from 0) of `total`: a linear rise, then a half cosine
    to 0.

    The rise takes `warmup_steps`, but at most `warmup_share` of all.

    Example:
        >>> [round(schedule(step, 8, 2), 2) for step in range(8)]
        [0.5, 1.0, 1.0, 0.93, 0.75, 0.5, 0.25, 0.07]
    """
    warmup = min(warmup_steps, int(total * warmup_share))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def build_optimizer(
    module: nn.Module, config: TrainConfig, factors: Sequence[tuple[str, float]]
) -> torch.optim.Optimizer:
    """Return the fused optimizer over the trainable parameters of `module`.

    Args:
        module: its parameters' names ("net.encoder...", "extra...") are matched with the prefixes.
        config: kind, weight decay and peak rate.
        factors: factor on the rate by prefix; the first that matches holds, 1 elsewhere.
    """
    groups: dict[tuple[float, bool], list[Tensor]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            factor = next((factor for prefix, factor in factors if name.startswith(prefix)), 1.0)
            groups.setdefault((factor, parameter.ndim > 1), []).append(parameter)
    described = [
        {"params": parameters, "factor": factor, "weight_decay": config.weight_decay if decays else 0.0}
        for (factor, decays), parameters in groups.items()
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(described, lr=config.learning_rate, momentum=0.9, nesterov=True, fused=True)
    return torch.optim.AdamW(described, lr=config.learning_rate, betas=config.betas, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate, times each group's factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]


@contextmanager
def sharper_weights(parameters: Iterable[nn.Parameter], rho: float) -> Iterator[None]:
    """Within the block, move the weights by `rho` along their gradient, and clear the gradients.

    Afterwards the weights are what they were, bit by bit, and the gradients those of the moved weights.

    Source: Foret et al., Sharpness-Aware Minimization, ICLR 2021, eq. 2 (p = 2) and algorithm 1.
    """
    moved = [parameter for parameter in parameters if parameter.grad is not None]
    values = [parameter.detach() for parameter in moved]
    before = [value.clone() for value in values]
    gradients = [parameter.grad for parameter in moved if parameter.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    torch._foreach_add_(values, torch._foreach_mul(gradients, rho / (norm + 1e-12)))
    for parameter in moved:
        parameter.grad = None
    try:
        yield
    finally:
        torch._foreach_copy_(values, before)
