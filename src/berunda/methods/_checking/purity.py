"""Checks that a method is arithmetic: it changes, draws, moves and remembers nothing by itself."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from berunda.methods._checking.registry import check, gradients_finite, require
from berunda.methods._checking.trial import Trial, make_trial


@check
def loss_is_scalar(trial: Trial) -> None:
    """The loss is one finite number with a gradient."""
    total = trial.loss().total
    require(total.shape == () and total.requires_grad, "the loss is no scalar with a gradient")
    require(bool(total.isfinite()), f"the loss is {total.item()}")


@check
def gradients_reach_the_net(trial: Trial) -> None:
    """Gradients are finite everywhere, not all zero in the net, and reach every part of extra."""
    trial.loss().total.backward()
    gradients_finite(trial)
    sizes = [float(p.grad.abs().sum()) for p in trial.net.parameters() if p.grad is not None]
    require(sum(sizes) > 0, "no gradient reaches the net")
    idle = [name for name, p in trial.extra.named_parameters() if p.requires_grad and p.grad is None]
    require(not idle, f"no gradient reaches extra's {', '.join(idle)}")


@check
def terms_are_plain(trial: Trial) -> None:
    """Terms are named, finite, detached scalars."""
    for name, term in trial.loss().terms.items():
        require(isinstance(term, Tensor) and term.shape == (), f"term '{name}' is no scalar tensor")
        require(not term.requires_grad, f"term '{name}' is not detached")
        require(bool(term.isfinite()), f"term '{name}' is {term.item()}")


@check
def updates_fit(trial: Trial) -> None:
    """Updates name buffers of extra and have their shapes."""
    buffers = dict(trial.extra.named_buffers())
    for name, update in trial.loss().updates.items():
        require(name in buffers, f"update '{name}' names no buffer of extra")
        found, expected = tuple(update.value.shape), tuple(buffers[name].shape)
        require(found == expected, f"update '{name}' has shape {found}, its buffer {expected}")
        require(not update.value.requires_grad, f"update '{name}' is not detached")
        require(update.reduction in ("mean", "sum", "per_rank"), f"update '{name}': {update.reduction}")


@check
def loss_changes_nothing(trial: Trial) -> None:
    """Computing a loss writes no parameter and no buffer, save the running statistics of batch norm."""
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    watched = {
        f"extra.{name}": value
        for name, value in trial.extra.state_dict().items()
        if name.rpartition(".")[2] not in statistics
    }
    watched |= {f"net.{name}": value for name, value in trial.net.named_parameters()}
    if trial.teacher is not None:
        watched |= {f"teacher.{name}": value for name, value in trial.teacher.state_dict().items()}
    before = {name: value.detach().clone() for name, value in watched.items()}
    trial.loss()
    changed = [name for name, value in watched.items() if not torch.equal(value, before[name])]
    require(not changed, f"the loss changed {', '.join(changed)}")


@check
def deterministic(trial: Trial) -> None:
    """The same batch, step and randomness give the same bits, whatever the global random numbers."""
    batch = trial.batch()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        first = trial.loss(batch).total
        torch.manual_seed(2)
        second = trial.loss(batch).total
    require(torch.equal(first, second), f"two calls gave {first.item()} and {second.item()}")


@check
def no_global_randomness(trial: Trial) -> None:
    """Neither loss nor prediction draws from torch's, numpy's or Python's global generator."""
    batch = trial.batch()
    legacy = np.random.get_state
    before = (torch.random.get_rng_state(), str(legacy()), random.getstate())
    trial.loss(batch)
    trial.method.predict(trial.net, trial.extra, trial.labelled.pixels)
    after = (torch.random.get_rng_state(), str(legacy()), random.getstate())
    require(torch.equal(before[0], after[0]), "draws from torch's global generator")
    require(before[1] == after[1], "draws from numpy's global generator")
    require(before[2] == after[2], "draws from Python's global generator")


class _Watch(TorchFunctionMode):
    """Notes what moves a tensor between devices, or makes the host wait for one."""

    WAITING = frozenset({"item", "tolist", "numpy", "cpu", "cuda", "nonzero", "__bool__", "__float__", "__int__"})

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in self.WAITING:
            self.seen.add(name)
        if name == "__getitem__" and _selects_by_mask(args[1]):
            self.seen.add("indexing by a bool mask")
        if name == "to" and any(isinstance(x, torch.device) or x in ("cpu", "cuda") for x in args[1:]):
            self.seen.add("to(device)")
        return func(*args, **(kwargs or {}))


def _selects_by_mask(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, Tensor) and part.dtype == torch.bool for part in parts)


@check
def stays_on_the_device(trial: Trial) -> None:
    """The loss moves nothing between devices and never makes the host wait for the device."""
    batch = trial.batch()
    with _Watch() as watch:
        trial.loss(batch)
    require(not watch.seen, f"the loss uses {', '.join(sorted(watch.seen))}")


@check
def state_round_trip(trial: Trial) -> None:
    """Everything that a method remembers is in the state of net, extra and teacher."""
    trial.train(3)
    other = make_trial(trial.method, trial.spec.task, lambda spec: copy.deepcopy(trial.net))
    other.net.load_state_dict(trial.net.state_dict())
    other.extra.load_state_dict(trial.extra.state_dict())
    if other.teacher is not None and trial.teacher is not None:
        other.teacher.load_state_dict(trial.teacher.state_dict())
    first, second = trial.loss(step=3).total, other.loss(step=3).total
    require(torch.equal(first, second), f"{first.item()} became {second.item()} after loading")
