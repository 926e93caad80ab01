"""Views keep what they promise for any number of bands."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from berunda.augment.views import RECIPES, Photometry, Recipe, change_photometry, make_view, recipe_named
from berunda.errors import ConfigError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int = 4, n_bands: int = 3, side: int = 16, seed: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    source = generator(seed)
    pixels = torch.randn(n, n_bands, side, side, generator=source)
    valid = torch.rand(n, side, side, generator=source) > 0.15
    return pixels.masked_fill(~valid[:, None], 0), valid


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("n_bands", [1, 4, 13])
def test_shapes_types_and_zeros(name, n_bands):
    pixels, valid = images(n_bands=n_bands)
    labels = torch.randint(-1, 4, valid.shape)
    view, valid_view, labels_view, geometry = make_view(pixels, valid, labels, name, generator())
    assert view.shape == pixels.shape
    assert view.isfinite().all()
    assert (view[~valid_view[:, None].expand_as(view)] == 0).all()
    assert torch.equal(valid_view, geometry.apply(valid))
    assert torch.equal(labels_view, geometry.apply(labels, -1))


def test_identity_is_the_identity():
    pixels, valid = images()
    view, valid_view, labels, _ = make_view(pixels, valid, None, "identity", generator())
    assert torch.equal(view, pixels)
    assert torch.equal(valid_view, valid)
    assert labels is None


def test_labels_of_whole_images_are_passed_on():
    pixels, valid = images()
    for labels in (torch.arange(4), torch.rand(4, 6)):
        assert make_view(pixels, valid, labels, "strong", generator())[2] is labels


@pytest.mark.parametrize("name", RECIPES)
def test_same_generator_same_bits_and_inputs_untouched(name):
    pixels, valid = images()
    before = pixels.clone()
    first = make_view(pixels, valid, None, name, generator(1))[0]
    assert torch.equal(first, make_view(pixels, valid, None, name, generator(1))[0])
    assert torch.equal(pixels, before)
    if name != "identity":
        assert not torch.equal(first, make_view(pixels, valid, None, name, generator(2))[0])


def test_a_given_geometry_is_used():
    pixels, valid = images()
    weak, valid_weak, _, geometry = make_view(pixels, valid, None, "weak", generator(1))
    gain = Recipe(turns=True, photometry=Photometry(gain=0.5))
    strong, valid_strong, _, same = make_view(pixels, valid, None, gain, generator(2), geometry=geometry)
    assert same is geometry
    assert torch.equal(valid_weak, valid_strong)
    ratio = (strong / weak).masked_fill(~valid_weak[:, None], float("nan"))
    spread = ratio.flatten(2).nan_to_num(-1).amax(2) - ratio.flatten(2).nan_to_num(99).amin(2)
    assert spread.abs().max() < 1e-4, "one gain a sample and band"


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31), spoil=st.sampled_from([float("nan"), float("inf"), 1e6]))
def test_invalid_pixels_influence_no_valid_one(seed, spoil):
    pixels, valid = images()
    spoilt = pixels.masked_fill(~valid[:, None], spoil)
    first = make_view(pixels, valid, None, "strong", generator(seed))[0]
    second = make_view(spoilt, valid, None, "strong", generator(seed))[0]
    assert torch.equal(first, second)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31), tone=st.floats(0.05, 1), spread=st.floats(0.1, 10))
def test_tone_keeps_the_order_of_values(seed, tone, spread):
    values = torch.linspace(-3, 3, 64, dtype=torch.float64).mul(spread).view(1, 1, 8, 8)
    valid = torch.ones(1, 8, 8, dtype=torch.bool)
    changed = change_photometry(values, valid, Photometry(tone=tone, probability=1), generator(seed))
    assert (changed.flatten().diff() > -1e-9).all()
    assert not torch.allclose(changed, values)


def test_blur_keeps_a_constant_and_the_edges_of_valid_ground():
    valid = torch.ones(3, 12, 12, dtype=torch.bool)
    valid[:, :5] = False
    pixels = torch.full((3, 2, 12, 12), 4.0).masked_fill(~valid[:, None], 0)
    blurred = change_photometry(pixels, valid, Photometry(blur=1, probability=1), generator())
    torch.testing.assert_close(blurred, pixels)


def test_blur_is_the_binomial_kernel():
    pixels = torch.zeros(1, 1, 9, 9, dtype=torch.float64)
    pixels[0, 0, 4, 4] = 1
    from berunda.augment.views import _binomial

    line = torch.tensor([1, 4, 6, 4, 1], dtype=torch.float64) / 16
    torch.testing.assert_close(_binomial(pixels)[0, 0, 2:7, 2:7], line[:, None] * line)
    corner = torch.zeros(2, 1, 6, 6, dtype=torch.float64)
    corner[0, 0, 5, 5] = 1
    assert _binomial(corner)[1].abs().max() == 0, "images of a batch do not touch"


def test_band_drop_always_leaves_a_band():
    pixels, valid = torch.ones(200, 4, 2, 2), torch.ones(200, 2, 2, dtype=torch.bool)
    changed = change_photometry(pixels, valid, Photometry(band_drop=1, probability=1), generator())
    assert (changed.amax(dim=(2, 3)).sum(1) == 1).all()


def test_noise_is_white_normal_and_independent_between_bands():
    pixels, valid = torch.zeros(64, 3, 32, 32), torch.ones(64, 32, 32, dtype=torch.bool)
    from berunda.augment.draws import Draws
    from berunda.augment.views import _noise

    noise = _noise(pixels, Draws(generator()))
    assert abs(float(noise.mean())) < 0.01
    assert abs(float(noise.std()) - 1) < 0.01
    correlation = torch.corrcoef(noise.permute(1, 0, 2, 3).reshape(3, -1))
    assert (correlation - torch.eye(3)).abs().max() < 0.02
    changed = change_photometry(pixels, valid, Photometry(noise=0.5, probability=1), generator())
    assert (changed.std(dim=(1, 2, 3)) < 0.55).all()
    assert changed.std(dim=(1, 2, 3)).diff().abs().max() > 0.05, "each sample draws its own"


def test_cutout_leaves_pixels_valid():
    pixels, valid = torch.ones(50, 2, 16, 16), torch.ones(50, 16, 16, dtype=torch.bool)
    recipe = Recipe(photometry=Photometry(cutout=0.5, probability=1))
    view, valid_view, _, _ = make_view(pixels, valid, None, recipe, generator())
    covered = (view == 0).float().mean(dim=(1, 2, 3))
    assert valid_view.all()
    assert covered.max() < 0.6
    assert covered.mean() > 0.1


def test_strength_scales_the_photometric_part_only():
    none = recipe_named("strong", 0)
    assert none.turns
    pixels, valid = images()
    geometry = none.draw_geometry((4, 16, 16), generator())
    view = make_view(pixels, valid, None, none, generator(), geometry=geometry)[0]
    torch.testing.assert_close(view, geometry.apply_masked(pixels, valid)[0])
    assert recipe_named("strong", 100).photometry.haze == 1
    assert recipe_named("strong", 2).photometry.gain == 2 * RECIPES["strong"].photometry.gain


def test_unknown_recipe_is_refused():
    with pytest.raises(ConfigError, match="expected one of identity, weak, medium, strong"):
        recipe_named("huge")


def test_samples_differ_and_global_state_is_untouched():
    pixels, valid = torch.ones(8, 3, 16, 16), torch.ones(8, 16, 16, dtype=torch.bool)
    before = torch.random.get_rng_state()
    view = make_view(pixels, valid, None, "strong", generator())[0]
    assert torch.equal(before, torch.random.get_rng_state())
    assert len({round(float(x), 5) for x in view.sum(dim=(1, 2, 3))}) == 8


def test_no_samples():
    view = make_view(torch.zeros(0, 3, 8, 8), torch.zeros(0, 8, 8, dtype=torch.bool), None, "strong", generator())
    assert view[0].shape == (0, 3, 8, 8)
