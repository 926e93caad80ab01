"""Folded batch norms: the same function, up to the order of sums."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from berunda.methods import make_method
from berunda.methods.contract import NetSpec
from berunda.models.build import build_net
from berunda.models.fold import fold_batch_norms


def shaken(module: nn.Module) -> nn.Module:
    """Give all norms statistics and weights of their own."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.running_mean, 0, 0.2)
            nn.init.uniform_(norm.running_var, 0.5, 2)
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.normal_(norm.bias, 0, 0.2)
    return module.eval()


def n_norms(module: nn.Module) -> int:
    return sum(isinstance(part, nn.BatchNorm2d) for part in module.modules())


@pytest.mark.parametrize("decoder", ["slim", "unet"])
def test_the_house_nets_compute_the_same_without_any_norm(decoder):
    torch.manual_seed(0)
    spec = NetSpec("segmentation", 5, 4, encoder_depth=3, pretrained=False, pixel_path=True, decoder=decoder)
    net = shaken(build_net(spec)).double()
    folded = copy.deepcopy(net)
    fold_batch_norms(folded)
    pixels = torch.randn(2, 5, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(folded(pixels), net(pixels), rtol=1e-9, atol=1e-9)
    assert n_norms(folded) == 0 < n_norms(net)


def test_the_classifiers_of_cotrain_compute_the_same():
    torch.manual_seed(0)
    spec = NetSpec("segmentation", 5, 4, encoder_depth=2, pretrained=False)
    extra = shaken(make_method("cotrain", {}).init(build_net(spec), spec)).double()
    folded = copy.deepcopy(extra)
    fold_batch_norms(folded)
    pixels = torch.randn(1, 5, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(folded.spectrum(pixels), extra.spectrum(pixels), rtol=1e-9, atol=1e-9)
    assert n_norms(folded) == 0


def test_norms_in_unknown_order_stay():
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)
            self.norm = nn.BatchNorm2d(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(self.norm(x))

    odd = shaken(Odd())
    folded = copy.deepcopy(odd)
    fold_batch_norms(folded)
    pixels = torch.randn(1, 3, 4, 4)
    torch.testing.assert_close(folded(pixels), odd(pixels), rtol=0, atol=0)
