"""The figures of every step, brought to the host now and then, and the watch over them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from berunda.errors import DivergedError

__all__ = ["LARGEST_LOSS", "Monitor", "drift"]

LARGEST_LOSS = 1e8
"""A loss beyond this is treated as non-finite is: no update is made from it."""

_FIRST, _LAST, _FACTOR = 20, 5, 10.0


def drift(totals: Sequence[float]) -> tuple[float, float] | None:
    """Return (level at the start, level now) when the losses of a stage ran away, else None.

    The levels are medians of the first 20 and the last 5 steps; they ran away when they differ by more than
    10 times the first level (or 10, where that is below 1), in either direction. A growth of 5% a step is
    found in 50 steps.

    Example:
        >>> drift([1.0] * 30), drift([1.0] * 20 + [20.0] * 5)
        (None, (1.0, 20.0))
    """
    if len(totals) < 2 * _LAST:
        return None
    start = statistics.median(totals[:_FIRST])
    now = statistics.median(totals[-_LAST:])
    return (start, now) if abs(now - start) > _FACTOR * max(1.0, abs(start)) else None


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
        self._totals: list[float] = []
        self._stage = (0, "")

    def begin_stage(self, index: int, name: str) -> None:
        """The rows that follow belong to this stage; the drift is measured within it."""
        self._stage = (index, name)
        self._totals = [row["total"] for row in self.rows if row["stage_index"] == index]

    def record(
        self, step: int, figures: Mapping[str, Tensor], *, rate: float, batch: Mapping[str, Tensor]
    ) -> None:
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
        order = sorted(figures, key=lambda name: (name == "gradient_norm", name == "total"))
        for name in order:
            value = figures[name]
            if not math.isfinite(value) or (name == "total" and abs(value) > LARGEST_LOSS):
                raise DivergedError(
                    f"{where}: {_kind(name)} is {value:g}{_samples(pending.batch)}; no update was made "
                    f"from it; {_advice(pending)}"
                )
        self._totals.append(figures["total"])
        ran_away = drift(self._totals)
        if ran_away is not None:
            raise DivergedError(
                f"{where}: the loss drifted from {ran_away[0]:.4g} to {ran_away[1]:.4g}"
                f"{_samples(pending.batch)}; {_advice(pending)}"
            )


def _kind(name: str) -> str:
    if name == "gradient_norm":
        return "the norm of the gradient"
    return "the total loss" if name == "total" else f"term {name!r}"


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
