"""What compares two answers, against numpy twins; thresholds that wait for the undecided."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from berunda import losses


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5, 6)])
def test_squared_error_agrees_with_its_twin(shape: tuple[int, ...]) -> None:
    p, q = draw(*shape).softmax(1), draw(*shape, seed=1).softmax(1)
    mask = draw(shape[0], *shape[2:], seed=2) > 0
    picked = np.moveaxis((p.numpy() - q.numpy()) ** 2, 1, -1)[mask.numpy()]
    assert float(losses.squared_error_masked(p, q, mask)) == pytest.approx(picked.mean(), abs=1e-6)
    assert torch.autograd.gradcheck(lambda x: losses.squared_error_masked(x, q, mask), p.requires_grad_())
    assert losses.squared_error_masked(p, q, torch.zeros_like(mask)) == 0


def test_positions_are_pixels_of_maps_and_whole_images() -> None:
    valid = torch.zeros(2, 3, 3, dtype=torch.bool)
    valid[1, 2, 2] = True
    assert torch.equal(losses.positions_of(valid, torch.zeros(2, 4, 3, 3)), valid)
    assert losses.positions_of(valid, torch.zeros(2, 4)).tolist() == [False, True]


def test_thresholds_wait_while_most_are_undecided() -> None:
    counts = torch.tensor([4.0, 2.0])
    ease = np.array([4, 2]) / 8
    found = losses.flexible_thresholds(0.9, counts, torch.tensor(8.0))
    np.testing.assert_allclose(found.numpy(), 0.9 * ease / (2 - ease), atol=1e-6)
    assert torch.equal(losses.flexible_thresholds(0.9, counts, 1.0), losses.flexible_thresholds(0.9, counts))


def test_real_numbers_are_never_coarser_than_float32() -> None:
    assert losses.real(torch.zeros(1, dtype=torch.bfloat16)).dtype == torch.float32
    assert losses.real(torch.zeros(1, dtype=torch.float64)).dtype == torch.float64
