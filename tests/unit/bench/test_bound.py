"""The bound counts the images that a method declares and runs the method's own net on them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from berunda.bench.bound import images_per_step, measure_bound
from berunda.methods import make_method
from berunda.methods.contract import NetSpec
from berunda.methods.fixmatch import FixMatch
from berunda.train.config import TrainConfig


class _Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 4)
        self.seen: list[tuple[int, bool, bool]] = []

    def __deepcopy__(self, memo: dict[int, object]) -> _Counting:
        twin = _Counting()
        twin.seen = self.seen
        return twin

    def forward(self, pixels: Tensor) -> Tensor:
        assert pixels.is_contiguous(memory_format=torch.channels_last)
        self.seen.append((len(pixels), torch.is_grad_enabled(), self.training))
        return self.head(pixels.mean((2, 3)))


@dataclass(frozen=True)
class _Method(FixMatch):
    name: ClassVar[str] = "fixmatch"
    net: nn.Module = field(default_factory=_Counting)

    def build(self, spec: NetSpec) -> nn.Module:
        del spec
        return self.net


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("supervised", {}, (16, 0)),
        ("fixmatch", {"mu": 3.0}, (64, 48)),
        ("fixmatch", {"mu": 3.0, "q_from": "student"}, (112, 0)),
    ],
)
def test_images_follow_from_what_the_method_needs(
    name: str, options: dict[str, object], expected: tuple[int, int]
) -> None:
    found = images_per_step(make_method(name, options), 16)
    assert (found.trained, found.forward) == expected
    assert found.passes == pytest.approx(expected[0] + expected[1] / 3)


def test_the_bare_step_trains_and_looks_as_the_loop_does() -> None:
    method = _Method(mu=3.0)
    spec = NetSpec("scene", n_bands=3, n_classes=4, crop_px=8)
    bound = measure_bound(method, spec, TrainConfig(n_labelled=2, device="cpu"), repeats=1)
    assert set(method.net.seen) == {(8, True, True), (6, False, False)}
    assert bound.trained_s > 0
    assert bound.forward_s > 0
    assert bound.step_s == bound.trained_s + bound.forward_s
