"""SegNet: pooling indices, shapes, padding, the second decoder, gradients, errors."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from berunda.errors import ConfigError
from berunda.models import build
from berunda.models.build import build_net
from berunda.models.frozen import to_training
from berunda.models.segnet import pool, unpool
from berunda.models.spec import NetSpec


def spec(**changes) -> NetSpec:
    settings = {"encoder": "vgg11_bn", "encoder_depth": 2, "pretrained": False, "decoder": "segnet", **changes}
    return NetSpec("segmentation", 4, 3, **settings)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_pooling_and_its_reverse_are_those_of_torch(dtype) -> None:
    x = torch.randn(2, 3, 8, 6, generator=torch.Generator().manual_seed(0)).relu().to(dtype)
    expected, flat = F.max_pool2d(x, 2, return_indices=True)
    pooled, place = pool(x)
    assert torch.equal(pooled, expected)
    assert place.dtype == torch.uint8
    assert torch.equal(unpool(pooled, place), F.max_unpool2d(expected.float(), flat, 2).to(dtype))


def test_gradients_of_the_reverse_are_right() -> None:
    x, place = pool(torch.randn(1, 2, 4, 4, dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda y: unpool(y, place), x.requires_grad_())


@pytest.mark.parametrize("shape", [(1, 1), (7, 9), (16, 20), (33, 32)])
@pytest.mark.parametrize("pixel_path", [False, True])
def test_any_size(shape, pixel_path) -> None:
    net = build_net(spec(pixel_path=pixel_path, encoder_depth=3)).eval()
    x = torch.randn(2, 4, *shape)
    decoded = net.decode(net.encode(x))
    assert decoded.shape == (2, net.feature_dim, *shape)
    assert net.feature_dim == 64 + (32 if pixel_path else 0)
    logits = net(x)
    assert logits.shape == (2, 3, *shape)
    assert torch.equal(net.restore(net.classify(decoded), x), logits)


def test_all_five_stages_of_vgg16() -> None:
    net = build_net(spec(encoder="vgg16_bn", encoder_depth=5))
    convolutions = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) == 13 + 13 + 1, "13 convolutions on the way down, as many up, and the classifier"
    assert net.eval()(torch.randn(1, 4, 40, 50)).shape == (1, 3, 40, 50)
    assert net.stride == 32


def test_padding_inside_equals_padding_outside() -> None:
    net = build_net(spec()).eval()
    x = torch.randn(1, 4, 13, 15)
    padded = F.pad(x, (0, 1, 0, 3), mode="replicate")
    torch.testing.assert_close(net(x), net(padded)[..., :13, :15])


def test_every_parameter_gets_a_gradient() -> None:
    net = build_net(spec(pixel_path=True))
    net(torch.randn(4, 4, 16, 16)).square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []


def test_the_decoder_puts_values_where_the_encoder_found_them() -> None:
    """Between stages only one of four places is filled: that of the largest value of the way down."""
    x = torch.randn(1, 2, 8, 8)
    pooled, place = pool(x)
    back = unpool(torch.ones_like(pooled), place)
    assert back.sum() == pooled.numel()
    torch.testing.assert_close((back * x).sum(), pooled.sum())


@pytest.mark.parametrize("encoder", ["efficientnet_lite0", "resnet18", "vgg16"])
def test_other_encoders_are_refused_with_what_to_do(encoder) -> None:
    with pytest.raises(ConfigError, match=r"decoder 'segnet'.*found encoder.*vgg16_bn"):
        build_net(spec(encoder=encoder))


@pytest.mark.parametrize("decoder", ["unet", "slim", "slim4", "segnet"])
@pytest.mark.parametrize("pixel_path", [False, True])
def test_the_second_decoder_reads_the_same_features_and_shares_nothing(decoder, pixel_path) -> None:
    net = build_net(spec(decoder=decoder, pixel_path=pixel_path))
    second = net.second_decoder(6)
    x = torch.randn(2, 4, 17, 20)
    features = net.encode(x)
    maps = second.restore(second.classify(second.decode(features)), x)
    assert maps.shape == (2, 6, 17, 20)
    mine, its = ({id(p) for p in module.parameters()} for module in (net, second))
    assert not mine & its
    assert not [name for name, _ in second.named_parameters() if name.startswith(("encoder", "pixel_path"))]
    maps.square().sum().backward()
    assert [name for name, p in second.named_parameters() if p.grad is None] == []
    touched = {name.split(".")[0] for name, p in net.named_parameters() if p.grad is not None}
    assert touched == {"encoder"}


def test_whole_images_have_no_second_decoder_for_pixels() -> None:
    net = build_net(NetSpec("scene", 4, 3, pretrained=False))
    assert not hasattr(net, "second_decoder")


@pytest.mark.parametrize("n_frozen", [0, 1, 2])
def test_frozen_stages_are_the_first_ones(n_frozen: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretrained weights are needed to freeze; random ones stand for them here."""
    real = build.build_pooling_encoder
    monkeypatch.setattr(build, "build_pooling_encoder", lambda name, **how: real(name, **{**how, "pretrained": False}))
    net = build_net(spec(pretrained=True, frozen_stages=n_frozen))
    trained = [any(p.requires_grad for p in stage.parameters()) for stage in net.encoder.stages]
    assert trained == [i >= n_frozen for i in range(2)]
    to_training(net)
    assert [stage.training for stage in net.encoder.stages] == trained
    net(torch.randn(2, 4, 16, 16)).sum().backward()
    assert all(p.grad is not None for p in net.parameters() if p.requires_grad)
