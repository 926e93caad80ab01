"""The figures of every step, brought to the host now and then, and the watch over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from berunda.errors import DivergedError
from berunda.train.watch import LARGEST_LOSS, Watch

__all__ = ["Monitor"]


@dataclass(frozen=True)
class _Pending:
    step: int
    stage: str
    figures: dict[str, Tensor]
    rate: float
    batch: dict[str, Tensor]


class Monitor:
    """Collects figures on the device without waiting for it, and raises DivergedError when they are looked
    at.

    Attributes:
        rows: one a step: "step", "stage_index", "total", the method's terms, "gradient_norm",
            "learning_rate".
        blocked: () float on the device; 1 from the first step on whose loss, terms or gradient were not
            finite.
    """

    def __init__(self, device: torch.device, rows: list[dict[str, float]] | None = None) -> None:
        self.rows = [] if rows is None else rows
        self.blocked = torch.zeros((), device=device)
        self._pending: list[_Pending] = []
        self._watch = Watch()
        self._stage = (0, "")

    def begin_stage(
        self,
        index: int,
        name: str,
        watched: Sequence[tuple[str, float]] = (),
        bounds: Sequence[tuple[str, float]] = (),
        *,
        hears_silence: bool = False,
    ) -> None:
        """The rows that follow belong to this stage, within which they are watched, see `Watch`."""
        self._stage = (index, name)
        rows = [row for row in self.rows if row["stage_index"] == index]
        self._watch = Watch(watched, bounds, rows, hears_silence=hears_silence)

    def record(self, step: int, figures: Mapping[str, Tensor], *, rate: float, batch: Mapping[str, Tensor]) -> None:
        """Take the scalars of `step`, among them "total", from the device; `batch` are sample indices."""
        stacked = torch.stack([value.detach().float() for value in figures.values()])
        fine = torch.isfinite(stacked).all() & (figures["total"].detach().abs() <= LARGEST_LOSS)
        self.blocked = torch.maximum(self.blocked, (~fine).float())
        named = dict(zip(figures, stacked.unbind(), strict=True))
        self._pending.append(_Pending(step, self._stage[1], named, rate, dict(batch)))

    def look(self) -> None:
        """Bring what was recorded to the host.

        Raises:
            DivergedError: a figure is not finite, or the loss ran away.
        """
        if not self._pending:
            return
        values = torch.cat([torch.stack(list(p.figures.values())) for p in self._pending]).tolist()
        for pending in self._pending:
            figures = dict(zip(pending.figures, values, strict=False))
            del values[: len(figures)]
            self._check(pending, figures)
            self.rows.append(
                {
                    "step": pending.step,
                    "stage_index": self._stage[0],
                    **figures,
                    "learning_rate": pending.rate,
                }
            )
        self._pending.clear()

    def _check(self, pending: _Pending, figures: dict[str, float]) -> None:
        where = f"training diverged at step {pending.step} of stage {pending.stage!r}"
        fault, kept = self._watch.broken(figures), "no update was made from it; "
        if not fault:
            fault, kept = self._watch.drifted(figures), ""
        if fault:
            found = f"{where}: {fault}"
            raise DivergedError(f"{found}{_samples(pending.batch)}; {kept}{_advice(pending)}", found)


def _samples(batch: Mapping[str, Tensor]) -> str:
    """Return the samples of a batch by stream, at most eight of each."""
    streams = []
    for name, index in batch.items():
        shown = ", ".join(str(i) for i in index[:8].tolist()) + (", .." if len(index) > 8 else "")
        streams.append(f"{name} samples {shown}")
    return f" (batch of {'; '.join(streams)})" if streams else ""


def _advice(pending: _Pending) -> str:
    return (
        f"look at these samples or lower learning_rate (now {pending.rate:.3g}); "
        "the last good checkpoint, where there is one, is kept"
    )
