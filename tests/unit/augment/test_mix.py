"""CutMix and MixUp treat pixels, masks and labels alike."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from berunda.augment.mix import draw_cutmix, draw_mixup, draw_normal, draw_partners, draw_uniform
from berunda.ranks import among


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
    mix = draw_mixup((500,), generator(), alpha=0.75)
    assert mix.weight.min() >= 0.5
    assert mix.weight.max() <= 1
    x = torch.rand(500, 3, generator=generator(1))
    expected = mix.weight[:, None] * x + (1 - mix.weight[:, None]) * x[mix.partner]
    torch.testing.assert_close(mix.apply(x), expected)
    mask = torch.rand(500, generator=generator(2)) > 0.5
    assert torch.equal(mix.apply_mask(mask), mask & mask[mix.partner])


def test_mixup_is_drawn_from_its_generator():
    assert torch.equal(draw_mixup((9,), generator(4)).weight, draw_mixup((9,), generator(4)).weight)


class Slice:
    """One of two ranks that hold halves of `streams`; what is gathered comes from there."""

    size = 2

    def __init__(self, rank, whole):
        self.rank = rank
        self.whole = whole

    def sum(self, x):
        return x

    def gather(self, x):
        return next(part for part in self.whole if len(part) == 2 * len(x))


def test_mixup_of_several_streams_does_not_depend_on_the_slicing():
    streams = torch.rand(4, 3), torch.rand(8, 3)
    whole = draw_mixup((4, 8), generator()).apply(torch.cat(streams)).split((4, 8))
    for rank in range(2):
        halves = [stream.chunk(2)[rank] for stream in streams]
        with among(Slice(rank, streams)):
            mixed = draw_mixup((2, 4), generator()).apply(torch.cat(halves)).split((2, 4))
        for part, expected in zip(mixed, whole, strict=True):
            assert torch.equal(part, expected.chunk(2)[rank])


def test_draws_for_single_samples_do_not_depend_on_the_slicing():
    normal, uniform = draw_normal(torch.zeros(6, 2), generator()), draw_uniform((6, 2), generator())
    assert 0 <= float(uniform.min()) <= float(uniform.max()) < 1
    for rank in range(2):
        with among(Slice(rank, ())):
            assert torch.equal(draw_normal(torch.zeros(3, 2), generator()), normal.chunk(2)[rank])
            assert torch.equal(draw_uniform((3, 2), generator()), uniform.chunk(2)[rank])


def test_mixup_of_an_empty_stream():
    mix = draw_mixup((3, 0), generator())
    assert mix.apply(torch.rand(3, 2)).shape == (3, 2)
