"""Wide residual nets: sizes, strides, scale of the activations, and errors."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from berunda.errors import ConfigError
from berunda.models.build import build_net
from berunda.models.encoders import build_encoder, check_encoder_name
from berunda.models.fold import fold_batch_norms
from berunda.models.spec import NetSpec
from berunda.models.wide_resnet import WIDE_RESNETS


def encoder_of(name: str, *, n_bands: int = 3, depth: int = 2) -> nn.Module:
    torch.manual_seed(0)
    return build_encoder(name, n_bands=n_bands, depth=depth, pretrained=False)


@pytest.mark.parametrize(
    ("name", "millions", "n_blocks"),
    [("wide_resnet28_2", 1.47, 12), ("wide_resnet28_10", 36.5, 12), ("wide_resnet10_1", 0.078, 3)],
)
def test_size_is_the_published_one(name: str, millions: float, n_blocks: int) -> None:
    with torch.device("meta"):
        net = build_net(NetSpec("scene", 3, 10, encoder=name, encoder_depth=2, pretrained=False))
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(millions, rel=0.05)
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(convolutions) == 1 + 2 * n_blocks


@pytest.mark.parametrize("name", ["wide_resnet28_2", "wide_resnet28_2_no_norm"])
@pytest.mark.parametrize("n_bands", [1, 13])
def test_pyramid_has_the_strides_that_depth_says(name: str, n_bands: int) -> None:
    for depth, channels in ((2, [64, 128]), (3, [32, 64, 128])):
        encoder = encoder_of(name, n_bands=n_bands, depth=depth).eval()
        assert encoder.out_channels == [n_bands, *channels]
        features = encoder(torch.randn(2, n_bands, 16, 24))
        assert [x.shape[1:] for x in features[1:]] == [
            (c, 16 // 2**i, 24 // 2**i) for i, c in enumerate(channels, start=1)
        ]


@pytest.mark.parametrize("name", ["wide_resnet28_2", "wide_resnet28_2_no_norm", "wide_resnet10_1_no_norm"])
def test_activations_keep_the_scale_of_the_input(name: str) -> None:
    encoder = encoder_of(name)
    last = encoder(torch.randn(8, 3, 32, 32))[-1].detach()
    assert 0.2 < float(last.std()) < 2


@pytest.mark.parametrize("name", ["wide_resnet28_2", "wide_resnet28_2_no_norm"])
@pytest.mark.parametrize("task", ["scene", "segmentation"])
def test_every_parameter_gets_a_gradient(name: str, task) -> None:
    net = build_net(NetSpec(task, 4, 3, encoder=name, encoder_depth=3, pretrained=False))
    net(torch.randn(2, 4, 32, 32)).square().sum().backward()
    assert [key for key, p in net.named_parameters() if p.grad is None] == []


def test_no_norm_means_no_norm_and_no_memory_of_the_batch() -> None:
    encoder = encoder_of("wide_resnet28_2_no_norm")
    assert not any(isinstance(m, nn.BatchNorm2d) for m in encoder.modules())
    x = torch.randn(3, 3, 16, 16)
    torch.testing.assert_close(encoder(x)[-1][:1], encoder(x[:1])[-1])
    normed = encoder_of("wide_resnet28_2")
    assert sum(isinstance(m, nn.BatchNorm2d) for m in normed.modules()) == 2 * 12 + 1


def test_folding_batch_norms_keeps_the_function() -> None:
    encoder = encoder_of("wide_resnet28_2")
    with torch.no_grad():
        for _ in range(3):
            encoder(torch.randn(4, 3, 16, 16))
        x = torch.randn(2, 3, 16, 16)
        expected = encoder.eval()(x)[-1]
        fold_batch_norms(encoder)
        torch.testing.assert_close(encoder(x)[-1], expected, rtol=1e-4, atol=1e-5)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in encoder.modules()) == 12 + 1


@pytest.mark.parametrize("depth", [1, 4, 5])
def test_other_depths_are_refused(depth: int) -> None:
    with pytest.raises(ConfigError, match=f"'wide_resnet28_2' with encoder_depth {depth}: expected 2 .* or 3"):
        encoder_of("wide_resnet28_2", depth=depth)


def test_pretrained_weights_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"no pretrained weights of it; use --no-pretrained"):
        build_encoder("wide_resnet28_10", n_bands=3, depth=2, pretrained=True)


def test_names_are_known_and_offered() -> None:
    for name in WIDE_RESNETS:
        check_encoder_name(name)
    with pytest.raises(ConfigError, match=r"such as .*wide_resnet28_2"):
        check_encoder_name("wide_resnet_28_2")
