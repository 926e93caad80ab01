"""Nets: shapes for any bands and sizes, composition, the pixel path, gradients."""

from __future__ import annotations

import pytest
import torch

from berunda.errors import ConfigError
from berunda.models.build import build_net
from berunda.models.spec import Decoder, NetSpec


@pytest.mark.parametrize("n_bands", [1, 3, 4, 10, 13])
def test_dense_net_takes_any_number_of_bands(n_bands: int) -> None:
    net = build_net(NetSpec("segmentation", n_bands, 5)).eval()
    assert net(torch.randn(2, n_bands, 16, 24)).shape == (2, 5, 16, 24)


@pytest.mark.parametrize("shape", [(1, 1), (7, 9), (16, 17), (64, 64)])
@pytest.mark.parametrize("pixel_path", [False, True])
@pytest.mark.parametrize("decoder", ["unet", "slim", "slim4"])
def test_dense_net_takes_any_size(shape: tuple[int, int], pixel_path: bool, decoder: Decoder) -> None:
    net = build_net(NetSpec("segmentation", 4, 3, pretrained=False, pixel_path=pixel_path, decoder=decoder)).eval()
    x = torch.randn(2, 4, *shape)
    decoded = net.decode(net.encode(x))
    scale = net.decoded_stride
    assert scale == {"unet": 1, "slim": 2, "slim4": 4}[decoder]
    assert decoded.shape[:2] == (2, net.feature_dim)
    assert [scale * cells >= px for cells, px in zip(decoded.shape[2:], shape, strict=True)] == [True, True]
    assert net.feature_dim == (64 if pixel_path else 32)
    logits = net(x)
    assert logits.shape == (2, 3, *shape)
    assert torch.equal(net.restore(net.classify(decoded), x), logits)


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_every_depth(depth: int) -> None:
    net = build_net(NetSpec("segmentation", 3, 2, encoder_depth=depth, pretrained=False)).eval()
    assert net.stride == 2**depth
    assert len(net.encode(torch.randn(1, 3, 32, 32))) == depth + 1
    assert net(torch.randn(1, 3, 40, 33)).shape == (1, 2, 40, 33)


def test_padding_inside_equals_padding_outside() -> None:
    net = build_net(NetSpec("segmentation", 3, 2)).eval()
    x = torch.randn(1, 3, 13, 15)
    padded = torch.nn.functional.pad(x, (0, 1, 0, 3), mode="replicate")
    torch.testing.assert_close(net(x), net(padded)[..., :13, :15])


@pytest.mark.parametrize("task", ["scene", "multilabel"])
def test_whole_image_nets(task: str) -> None:
    net = build_net(NetSpec(task, 13, 10, encoder_depth=5)).eval()  # type: ignore[arg-type]
    x = torch.randn(3, 13, 64, 64)
    decoded = net.decode(net.encode(x))
    assert decoded.shape == (3, net.feature_dim) == (3, 320)
    assert net(x).shape == (3, 10)


@pytest.mark.parametrize("encoder", ["resnet18", "mobilenetv3_small_050", "convnext_atto"])
def test_other_timm_encoders(encoder: str) -> None:
    for decoder in ("unet", "slim"):
        net = build_net(NetSpec("segmentation", 6, 4, encoder=encoder, pretrained=False, decoder=decoder)).eval()
        assert net(torch.randn(1, 6, 32, 40)).shape == (1, 4, 32, 40)


@pytest.mark.parametrize("task", ["segmentation", "scene"])
def test_every_parameter_gets_a_gradient(task: str) -> None:
    net = build_net(NetSpec(task, 4, 3, pixel_path=task == "segmentation"))  # type: ignore[arg-type]
    net(torch.randn(4, 4, 32, 32)).square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []


def test_training_in_bfloat16_keeps_encoder_and_logits_in_float32() -> None:
    net = build_net(NetSpec("segmentation", 4, 3))
    x = torch.randn(2, 4, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        features = net.encode(x)
        decoded = net.decode(features)
        logits = net.classify(decoded)
        with torch.no_grad():
            assert net.encode(x)[-1].dtype == torch.bfloat16
    assert features[-1].dtype == torch.float32
    assert decoded.dtype == torch.bfloat16
    assert logits.dtype == torch.float32
    logits.sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in net.parameters())


def test_pixel_path_sees_each_pixel_alone() -> None:
    net = build_net(NetSpec("segmentation", 4, 3, pretrained=False, pixel_path=True)).eval()
    x = torch.randn(1, 4, 16, 16)
    y = x.clone()
    y[..., 5, 7] += 1
    change = (net.pixel_path(y) - net.pixel_path(x)).abs().sum((0, 1))
    assert change[5, 7] > 0
    change[5, 7] = 0
    assert change.sum() == 0


def test_all_faults_of_a_spec_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as raised:
        build_net(NetSpec("scene", 0, 1, encoder_depth=6, pixel_path=True))
    for field in ("n_bands", "n_classes", "encoder_depth", "pixel_path"):
        assert field in str(raised.value)


def test_pretrained_activations_keep_their_scale_on_standardised_bands() -> None:
    """Correlated bands of unit deviation meet the stored batch-norm statistics within a factor of two."""
    generator = torch.Generator().manual_seed(0)
    common = torch.nn.functional.interpolate(torch.randn(8, 1, 16, 16, generator=generator), size=64, mode="bicubic")
    for n_bands in (1, 3, 10):
        x = common + 0.3 * torch.randn(8, n_bands, 64, 64, generator=generator)
        stem = build_net(NetSpec("segmentation", n_bands, 2)).eval().encoder.model
        with torch.no_grad():
            deviation = stem.conv_stem(x / x.std()).std((0, 2, 3))
        ratio = (deviation / stem.bn1.running_var.sqrt()).median()
        assert 0.5 < ratio < 2, (n_bands, float(ratio))
