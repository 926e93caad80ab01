"""All that changes while training, and how it goes into a checkpoint and comes back bit by bit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from berunda.errors import CheckpointError
from berunda.methods.contract import Method, NetSpec
from berunda.models.teacher import Averaged
from berunda.train.checkpoint import Checkpoint
from berunda.train.config import TrainConfig

__all__ = ["TrainState", "check_same_run", "identity_of", "pack", "unpack"]

_OPTIMIZER, _LOG = "optimizer.", "log."
_AVERAGED = "averaged.extra."


@dataclass
class TrainState:
    """The mutable state of a training.

    Attributes:
        net: the net in training.
        extra: the method's extra parts.
        averaged: the moving average of both.
        optimizer: over the parameters of both.
        labeller: the model that predicts labels in this stage, or None.
        stage: index of the stage.
        step: steps done, over all stages.
        images_seen: images drawn so far.
        seconds: time so far by activity.
        per_rank: names of the buffers of extra that each rank holds for itself.
        rows: the log, one row a step.
        returned: for each time that the run diverged and went back, what had happened, in words.
        returned_to: the step that it went back to last; -1 for none.
        in_a_row: how often it went back without many sound steps in between.
    """

    net: nn.Module
    extra: nn.Module
    averaged: Averaged
    optimizer: torch.optim.Optimizer
    labeller: Averaged | None = None
    stage: int = 0
    step: int = 0
    images_seen: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    rows: list[dict[str, float]] = field(default_factory=list)
    per_rank: set[str] = field(default_factory=set)
    returned: list[str] = field(default_factory=list)
    returned_to: int = -1
    in_a_row: int = 0

    def modules(self) -> nn.ModuleDict:
        """Return the modules that a checkpoint holds, by name."""
        held = {"net": self.net, "extra": self.extra, "averaged": self.averaged}
        return nn.ModuleDict(held if self.labeller is None else {**held, "labeller": self.labeller})

    def own_buffers(self) -> dict[str, Tensor]:
        """Return what this rank holds for itself, under its names in a checkpoint, as copies on the CPU."""
        held, places = self.held(), ("extra.", "labeller.extra.")
        names = sorted(place + name for place in places for name in self.per_rank if place + name in held)
        return {name: _plain(held[name]) for name in names}

    def held(self) -> dict[str, Tensor]:
        """Return the tensors of all modules, but for replay buffers and the like that the averaged model copies."""
        copies = {f"{_AVERAGED}{name}" for name in self.per_rank}
        return {name: value for name, value in self.modules().state_dict().items() if name not in copies}


def identity_of(method: Method, spec: NetSpec, config: TrainConfig) -> dict[str, Any]:
    """Return, as plain JSON, all that two runs must share for one to go on where the other stopped."""
    identity = {
        "method": method.name,
        "options": asdict(method),
        "net": asdict(spec),
        "config": config.numerics(),
    }
    plain: dict[str, Any] = json.loads(json.dumps(identity, default=str))
    return plain


def check_same_run(checkpoint: Checkpoint, identity: Mapping[str, Any]) -> None:
    """Raise CheckpointError when `checkpoint` was written by a run with other settings, naming them."""
    found, expected = _flat(checkpoint.meta["identity"]), _flat(identity)
    different = [
        f"{name} {_short(found.get(name))} found, {_short(expected.get(name))} expected"
        for name in sorted(found.keys() | expected.keys())
        if found.get(name) != expected.get(name)
    ]
    if different:
        raise CheckpointError(
            f"checkpoint {checkpoint.folder}: belongs to another run ({'; '.join(different)}); use another "
            "folder or remove this one"
        )


def pack(state: TrainState, identity: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the JSON of a checkpoint; the tensors are contiguous copies on the CPU."""
    tensors = {name: _plain(value) for name, value in state.held().items()}
    for name, parameter in _trained(state).items():
        for key, value in state.optimizer.state.get(parameter, {}).items():
            if value is not None:
                tensors[f"{_OPTIMIZER}{name}.{key}"] = _plain(value)
    columns = dict.fromkeys(name for row in state.rows for name in row)
    for column in columns:
        cells = [row.get(column, float("nan")) for row in state.rows]
        tensors[f"{_LOG}{column}"] = torch.tensor(cells, dtype=torch.float64)
    meta = {
        "identity": dict(identity),
        "stage": state.stage,
        "step": state.step,
        "images_seen": state.images_seen,
        "seconds": state.seconds,
        "columns": list(columns),
        "per_rank": sorted(state.per_rank),
        "attempt": len(state.returned),
        "returned": state.returned,
        "returned_to": state.returned_to,
        "in_a_row": state.in_a_row,
        "torch": torch.__version__,
    }
    return tensors, meta


def unpack(checkpoint: Checkpoint, state: TrainState) -> None:
    """Bring `state`, built for the checkpoint's stage, to the state that the checkpoint holds.

    Raises:
        CheckpointError: a tensor is missing, too many, or of another shape.
    """
    meta = checkpoint.meta
    tensors = dict(checkpoint.tensors)
    log = {name: tensors.pop(f"{_LOG}{name}") for name in meta["columns"]}
    moments = {name: tensors.pop(name) for name in list(tensors) if name.startswith(_OPTIMIZER)}
    copied = (name for name in meta.get("per_rank", ()) if f"extra.{name}" in tensors)
    tensors |= {f"{_AVERAGED}{name}": tensors[f"extra.{name}"] for name in copied}
    try:
        state.modules().load_state_dict(tensors)
        _restore_optimizer(state, moments)
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"checkpoint {checkpoint.folder}: does not fit the net ({str(error).splitlines()[-1].strip()}); "
            "use another folder"
        ) from error
    state.step, state.images_seen = int(meta["step"]), int(meta["images_seen"])
    state.per_rank.update(meta.get("per_rank", ()))
    state.returned[:] = meta.get("returned", ())
    state.returned_to = int(meta.get("returned_to", -1))
    state.in_a_row = int(meta.get("in_a_row", len(state.returned)))
    state.seconds.update(meta["seconds"])
    state.rows[:] = _rows(log)


def _restore_optimizer(state: TrainState, moments: Mapping[str, Tensor]) -> None:
    """Restore the moments in the memory layout of their parameters, on which the fused kernels rely."""
    known: dict[str, tuple[nn.Parameter, str]] = {}
    keys = {name.rpartition(".")[2] for name in moments}
    for name, parameter in _trained(state).items():
        known.update({f"{_OPTIMIZER}{name}.{key}": (parameter, key) for key in keys})
    for name, value in moments.items():
        if name not in known:
            raise ValueError(f"{name} belongs to no parameter")
        parameter, key = known[name]
        like = parameter if value.shape == parameter.shape else value
        restored = torch.empty_like(like, dtype=value.dtype, device=parameter.device)
        state.optimizer.state[parameter][key] = restored.detach().copy_(value)


def _trained(state: TrainState) -> dict[str, nn.Parameter]:
    pair = nn.ModuleDict({"net": state.net, "extra": state.extra})
    return {name: parameter for name, parameter in pair.named_parameters() if parameter.requires_grad}


def _plain(value: Tensor) -> Tensor:
    return value.detach().to("cpu", copy=True).contiguous()


def _rows(columns: Mapping[str, Tensor]) -> list[dict[str, float]]:
    """Return the rows of a log; a figure that a row does not have was stored as NaN."""
    if not columns:
        return []
    cells = zip(*(column.tolist() for column in columns.values()), strict=True)
    rows = [{name: cell for name, cell in zip(columns, row, strict=True) if cell == cell} for row in cells]
    return [{**row, "step": int(row["step"]), "stage_index": int(row["stage_index"])} for row in rows]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:24]}...{text[-12:]}"


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            flat.update(_flat(inner, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = inner
    return flat
