"""CutMix and MixUp treat pixels, masks and labels alike."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from berunda.augment.mix import draw_cutmix, draw_mixup, draw_partners


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(deadline=None, max_examples=30)
@given(n=st.integers(2, 40), seed=st.integers(0, 2**31))
def test_partners_are_a_permutation_without_fixed_points(n, seed):
    partner = draw_partners(n, generator(seed))
    assert sorted(partner.tolist()) == list(range(n))
    assert (partner != torch.arange(n)).all()


@pytest.mark.parametrize("n", [0, 1])
def test_few_samples(n):
    mix = draw_cutmix((n, 8, 8), generator())
    assert torch.equal(mix.apply(torch.ones(n, 3, 8, 8)), torch.ones(n, 3, 8, 8))


def test_cutmix_moves_pixels_and_labels_alike():
    labels = torch.randint(0, 9, (6, 16, 16), generator=generator(1))
    mix = draw_cutmix((6, 16, 16), generator())
    mixed = mix.apply(labels)
    assert torch.equal(mix.apply(labels[:, None].float())[:, 0].long(), mixed)
    assert torch.equal(mixed[~mix.box], labels[~mix.box])
    assert torch.equal(mixed[mix.box], labels[mix.partner][mix.box])


def test_boxes_are_rectangles_of_the_share_asked_for():
    box = draw_cutmix((300, 40, 40), generator(), share=(0.2, 0.4)).box
    share = box.float().mean(dim=(1, 2))
    assert share.min() > 0.15
    assert share.max() < 0.45
    outer = box.any(2)[:, :, None] & box.any(1)[:, None, :]
    assert torch.equal(outer, box)


def test_probability_spares_samples():
    touched = draw_cutmix((400, 8, 8), generator(), probability=0.25).box.flatten(1).any(1).float().mean()
    assert 0.15 < float(touched) < 0.35


def test_mixup_keeps_the_own_sample_dominant():
    mix = draw_mixup(500, generator(), alpha=0.75)
    assert mix.weight.min() >= 0.5
    assert mix.weight.max() <= 1
    x = torch.rand(500, 3, generator=generator(1))
    expected = mix.weight[:, None] * x + (1 - mix.weight[:, None]) * x[mix.partner]
    torch.testing.assert_close(mix.apply(x), expected)
    mask = torch.rand(500, generator=generator(2)) > 0.5
    assert torch.equal(mix.apply_mask(mask), mask & mask[mix.partner])


def test_mixup_is_drawn_from_its_generator():
    assert torch.equal(draw_mixup(9, generator(4)).weight, draw_mixup(9, generator(4)).weight)
