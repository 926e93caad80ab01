"""Several processes train one net: each computes its slice of every batch, and all make the same update.

`torchrun --nproc-per-node N program.py` starts the processes (ranks). Images, views and mixes are drawn for the whole
batch on every rank, which keeps its slice, so that n ranks see together what one rank sees. Means over counted
positions divide by the counts of all ranks (`berunda.losses`), gradients are averaged, so all ranks hold the same
weights without ever sending them. Only rank 0 logs and writes.
"""

from __future__ import annotations

import itertools
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parallel import DistributedDataParallel

from berunda.errors import BerundaError, ConfigError, RanksError
from berunda.methods.contract import BufferUpdate
from berunda.ranks import among, started_ranks
from berunda.train.config import TrainConfig
from berunda.train.pulse import Pulse, end_process
from berunda.train.signals import StopRequest

__all__ = ["Group", "joined", "local_rank", "together"]

_STUCK = timedelta(minutes=10)
"""A collective operation that a living rank does not join for so long fails: that rank is stuck."""

_joins = itertools.count()
_store: list[Any] = []
_POLL_S = 0.1


def local_rank() -> int:
    """Return this process's number among the ranks on its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


class Group:
    """The ranks of one training. This one has a single rank: every operation returns what it was given."""

    rank = 0
    size = 1

    def wrap(self, learner: nn.Module) -> nn.Module:
        """Return `learner` with gradients that are averaged over the ranks."""
        return learner

    def largest(self, number: int) -> int:
        """Return the largest `number` of all ranks, once every rank has come to this point."""
        return number

    def meet(self) -> None:
        """Wait until every rank has come to this point, however long another one takes."""

    def mean(self, figures: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return scalars averaged over the ranks, the same bits on each."""
        return dict(figures)

    def reduced(self, update: BufferUpdate) -> Tensor:
        """Return the new value of a buffer as its reduction says."""
        return update.value.detach()

    def share_statistics(self, *modules: nn.Module) -> None:
        """Average the running statistics of norm layers over the ranks."""

    def collect(self, tensor: Tensor) -> list[Tensor]:
        """Return `tensor`, on the CPU, of every rank; only rank 0 gets the others'."""
        return [tensor]


class Several(Group):
    """Several ranks, by a process group of its own.

    Args:
        prefix: of the keys in the launcher's store.
        silence_s: see `TrainConfig`.
    """

    def __init__(self, prefix: str, silence_s: float) -> None:
        self.rank, self.size = started_ranks()
        if not _store:
            _store.append(next(iter(rendezvous("env://"))))
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        self._store = dist.PrefixStore(prefix, _store[0][0])
        self._meetings = itertools.count()
        dist.init_process_group(
            backend,
            store=self._store,
            rank=self.rank,
            world_size=self.size,
            timeout=_STUCK,
        )
        own = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
        store = dist.PrefixStore(f"{prefix}/pulse", own)
        self._pulse = Pulse(store, self.rank, self.size, silence_s, self._give_up)
        self.largest(0)
        self._pulse.start()

    def wrap(self, learner: nn.Module) -> nn.Module:
        """Return `learner` with gradients that are averaged over the ranks; its buffers stay as they are."""
        buffers = {name: value.clone() for name, value in learner.named_buffers()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # the option's new name is unknown to older versions
            wrapped = DistributedDataParallel(_Trainable(learner), broadcast_buffers=False, find_unused_parameters=True)
        for name, value in buffers.items():  # the wrapper once gives every rank what rank 0 holds
            learner.get_buffer(name).copy_(value)
        return wrapped

    def largest(self, number: int) -> int:
        """Return the largest `number` of all ranks, once every rank has come to this point."""
        shared = torch.tensor(number)
        dist.all_reduce(shared, dist.ReduceOp.MAX)
        return int(shared.item())

    def meet(self) -> None:
        """Wait until every rank has come to this point, however long another one takes.

        Raises:
            RanksError: a rank ended before.
        """
        place = f"meeting/{next(self._meetings)}"
        self._store.add(place, 1)
        with StopRequest() as stop:
            while self._store.add(place, 0) < self.size:
                found = self._pulse.blame(wait_s=2) if stop.requested else self._pulse.ended()
                if found and self._store.add(place, 0) < self.size:  # else it left after the meeting
                    raise RanksError(self._message(found))
                stop.leave()
                time.sleep(_POLL_S)

    def sum(self, x: Tensor) -> Tensor:
        """Return the sum of `x` over the ranks, the same bits on each; no gradient."""
        total = x.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    def gather(self, x: Tensor) -> Tensor:
        """Return `x` (N, ...) of all ranks one after the other, (size N, ...); no gradient."""
        own = x.detach().contiguous()
        flat = own.view(torch.uint8) if own.dtype == torch.bool else own
        parts = [torch.empty_like(flat) for _ in range(self.size)]
        dist.all_gather(parts, flat)
        return torch.cat(parts).view(own.dtype)

    def mean(self, figures: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return scalars averaged over the ranks, the same bits on each; one that is not finite shows on all."""
        stacked = torch.stack([value.detach().double() for value in figures.values()])
        return dict(zip(figures, (self.sum(stacked) / self.size).unbind(), strict=True))

    def reduced(self, update: BufferUpdate) -> Tensor:
        """Return the new value of a buffer as its reduction says."""
        value = update.value.detach()
        if update.reduction == "per_rank":
            return value
        wide = value if value.is_floating_point() else value.long()
        total = self.sum(wide)
        if update.reduction == "mean":
            total = total / self.size if value.is_floating_point() else total // self.size
        return total.to(value.dtype)

    def share_statistics(self, *modules: nn.Module) -> None:
        """Average the running statistics of norm layers over the ranks, so that every rank holds the same."""
        found = [
            buffer
            for module in modules
            for layer in module.modules()
            if isinstance(layer, _NormBase)
            for buffer in layer.buffers(recurse=False)
            if buffer.is_floating_point()
        ]
        if not found:
            return
        shared = self.sum(torch.cat([buffer.reshape(-1) for buffer in found])) / self.size
        for buffer, value in zip(found, shared.split([b.numel() for b in found]), strict=True):
            buffer.copy_(value.view_as(buffer))

    def collect(self, tensor: Tensor) -> list[Tensor]:
        """Return `tensor`, on the CPU, of every rank; only rank 0 gets the others'."""
        flat = tensor.contiguous().reshape(-1).view(torch.uint8)
        parts = [torch.empty_like(flat) for _ in range(self.size)] if self.rank == 0 else None
        dist.gather(flat, parts, dst=0)
        return [tensor] if parts is None else [part.view(tensor.dtype).view(tensor.shape) for part in parts]

    def leave(self, error: BaseException | None) -> None:
        """Tell the others that this rank ends, how, and free the process group."""
        words = "" if error is None or isinstance(error, SystemExit | KeyboardInterrupt) else _words(error)
        self._pulse.stop(words)
        if error is None or not torch.cuda.is_available():  # freeing one of a GPU waits for operations that never end
            dist.destroy_process_group()

    def lost(self, error: BaseException) -> RanksError | None:
        """Return what to raise for `error` when it comes from another rank that is gone, else None."""
        if isinstance(error, BerundaError) or not isinstance(error, RuntimeError) or not _is_of_connection(error):
            return None
        found = self._pulse.blame(wait_s=5)
        return RanksError(self._message(found or f"another rank is gone or stuck ({_words(error)})"))

    def _give_up(self, found: str) -> None:
        end_process(self._message(found))

    def _message(self, found: str) -> str:
        return (
            f"training on {self.size} ranks: {found}, so rank {self.rank} ends too; start the same command again to go "
            "on from the last checkpoint"
        )


@contextmanager
def joined(config: TrainConfig) -> Iterator[Group]:
    """Join the ranks that `torchrun` started, for one training; a group of one without it.

    Within `together` it is that group, which goes on afterwards.

    Raises:
        ConfigError: this process is in a process group of another program already.
        RanksError: another rank ended before the training was over.
    """
    if config.ranks == "alone" or started_ranks()[1] == 1:
        yield Group()
        return
    held = _held.get()
    if held is None:
        with together(config.silence_s), joined(config) as group:
            yield group
        return
    held.meet()  # another rank may have had more to do since the training before
    with among(held):
        yield held


@contextmanager
def together(silence_s: float = TrainConfig.silence_s) -> Iterator[Group]:
    """Join the ranks that `torchrun` started, for all that is done within the block; a group of one without it.

    The ranks need not do the same within the block, but must come to the same trainings and meetings.

    Args:
        silence_s: see `TrainConfig`.

    Raises:
        ConfigError: this process is in a process group already.
        RanksError: another rank ended before its time.
    """
    if started_ranks()[1] == 1:
        yield Group()
        return
    if dist.is_initialized():
        raise ConfigError("training on several ranks: found a process group, expected to make it; destroy it first")
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    group = Several(f"berunda/{attempt}/{next(_joins)}", silence_s)
    token = _held.set(group)
    try:
        yield group
        group.meet()  # none leaves while another may still need it
    except BaseException as error:
        with StopRequest():  # the launcher asks to stop, but first the reason
            lost = group.lost(error)
        group.leave(lost or error)
        if lost is None:
            raise
        raise lost from error
    finally:
        _held.reset(token)
    group.leave(None)


_held: ContextVar[Several | None] = ContextVar("berunda_group", default=None)


class _Trainable(nn.Module):
    """A learner whose loss always has a gradient: every rank must take part in averaging them."""

    def __init__(self, learner: nn.Module) -> None:
        super().__init__()
        self.learner = learner

    def forward(self, *inputs: Any) -> Any:
        loss = self.learner(*inputs)
        if loss.total.requires_grad:
            return loss
        nothing = torch.stack([p.sum() for p in self.learner.parameters() if p.requires_grad]).sum() * 0
        return replace(loss, total=loss.total + nothing)


def _is_of_connection(error: RuntimeError) -> bool:
    if isinstance(error, dist.DistError):
        return True
    text = str(error).lower()
    return any(sign in text for sign in ("gloo", "connection closed by peer", "connection reset", "nccl"))


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
