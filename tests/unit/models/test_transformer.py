"""Vision transformers: timm's as a twin, patches, places, sizes; hidden patches are neither read nor computed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from berunda.errors import ConfigError, FetchError
from berunda.models import encoders
from berunda.models.build import build_net
from berunda.models.encoders import build_transformer, check_encoder_name
from berunda.models.patch_decoder import LinearGuess, PatchDecoder
from berunda.models.spec import NetSpec
from berunda.models.transformer import (
    TRANSFORMERS,
    VisionTransformer,
    images_of,
    patches_of,
    sine_positions,
    taken,
)

SMALL = (4, 16, 2, 2)


def small(n_bands: int = 3, image_px: int = 16) -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(n_bands, image_px, SMALL)


def timm_twin(n_bands: int, image_px: int) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer as Timm

    patch_px, width, depth, heads = SMALL
    torch.manual_seed(1)
    sizes = {"img_size": image_px, "patch_size": patch_px, "in_chans": n_bands}
    sizes |= {"embed_dim": width, "depth": depth, "num_heads": heads}
    return Timm(**sizes, class_token=False, global_pool="", num_classes=0)


def test_it_computes_what_timm_computes_from_the_same_weights() -> None:
    twin, encoder = timm_twin(5, 16), small(5)
    stored = twin.state_dict()
    encoder.load_timm(stored, stored["patch_embed.proj.weight"])
    x = torch.randn(2, 5, 16, 16)
    torch.testing.assert_close(encoder(x)[1].flatten(2).transpose(1, 2), twin.forward_features(x))


def test_weights_of_other_images_and_a_class_token_are_taken_over() -> None:
    twin = timm_twin(3, 32)
    stored = {**twin.state_dict()}
    plain = stored["pos_embed"]
    encoder, other = small(), small()
    encoder.load_timm(stored, stored["patch_embed.proj.weight"])
    other.load_timm({**stored, "pos_embed": torch.cat([plain[:, :1], plain], 1)}, stored["patch_embed.proj.weight"])
    x = torch.randn(1, 3, 16, 16)
    assert torch.equal(encoder(x)[1], other(x)[1])


@pytest.mark.parametrize(("size", "millions"), [("tiny", 5.5), ("small", 21.6), ("base", 85.6)])
def test_sizes_are_those_of_deit(size: str, millions: float) -> None:
    with torch.device("meta"):
        encoder = VisionTransformer(3, 224, TRANSFORMERS[f"vit_{size}_patch16"])
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)


def test_patches_lie_row_by_row_and_come_back() -> None:
    x = torch.arange(2 * 3 * 4 * 6).view(2, 3, 4, 6)
    patches = patches_of(x, 2)
    assert patches.shape == (2, 6, 12)
    assert torch.equal(patches[1, 4].view(3, 2, 2), x[1, :, 2:4, 2:4])
    assert torch.equal(images_of(patches, (2, 3), 2), x)
    places = torch.tensor([[5, 0], [1, 1]])
    assert torch.equal(taken(patches, places)[1, 0], patches[1, 1])


def test_positions_against_a_twin() -> None:
    width, grid = 8, (2, 3)
    found = sine_positions(width, grid).numpy()
    for row in range(2):
        for col in range(3):
            half = [[f(at * 10_000 ** (-k / 2)) for f in (math.sin, math.cos) for k in range(2)] for at in (row, col)]
            np.testing.assert_allclose(found[:, row, col], half[0] + half[1], rtol=1e-6)


def test_hidden_patches_are_not_read_and_others_are_as_if_alone() -> None:
    encoder = small().eval()
    x, seen = torch.randn(2, 3, 16, 16), torch.tensor([[3, 7, 9], [0, 15, 4]])
    tokens = encoder.attend(encoder.embed(x, seen))
    spoilt = torch.full_like(x, torch.nan)
    kept = patches_of(spoilt, 4).scatter(1, seen[:, :, None].expand(-1, -1, 48), taken(patches_of(x, 4), seen))
    assert torch.equal(tokens, encoder.attend(encoder.embed(images_of(kept, (4, 4), 4), seen)))
    swapped = encoder.attend(encoder.embed(x, seen.flip(1)))
    torch.testing.assert_close(tokens, swapped.flip(1))


def test_the_blocks_meet_visible_patches_only() -> None:
    encoder = small().eval()
    decoders = PatchDecoder(encoder, 1, 32), LinearGuess(encoder)
    met: list[int] = []
    encoder.blocks.register_forward_hook(lambda _, args, out: met.append(args[0].shape[1]))
    x, order = torch.randn(1, 3, 16, 16), torch.arange(16)[None]
    for decoder in decoders:
        tokens, guess = decoder(encoder, x, order[:, :4], order[:, 4:])
        assert tokens.shape == (1, 4, 16)
        assert guess.shape == (1, 12, 48)
    assert met == [4, 16]


@pytest.mark.parametrize("depth", [1, 3])
def test_leaving_out_what_nobody_reads_changes_no_guess(depth: int) -> None:
    encoder = small().eval()
    decoder = PatchDecoder(encoder, depth, 32).eval()
    x, order = torch.randn(2, 3, 16, 16), torch.stack([torch.randperm(16) for _ in range(2)])
    seen, hidden = order[:, :4], order[:, 4:]
    met: list[int] = []
    decoder.blocks[-1].mlp.register_forward_hook(lambda _, args, out: met.append(args[0].shape[1]))
    tokens, guess = decoder(encoder, x, seen, hidden)
    shown = decoder.narrow(tokens) + decoder.places((4, 4), seen)
    asked = decoder.mask_token + decoder.places((4, 4), hidden)
    every = decoder.blocks(torch.cat([shown, asked], 1))
    torch.testing.assert_close(guess, decoder.last(decoder.norm(every[:, 4:])))
    assert met == [12, 16]


@pytest.mark.parametrize("kind", ["attention", "linear"])
def test_a_guess_depends_on_place_and_on_what_is_visible(kind: str) -> None:
    encoder = small().eval()
    decoder = PatchDecoder(encoder, 1, 32) if kind == "attention" else LinearGuess(encoder)
    x, order = torch.randn(1, 3, 16, 16), torch.arange(16)[None]
    seen, hidden = order[:, :4], order[:, 4:]
    guess = decoder(encoder, x, seen, hidden)[1]
    assert not torch.allclose(guess[:, 0], guess[:, 1])
    other = x.clone()
    other[..., :4, :4] += 1.0
    assert not torch.allclose(guess, decoder(encoder, other, seen, hidden)[1])
    other = x.clone()
    other[..., 8:, 8:] = torch.nan
    assert torch.equal(guess, decoder(encoder, other, seen, hidden)[1])


def test_other_sizes_are_taken_by_interpolated_places() -> None:
    encoder = small()
    assert encoder(torch.randn(1, 3, 24, 40))[1].shape == (1, 16, 6, 10)
    wide = encoder.places((4, 4))
    assert torch.equal(wide, encoder.places.table.flatten(2).transpose(1, 2))
    assert not torch.equal(encoder.places((8, 8))[:, :16], wide)


def test_sizes_that_patches_do_not_divide_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"18 x 18 px, expected sides that patches of 4 px divide, such as 16, 20"):
        small(image_px=18)
    with pytest.raises(ConfigError, match="17 x 16"):
        small()(torch.zeros(1, 3, 16, 17))


@pytest.mark.parametrize("task", ["scene", "multilabel"])
@pytest.mark.parametrize("n_bands", [1, 13])
def test_house_net_offers_its_parts(task, n_bands: int) -> None:
    spec = NetSpec(task, n_bands, 5, encoder="vit_mini_patch16", pretrained=False, crop_px=32)
    net = build_net(spec).eval()
    x = torch.randn(2, n_bands, 32, 48)
    features = net.encode(x)
    assert [f.shape for f in features] == [(2, n_bands, 32, 48), (2, 192, 2, 3)]
    torch.testing.assert_close(net(x), net.classify(features[-1].flatten(2).mean(2)))
    with pytest.raises(ConfigError, match="33 px"):
        net(torch.zeros(1, n_bands, 33, 32))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "segmentation"}, "'vit_mini_patch16' is for whole images"),
        ({"pretrained": True, "frozen_stages": 1}, "frozen_stages is 1, expected 0"),
        ({"pretrained": True}, "no pretrained weights.*vit_tiny_patch16"),
        ({"crop_px": 100}, "100 x 100 px.*96, 112"),
    ],
)
def test_wrong_nets_are_refused(changes, message: str) -> None:
    fields = {"task": "scene", "n_bands": 3, "n_classes": 5, "pretrained": False, "crop_px": 32, **changes}
    with pytest.raises(ConfigError, match=message):
        build_net(NetSpec(**fields, encoder="vit_mini_patch16"))


def test_pretrained_weights_come_from_timm(monkeypatch) -> None:
    import timm

    made = timm.create_model("deit_tiny_patch16_224", pretrained=False)
    asked: list[tuple[str, bool]] = []

    def create(name: str, pretrained: bool) -> nn.Module:
        asked.append((name, pretrained))
        return made

    monkeypatch.setattr(timm, "create_model", create)
    monkeypatch.setattr("berunda.models.hub._answers", lambda: False)
    encoder = build_transformer("vit_tiny_patch16", 3, 224, pretrained=True)
    assert asked == [("deit_tiny_patch16_224.fb_in1k", True)]
    assert torch.equal(encoder.blocks[3].attn.qkv.weight, made.blocks[3].attn.qkv.weight)
    assert torch.equal(encoder.places.table[0, :, 0, 1], made.pos_embed[0, 2])
    patch = torch.randn(1, 3, 16, 16)
    torch.testing.assert_close(
        encoder.project(patch.flatten(1)), made.patch_embed.proj(patch).flatten(1), rtol=1e-4, atol=1e-5
    )


def test_weights_that_cannot_be_had_are_told(monkeypatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr("timm.create_model", fail)
    monkeypatch.setattr("berunda.models.hub._answers", lambda: False)
    with pytest.raises(FetchError, match=r"vit_small_patch16.*no route.*--no-pretrained"):
        build_transformer("vit_small_patch16", 3, 224, pretrained=True)


def test_names_are_known_and_misspelt_ones_are_told() -> None:
    for name in TRANSFORMERS:
        check_encoder_name(name)
    with pytest.raises(ConfigError, match="vit_mini_patch16"):
        check_encoder_name("vit_mini_patch17")
    assert set(encoders.DEIT_WEIGHTS) < set(TRANSFORMERS)
