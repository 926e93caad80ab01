"""How much each of two losses counts: by a fixed weight, or by one that is learned with the net.

The piece for every method of two terms, a supervised loss L_s and another one L_u. What the forms do:

- fixed: w L_s + (1 - w) L_u. Choose w on validation data, or keep the balance that a method has from its paper.
- raw: the same with w = sigmoid(theta). The derivative by w is L_s - L_u whatever w is, so the term that is
  numerically smaller gains weight, for no better reason, until w is at its bound.
- normalised: each loss is first divided by its running mean. Both are then about 1, the derivative by w nearly
  vanishes, and w stays near its start: the terms are balanced by their sizes, not by what they are worth.
- uncertainty: L_s exp(-s) + s + L_u exp(-t) + t, each loss plus 0.05. It has a minimum inside, at s = log L_s and
  t = log L_u: the term that is small, so nearly fitted, is given more weight until both contribute alike. The w that is
  told is exp(-s) / (exp(-s) + exp(-t)). The total may fall below 0, which means nothing.

None of them knows which weight makes the better classifier; look at the curve, and compare with a fixed weight.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from berunda import losses
from berunda.methods.contract import BufferUpdate, Step, setting

__all__ = ["FORMS", "SIGNED_FORMS", "Weighted", "Weighting", "add_weighting", "joined", "rates_of", "weighting_setting"]

FORMS = ("fixed", "raw", "normalised", "uncertainty")
SIGNED_FORMS = ("fixed", "raw")
"""Those for methods with a loss that may be below 0: a running mean of it is no size to divide by, and the uncertainty
form has no minimum there."""
_NAME = "weighting"
_RATE = 10.0
"""Factor on the learning rate of what is learned here: a few numbers, which Adam moves by about the rate each step."""
_EDGE = 0.01
"""The raw and the normalised weight stay this far from 0 and 1, so that neither task is ever given up."""
_FLOOR = 0.05
"""Added to the losses of the uncertainty form, which so weighs none by more than 20, and whose total stays above -3."""
_DECAY = 0.99


def weighting_setting(forms: tuple[str, ...] = FORMS) -> Any:
    """Return the field by which a method lets its user choose one of `forms`, fixed if nothing is said."""
    return setting(
        "fixed",
        f"weight between supervised and unsupervised loss: fixed, or learned ({', '.join(forms[1:])})",
        valid=forms,
        source="Stoimchev et al. 2025 (SSL-MAE); uncertainty: Kendall et al. 2018, eq. 10",
    )


@dataclass(frozen=True)
class Weighted:
    """Two losses made one.

    Attributes:
        total: with gradient.
        terms: "weight", the share w of the supervised loss, for the log.
        updates: of the running means, for the loop.
    """

    total: Tensor
    terms: dict[str, Tensor]
    updates: dict[str, BufferUpdate]


def rates_of(form: str) -> tuple[tuple[str, float], ...]:
    """Return what a method with this form adds to `Needs.parameter_groups`."""
    return () if form == "fixed" else ((f"extra.{_NAME}", _RATE),)


def add_weighting(extra: nn.Module, form: str) -> nn.Module:
    """Return `extra`, with a `Weighting` in it if the weight is learned; `joined` finds it."""
    if form != "fixed":
        extra.add_module(_NAME, Weighting(form))
    return extra


def joined(extra: nn.Module, supervised: Tensor, unsupervised: Tensor, step: Step) -> Weighted:
    """Return L_s + L_u, or, if `extra` learns the weight, twice w L_s + (1 - w) L_u: the same while w is 0.5.

    For methods with a factor of their own on the unsupervised loss, which is in `unsupervised` already.
    """
    learned = getattr(extra, _NAME, None)
    if learned is None:
        return Weighted(supervised + unsupervised, {}, {})
    one: Weighted = learned(supervised, unsupervised, step)
    return replace(one, total=2 * one.total)


class Weighting(nn.Module):
    """One of `FORMS`, with the numbers that it learns and remembers; to be put into `extra` as "weighting".

    Args:
        form: one of `FORMS`.
        start: the weight w at the start, 0 to 1; the learned forms start within 0.02 to 0.98.
    """

    def __init__(self, form: str, start: float = 0.5) -> None:
        super().__init__()
        self.form, self.start = form, start if form == "fixed" else min(max(start, 2 * _EDGE), 1 - 2 * _EDGE)
        if form in ("raw", "normalised"):
            inner = (self.start - _EDGE) / (1 - 2 * _EDGE)
            self.theta = nn.Parameter(torch.tensor(math.log(inner / (1 - inner))))
        if form == "normalised":
            self.register_buffer("means", torch.zeros(2))
        if form == "uncertainty":
            self.scales = nn.Parameter(-torch.tensor([self.start, 1 - self.start]).log())

    def forward(self, supervised: Tensor, unsupervised: Tensor, step: Step) -> Weighted:
        """Return the two losses (scalars) as one."""
        if self.form == "fixed":
            return _weighted(torch.stack([supervised, unsupervised]), supervised.new_tensor(self.start))
        if self.form == "uncertainty":
            return self._uncertain(supervised, unsupervised)
        weight = _EDGE + (1 - 2 * _EDGE) * self.theta.sigmoid()
        pair = torch.stack([supervised, unsupervised])
        if self.form == "raw":
            return _weighted(pair, weight)
        means = self._running(pair.detach(), step)
        one = _weighted(pair / means.clamp(min=1e-6), weight)
        return replace(one, updates={f"{_NAME}.means": BufferUpdate(means)})

    def _uncertain(self, supervised: Tensor, unsupervised: Tensor) -> Weighted:
        precision = (-self.scales).exp()
        # Without a floor a loss of 0 (nothing labelled, nothing believed yet) would raise its weight without end.
        floor = _FLOOR * (precision.sum() - 1)
        # Less what the scales add up to at the start: a constant, by which the loss of nothing is nothing.
        excess = self.scales.sum() + math.log(self.start) + math.log(1 - self.start)
        total = precision[0] * supervised + precision[1] * unsupervised + floor + excess
        return Weighted(total, {"weight": (precision[0] / precision.sum()).detach()}, {})

    def _running(self, pair: Tensor, step: Step) -> Tensor:
        """Return the running means of both losses; a batch that shows nothing of one leaves that one as it was."""
        old = self.get_buffer("means")
        means = [losses.running_distribution(*two, step.index, _DECAY) for two in zip(old, pair, strict=True)]
        known = torch.stack(means)
        return torch.where((old > 0) | (pair <= 0), known, pair.to(old.dtype))


def _weighted(pair: Tensor, weight: Tensor) -> Weighted:
    """Return w L_s + (1 - w) L_u of `pair` (2,)."""
    return Weighted(weight * pair[0] + (1 - weight) * pair[1], {"weight": weight.detach()}, {})
