"""Schedule and sharpness against plain arithmetic."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn

from berunda.api.scene_recipe import recipe_of
from berunda.errors import ConfigError
from berunda.options.train import TrainOptions
from berunda.train.config import TrainConfig
from berunda.train.optimizer import build_optimizer, schedule, sharper_weights


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


@pytest.mark.parametrize(("total", "warmup"), [(75, 7), (2000, 100), (5, 0)])
def test_the_rise_takes_at_most_its_share(total: int, warmup: int) -> None:
    factors = [schedule(step, total, 100, 0.1) for step in range(total)]
    assert factors[:warmup] == [(step + 1) / warmup for step in range(warmup)]
    assert factors[warmup] == 1.0
    assert all(a > b for a, b in pairwise(factors[warmup:]))


def test_transformers_forget_squared_gradients_sooner_and_warm_up_for_a_tenth() -> None:
    configs = {
        encoder: recipe_of(TrainOptions(dataset="x", encoder=encoder)).train_config(
            TrainOptions(dataset="x", encoder=encoder, steps=75), seed=0
        )
        for encoder in ("vit_mini_patch16", "efficientnet_lite0")
    }
    groups = {name: build_optimizer(nn.Linear(2, 2), config, ()).param_groups for name, config in configs.items()}
    assert {name: group["betas"] for name, (group, *_) in groups.items()} == {
        "vit_mini_patch16": (0.9, 0.95),
        "efficientnet_lite0": (0.9, 0.999),
    }
    assert (configs["vit_mini_patch16"].warmup_share, configs["efficientnet_lite0"].warmup_share) == (0.1, 0.5)


@pytest.mark.parametrize("changes", [{"betas": (0.9, 1.0)}, {"warmup_share": -0.1}, {"ema_decay": 1.0}])
def test_shares_outside_their_range_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected at least 0 and below 1"):
        TrainConfig(**changes)


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
