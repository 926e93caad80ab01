"""Encoders: packaged weights, first convolution, errors."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from berunda.errors import ConfigError, FetchError, SecurityError
from berunda.models import encoders
from berunda.models.encoders import (
    adapt_first_convolution,
    build_encoder,
    packaged_weights,
    spectral_mixing,
)


def test_packaged_weights_match_timm_in_order_and_shape() -> None:
    model = timm.create_model("tf_efficientnet_lite0")
    stored = packaged_weights()
    wanted = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert len(stored) == 247
    assert [(k, v.shape) for k, v in stored.items()] == [(k, v.shape) for k, v in wanted.items()]
    # they agree in kind, not only in shape
    raw = [k for k in encoders._read_packaged(encoders._packaged_path()) if "num_batches" not in k]
    assert [k.rpartition(".")[2] for k in raw] == [k.rpartition(".")[2] for k in wanted]


def test_encoder_carries_the_packaged_weights_and_no_more_stages_than_asked() -> None:
    stored = packaged_weights()
    encoder = build_encoder("efficientnet_lite0", n_bands=3, depth=3, pretrained=True)
    state = {k: v for k, v in encoder.model.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert state.keys() < stored.keys()
    assert len(encoder.model.blocks) == 3
    for name, value in state.items():
        if name == "conv_stem.weight":  # three bands: only the gain for pixels of unit deviation
            torch.testing.assert_close(value, stored[name] * encoders._IMAGENET_STD / 0.5)
        else:
            assert torch.equal(value, stored[name]), name


def test_features_of_the_pruned_encoder_equal_timm() -> None:
    whole = timm.create_model("tf_efficientnet_lite0", features_only=True).eval()
    stored = packaged_weights()
    whole.load_state_dict({k: stored.get(k, v) for k, v in whole.state_dict().items()})
    encoder = build_encoder("efficientnet_lite0", n_bands=3, depth=3, pretrained=True).eval()
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    gain = encoders._IMAGENET_STD / 0.5
    for ours, theirs in zip(encoder(x)[1:], whole(gain * x)[:3], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n_bands", [1, 2, 3, 4, 10, 13])
def test_grey_images_give_the_response_of_grey_rgb(n_bands: int) -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(8, 3, 3, 3, generator=generator)
    grey = torch.randn(2, 1, 9, 9, generator=generator)
    adapted = adapt_first_convolution(weight, n_bands)
    assert adapted.shape == (8, n_bands, 3, 3)
    expected = torch.conv2d(grey.expand(-1, 3, -1, -1), weight)
    found = torch.conv2d(grey.expand(-1, n_bands, -1, -1), adapted)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_spectral_mixing_keeps_contrasts_between_the_ends_of_the_spectrum() -> None:
    assert torch.equal(spectral_mixing(3), torch.eye(3))
    mixing = spectral_mixing(10)
    assert (mixing >= 0).all()
    assert mixing[0, 0] > 0.3
    assert mixing[0, 6:].sum() == 0
    assert mixing[2, 9] > 0.3
    assert mixing[2, :4].sum() == 0


def test_damaged_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = tmp_path / "weights.pth"
    content = bytearray(encoders._packaged_path().read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    monkeypatch.setattr(encoders, "_packaged_path", lambda: damaged)
    with pytest.raises(SecurityError, match=r"sha256 .* found, 579344248a93e230\.\. expected"):
        packaged_weights()


def test_unknown_encoder_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="efficientnet_lite0"):
        build_encoder("eficientnet_lite0", n_bands=3, depth=3, pretrained=False)


def test_encoder_without_a_pyramid_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="does not give a pyramid"):
        build_encoder("vit_tiny_patch16_224", n_bands=3, depth=3, pretrained=False)


def test_weights_that_cannot_be_fetched_are_told_with_a_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants as hub

    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    with pytest.raises(FetchError, match=r"cannot be fetched.*--no-pretrained"):
        build_encoder("resnet18d.ra2_in1k", n_bands=4, depth=2, pretrained=True)


def test_a_hub_that_does_not_answer_is_asked_once_and_quietly(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import huggingface_hub.constants as hub

    asked: list[float] = []

    class Session:
        def head(self, url: str, *, timeout: float) -> None:
            asked.append(timeout)
            raise OSError("no route to host")

    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.utils.get_session", Session)
    with pytest.raises(FetchError) as caught:
        build_encoder("resnet18d.ra2_in1k", n_bands=4, depth=2, pretrained=True)
    assert asked == [10.0]
    assert caught.value.exit_code == 1
    assert hub.HF_HUB_OFFLINE is False
    assert caplog.records == []
