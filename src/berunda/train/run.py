"""One training as an object: its settings, its state, and how it enters stages, resumes and saves."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from berunda.data.order import Randomness, key_of
from berunda.errors import CheckpointError, ConfigError, DivergedError
from berunda.methods.contract import Method, NetSpec
from berunda.models.device import resolve_device
from berunda.models.frozen import to_training
from berunda.models.teacher import Averaged
from berunda.progress import Progress
from berunda.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from berunda.train.config import TrainConfig
from berunda.train.distributed import Group, local_rank
from berunda.train.log import Monitor
from berunda.train.optimizer import build_optimizer
from berunda.train.stages import PlannedStage, plan_stages
from berunda.train.state import TrainState, check_same_run, identity_of, pack, unpack

__all__ = ["ACTIVITIES", "Run", "seeded"]

ACTIVITIES = ("data", "views", "forward_backward", "optimizer", "other")
"""What `Trained.timing` tells apart: waiting for images; rendering views (and predicting labels); forward and
backward; clipping, update and average; logging, checkpoints and the rest. On a GPU these are times of the
host, which runs ahead."""
_RISE_STEPS, _SOUND_STEPS = 10, 500


class Run:
    """One training: its fixed settings and its state.

    Attributes:
        stages: the stages in order.
        group: the ranks that train together.
        state: all that changes and is checkpointed.
        monitor: the figures of the steps and the watch over them.
        saved_at: step of the newest checkpoint, -1 for none.
    """

    def __init__(
        self, method: Method, spec: NetSpec, config: TrainConfig, folder: Path | None, group: Group | None = None
    ) -> None:
        self.method, self.spec, self.config = method, spec, config
        self.group = group or Group()
        self.folder = None if folder is None else folder / "checkpoints"
        self.device = _device(config.device, self.group)
        self.stages = plan_stages(method, config.steps)
        self.identity = identity_of(method, spec, config)
        self.saved_at = -1
        self._last = time.perf_counter()
        self._bf16 = config.precision == "bf16" or (
            config.precision == "auto" and self.device.type == "cuda" and torch.cuda.is_bf16_supported()
        )
        for stage in self.stages:
            if spec.task not in stage.method.needs().tasks:
                raise ConfigError(f"method {stage.method.name!r}: does not serve the task {spec.task!r}")
        with seeded(key_of(config.seed, "net"), self.device):
            net = method.build(spec)
        net = net.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if config.compile:
            net.compile()
        self.state = self._state(net, self._extra(self.stages[0], net), self.stages[0])
        self.state.seconds.update(dict.fromkeys(ACTIVITIES, 0.0))
        self.monitor = Monitor(self.device, self.state.rows)

    @property
    def rng(self) -> Randomness:
        """Of the whole run; fixed to the step by the loop. After each return it draws anew."""
        seed, n = self.config.seed, len(self.state.returned)
        return Randomness(key_of(seed, "attempt", n) if n else seed)

    @property
    def calm(self) -> float:
        """The factor on the learning rate: half of what it was for each time that the run went back.

        After each it rises to that over ten steps, since the optimizer's moments are those of larger ones.
        """
        if not self.state.returned:
            return 1.0
        risen = min(1.0, (self.state.step - self.state.returned_to + 1) / _RISE_STEPS)
        return risen * 0.5 ** len(self.state.returned)

    def resume(self, progress: Progress) -> None:
        """Go to where the newest whole checkpoint in the folder was written, if there is one.

        Raises:
            CheckpointError: on every rank, where one cannot go there.
            ConfigError: the ranks were not given the same.
        """
        self._check_alike()
        _, said = self._go_to()
        for text in said:
            progress.note(text)

    def _go_to(self, before: int | None = None) -> tuple[Checkpoint | None, tuple[str, ...]]:
        """Go, on every rank, to the newest whole checkpoint; return it (None without one) and what there is to say.

        No rank is through before all of them have read it, so that none may write the next one too early.

        Args:
            before: one of an earlier step than this is preferred.

        Raises:
            CheckpointError: on every rank, where one cannot go there, or finds another one than the others.
        """
        fault: CheckpointError | None = None
        found, said = None, tuple[str, ...]()
        try:
            found = None if self.folder is None else _newest(self.folder, self.group.rank, before)
            said = () if found is None else self._restore(found)
        except CheckpointError as error:
            fault = error
        place = -2 if fault is not None else -1 if found is None else _place(found)
        first, last = -self.group.largest(-place), self.group.largest(place)
        if fault is not None:
            raise fault
        if first != last:
            raise CheckpointError(
                f"checkpoints in {self.folder}: the ranks find {_told(first)} and {_told(last)}, expected the same; "
                "choose a folder that all of them share"
            )
        return found, said

    def _restore(self, checkpoint: Checkpoint) -> tuple[str, ...]:
        """Go to where `checkpoint` was written; return what there is to say about it."""
        check_same_run(checkpoint, self.identity)
        told = self._check_ranks(checkpoint)
        while self.state.stage < checkpoint.meta["stage"]:
            self.enter(self.stages[self.state.stage + 1])
        unpack(checkpoint, self.state)
        self.saved_at = self.state.step
        return *told, f"resuming at step {self.state.step} of {self.config.steps} from {checkpoint.folder}"

    def enter(self, stage: PlannedStage) -> None:
        """Begin `stage` with the averaged model of the stage before, a fresh optimizer and a fresh
        average."""
        before, labeller = self.stages[stage.index - 1], self.state.averaged
        net = self.state.net
        net.load_state_dict(labeller.net.state_dict())
        extra = self._extra(stage, net)
        if stage.method == before.method:
            extra.load_state_dict(labeller.extra.state_dict())
        entered = self._state(net, extra, stage)
        self.state = replace(
            self.state,
            extra=extra,
            averaged=entered.averaged,
            optimizer=entered.optimizer,
            labeller=labeller if stage.predicts_labels else None,
            stage=stage.index,
        )
        self._calm_buffers(len(self.state.returned))

    def gone_back(self, error: DivergedError, progress: Progress) -> Run:
        """Return the run as it was at its last good checkpoint, from where it goes on with smaller steps.

        A checkpoint to which it went back already, and after which it diverged again before there was another, is not
        good: then it is the one before it, where there is one.

        Every rank sees the same figures, and so all of them go back at the same step, to the same checkpoint.

        Incidents count anew after 500 steps without one, so that a long run does not end at the last of a few.

        Raises:
            DivergedError: `error`, where the method does not ask for returns, there is no checkpoint that can be read,
                or it went back often enough; on every rank.
        """
        allowed, state = self.stages[self.state.stage].method.needs().returns, self.state
        is_late = bool(state.returned) and state.step - state.returned_to >= _SOUND_STEPS
        n = 1 if is_late else state.in_a_row + 1
        if not allowed or self.folder is None:
            raise error
        if n > allowed:
            told = f"{error}; it went back {allowed} times before, with smaller steps each time"
            raise DivergedError(told) from error
        before = state.returned_to if self.saved_at == state.returned_to else None
        self.group.meet()  # what the first rank was writing is whole
        run = Run(self.method, self.spec, self.config, self.folder.parent, self.group)
        try:
            found, _ = run._go_to(before)
        except CheckpointError as fault:
            raise DivergedError(f"{error}; it cannot go back either: {fault}") from error
        if found is None:
            raise error
        told = (
            f"{error.found}; went back to step {found.step}, from there on steps are half as large "
            f"({n} of {allowed} returns)"
        )
        progress.note(told)
        n_known = len(run.state.returned)
        run.state.returned[:] = [*state.returned, told]
        run.state.returned_to, run.state.images_seen, run.state.in_a_row = found.step, state.images_seen, n
        run.state.seconds.update(state.seconds)
        run._calm_buffers(len(run.state.returned) - n_known)
        run.save()
        return run

    def _calm_buffers(self, times: int) -> None:
        """Write what the stage's method wants its buffers to be after as many returns."""
        method = self.stages[self.state.stage].method
        for _ in range(times):
            for name, value in method.calmed(self.state.extra).items():
                for holder in (self.state.extra, self.state.averaged.extra):
                    holder.get_buffer(name).copy_(value)

    def save(self) -> None:
        """Write a checkpoint of the state as it is, unless its figures show that it went wrong."""
        self.monitor.look()
        if self.folder is None:
            return
        self.lap("other")
        own = self.state.own_buffers() if self.group.size > 1 else {}
        parts = {name: self.group.collect(value) for name, value in own.items()}
        if self.group.rank == 0:
            tensors, meta = pack(self.state, self.identity)
            for name, values in parts.items():
                del tensors[name]
                tensors |= {f"rank{rank}/{name}": value for rank, value in enumerate(values)}
            meta |= {"ranks": self.group.size, "shards": bool(parts)}
            save_checkpoint(self.folder, self.state.step, tensors, meta, keep=self.config.keep)
        self.saved_at = self.state.step

    def _check_alike(self) -> None:
        """Refuse ranks that would compute slices of different batches, or would not look, save and go back together."""
        together = (self.config.check_every, self.config.checkpoint_every, self.device.type, self.folder is None)
        told = json.dumps([self.identity, together], sort_keys=True).encode()
        number = int.from_bytes(hashlib.sha256(told).digest()[:7])
        if -self.group.largest(-number) != self.group.largest(number):
            raise ConfigError(
                f"training on {self.group.size} ranks: found settings or data that differ between them, expected the "
                "same; give every rank the same command and the same files"
            )

    def _check_ranks(self, checkpoint: Checkpoint) -> tuple[str, ...]:
        """Refuse the shards of another number of ranks; without shards, return that the bits will differ."""
        found, expected = checkpoint.meta.get("ranks", 1), self.group.size
        if found == expected:
            return ()
        if checkpoint.meta.get("shards", False):
            raise CheckpointError(
                f"checkpoint {checkpoint.folder}: holds buffers ({', '.join(checkpoint.meta['per_rank'])}) of each of "
                f"{found} ranks, found {expected} ranks; start {found} again, or use another folder"
            )
        return (f"the checkpoint is of {found} ranks, now {expected}: sums are rounded differently from here on",)

    def update(self) -> None:
        """Let the optimizer make its step, which the device itself skips from the first bad figure on."""
        optimizer = self.state.optimizer
        optimizer.found_inf = self.monitor.blocked  # type: ignore[attr-defined]
        optimizer.step()

    @torch.no_grad()
    def predict_labels(self, pixels: Tensor) -> Tensor:
        """Return logits of the model of the stage before."""
        labeller = self.state.labeller
        if labeller is None:
            raise ConfigError("no stage comes before this one, so no model can predict its labels")
        method = self.stages[self.state.stage - 1].method
        with self.autocast():
            return method.predict(labeller.net, labeller.extra, pixels).float()

    def parameters(self) -> list[nn.Parameter]:
        """Return the parameters in training."""
        return [parameter for group in self.state.optimizer.param_groups for parameter in group["params"]]

    def clipped(self) -> Tensor:
        """Clip the gradient, that of each player apart; return its norm before, of all parameters together."""
        needs = self.stages[self.state.stage].method.needs()
        players = needs.players
        limit = min((norm for norm in (needs.clip_norm, self.config.clip_norm) if norm), default=float("inf"))
        if not players:
            return nn.utils.clip_grad_norm_(self.parameters(), limit, foreach=True)
        groups: dict[str, list[nn.Parameter]] = {}
        for name, parameter in nn.ModuleDict({"net": self.state.net, "extra": self.state.extra}).named_parameters():
            player = next((player for player in players if name.startswith(player)), "")
            groups.setdefault(player, []).append(parameter)
        norms = [nn.utils.clip_grad_norm_(group, limit, foreach=True) for group in groups.values()]
        return torch.linalg.vector_norm(torch.stack(norms))

    def autocast(self) -> torch.autocast:
        """Return the context in which the net runs."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._bf16)

    def lap(self, activity: str) -> None:
        """Book the time since the last call to `activity`."""
        now = time.perf_counter()
        self.state.seconds[activity] += now - self._last
        self._last = now

    def _extra(self, stage: PlannedStage, net: nn.Module) -> nn.Module:
        with seeded(key_of(self.config.seed, "extra", stage.index), self.device):
            extra = stage.method.init(net, self.spec)
        return extra.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _state(self, net: nn.Module, extra: nn.Module, stage: PlannedStage) -> TrainState:
        averaged = Averaged(net, extra, self.config.ema_decay)
        if self.config.compile:
            averaged.net.compile()
        to_training(net)
        extra.train()
        pair = nn.ModuleDict({"net": net, "extra": extra})
        factors = (*stage.method.needs().parameter_groups, *self.config.rates)
        optimizer = build_optimizer(pair, self.config, factors)
        return TrainState(net, extra, averaged, optimizer)


def _newest(folder: Path, rank: int, before: int | None) -> Checkpoint | None:
    """Return the newest whole checkpoint of an earlier step than `before`; where there is none, the newest of all."""
    if before is not None:
        with suppress(CheckpointError):  # none of the earlier ones is whole
            earlier = load_checkpoint(folder, rank, before)
            if earlier is not None:
                return earlier
    return load_checkpoint(folder, rank)


def _place(checkpoint: Checkpoint) -> int:
    """Return a number that tells a checkpoint of a run from all its others."""
    return int(checkpoint.meta.get("attempt", 0)) << 32 | checkpoint.step


def _told(place: int) -> str:
    """Return in words which checkpoint a rank found."""
    if place < 0:
        return "none" if place == -1 else "one that does not fit"
    return f"that of step {place & (1 << 32) - 1} after {place >> 32} returns"


@contextmanager
def seeded(key: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators, from which layers draw, within the block, and put them back after."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(key)
        yield


def _device(name: str, group: Group) -> torch.device:
    if group.size > 1 and name in ("auto", "cuda") and torch.cuda.is_available():
        if local_rank() >= torch.cuda.device_count():
            raise ConfigError(
                f"device {name!r}: this machine has {torch.cuda.device_count()} GPUs, found rank {local_rank()} on it; "
                "start at most one rank for each, or use device 'cpu'"
            )
        torch.cuda.set_device(local_rank())
        return torch.device("cuda", local_rank())
    return resolve_device(name)
