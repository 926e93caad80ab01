"""The moving average against numpy, and frozen statistics."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn

from berunda.models.frozen import frozen_statistics
from berunda.models.teacher import Averaged, averaging_decay


class Extra(nn.Module):
    level: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.register_buffer("level", torch.zeros(2))


def _net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4))


def test_average_equals_numpy() -> None:
    torch.manual_seed(0)
    net, extra = _net(), Extra()
    averaged = Averaged(net, extra, 0.9)
    expected = {k: v.double().numpy().copy() for k, v in averaged.state_dict().items()}
    for step in range(30):
        net(torch.randn(5, 2, 8, 8))
        with torch.no_grad():
            for parameter in [*net.parameters(), *extra.parameters()]:
                parameter.add_(torch.randn_like(parameter))
        extra.level.copy_(torch.randn(2))
        averaged.update(net, extra, step)
        decay = min(0.9, (1 + step) / (10 + step))
        assert averaging_decay(0.9, step) == decay
        source = {f"net.{k}": v for k, v in net.state_dict().items()}
        source |= {f"extra.{k}": v for k, v in extra.state_dict().items()}
        for name, value in source.items():
            new = value.detach().double().numpy()
            copied = name in ("extra.level", "net.1.num_batches_tracked")
            expected[name] = new if copied else decay * expected[name] + (1 - decay) * new
    for name, value in averaged.state_dict().items():
        np.testing.assert_allclose(value.double().numpy(), expected[name], rtol=1e-4, atol=1e-5, err_msg=name)
    assert (averaged.net[1].running_var > 0).all()


def test_average_is_in_eval_mode_without_gradient_and_apart_from_the_net() -> None:
    net = _net()
    averaged = Averaged(net, nn.Module(), 0.9)
    averaged.train()
    assert not averaged.training
    assert not any(module.training for module in averaged.modules())
    assert not any(parameter.requires_grad for parameter in averaged.parameters())
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert averaged.net[0].weight.data_ptr() != net[0].weight.data_ptr()


def test_buffers_that_are_replaced_or_written_are_copied() -> None:
    net, extra = _net(), Extra()
    averaged = Averaged(net, extra, 0.9)
    for step in range(20):
        if step % 2:
            extra.level = torch.full((2,), float(step))
        else:
            extra.level.fill_(float(step))
        averaged.update(net, extra, step)
        assert averaged.extra.level.tolist() == [step, step]


def test_frozen_statistics_leave_no_trace_but_use_the_batch() -> None:
    net = _net()
    x = torch.randn(5, 2, 8, 8) * 3 + 1
    before = copy.deepcopy(net.state_dict())
    expected = copy.deepcopy(net)(x)
    with frozen_statistics(net):
        found = net(x)
    assert torch.equal(found, expected)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    net(x)
    assert not torch.equal(net[1].running_mean, before["1.running_mean"])
