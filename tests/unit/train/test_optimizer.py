"""Schedule and sharpness against plain arithmetic."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import nn

from berunda.train.optimizer import schedule, sharper_weights


def test_schedule_rises_then_falls_to_0() -> None:
    factors = [schedule(step, 100, 10) for step in range(100)]
    assert factors[:10] == [(step + 1) / 10 for step in range(10)]
    assert factors[10] == 1.0
    assert all(a > b for a, b in pairwise(factors[10:]))
    assert 0 < factors[-1] < 1e-3
    assert factors[55] == 0.5 * (1 + math.cos(math.pi / 2))


def test_schedule_of_very_short_stages() -> None:
    assert schedule(0, 1, 20) == 1.0
    assert [schedule(step, 2, 20) for step in range(2)] == [1.0, 1.0]
    assert all(schedule(step, 5, 0) > 0 for step in range(5))


def test_sharper_weights_go_up_the_gradient_by_rho_and_come_back() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(5, 3)
    layer(torch.randn(4, 5)).square().sum().backward()
    before = [p.detach().clone() for p in layer.parameters()]
    gradients = [p.grad.clone() for p in layer.parameters() if p.grad is not None]
    norm = math.sqrt(sum(float(g.double().square().sum()) for g in gradients))
    with sharper_weights(layer.parameters(), 0.1):
        assert all(p.grad is None for p in layer.parameters())
        for p, start, gradient in zip(layer.parameters(), before, gradients, strict=True):
            torch.testing.assert_close(p.detach(), start + 0.1 * gradient / norm)
    assert all(torch.equal(p, start) for p, start in zip(layer.parameters(), before, strict=True))
