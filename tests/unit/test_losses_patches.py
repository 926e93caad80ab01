"""Losses on hidden patches against numpy twins; pixels that do not count; types."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from berunda import losses

N, M, B, Q = 2, 3, 4, 5


def np_patch_l1(guess, target, counted):
    errors = [
        abs(guess[n, m].reshape(B, Q)[b, q] - target[n, m].reshape(B, Q)[b, q])
        for n, m, q in zip(*np.nonzero(counted), strict=True)
        for b in range(B)
    ]
    return float(np.mean(errors)) if errors else 0.0


def np_normalised(patches, counted):
    result = np.zeros_like(patches)
    for n in range(N):
        for m in range(M):
            values = patches[n, m].reshape(B, Q)[:, counted[n, m]]
            if values.size:
                out = np.zeros((B, Q))
                out[:, counted[n, m]] = (values - values.mean()) / np.sqrt(values.var() + 1e-6)
                result[n, m] = out.reshape(-1)
    return result


def data() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    guess, target = (torch.randn(N, M, B * Q, generator=g, dtype=torch.float64) for _ in range(2))
    counted = torch.rand(N, M, Q, generator=g) > 0.4
    counted[1, 2] = False
    return guess, target, counted


def test_l1_against_its_twin() -> None:
    guess, target, counted = data()
    found = losses.patch_l1(guess, target, counted)
    assert found.item() == pytest.approx(np_patch_l1(*(x.numpy() for x in (guess, target, counted))))


def test_normalised_against_its_twin() -> None:
    _, target, counted = data()
    found = losses.normalised_patches(5 * target + 3, counted)
    np.testing.assert_allclose(found, np_normalised((5 * target + 3).numpy(), counted.numpy()), atol=1e-9)


def test_contrast_comes_back() -> None:
    _, target, _ = data()
    patches, everywhere = 5 * target + 3, torch.ones(N, M, Q, dtype=torch.bool)
    found = losses.with_contrast_of(patches, losses.normalised_patches(patches, everywhere))
    torch.testing.assert_close(found, patches)
    other = losses.with_contrast_of(patches, torch.zeros_like(patches))
    torch.testing.assert_close(other, patches.mean(2, keepdim=True).expand_as(patches))


def test_an_even_patch_stays_small() -> None:
    found = losses.normalised_patches(torch.full((1, 1, B * Q), 0.7), torch.ones(1, 1, Q, dtype=torch.bool))
    assert float(found.abs().max()) < 1e-3


def test_pixels_that_do_not_count_change_neither_value_nor_gradient() -> None:
    guess, target, counted = data()
    out = ~counted[:, :, None].expand(N, M, B, Q).flatten(2)
    for spoilt in (torch.nan, 1e9):
        shown = guess.clone().requires_grad_()
        wanted = losses.normalised_patches(target.masked_fill(out, spoilt), counted)
        assert torch.equal(wanted, losses.normalised_patches(target, counted))
        loss = losses.patch_l1(shown, target.masked_fill(out, spoilt), counted)
        assert torch.equal(loss, losses.patch_l1(guess, target, counted))
        loss.backward()
        assert not shown.grad[out].any()
        assert shown.grad[~out].all()


def test_nothing_to_count_is_no_loss() -> None:
    guess = data()[0].requires_grad_()
    loss = losses.patch_l1(guess, torch.full_like(guess, torch.nan), torch.zeros(N, M, Q, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert not guess.grad.any()


def test_halves_are_summed_in_full_precision() -> None:
    guess, target, counted = data()
    found = losses.patch_l1(guess.bfloat16(), target.bfloat16(), counted)
    assert found.dtype == torch.float32
