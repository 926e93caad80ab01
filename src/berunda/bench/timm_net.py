"""A whole timm net, of any architecture and with weights from a file, in the parts that methods ask for.

The house's encoders give pyramids of features; for whole images a net's own pooling will do, transformers included.
"""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from berunda.errors import ConfigError, DataError
from berunda.methods.contract import Method, Needs, NetSpec
from berunda.models.encoders import DEFAULT_ENCODER

__all__ = ["TimmNet", "load_weights", "takes_any_size", "with_weights"]

_N_MAPS = 3
"""Maps asked of a timm net; the last ones of them are pooled, those before tell methods of textures and objects."""
_TIMM_NAMES = {DEFAULT_ENCODER: "tf_efficientnet_lite0"}


class TimmNet(nn.Module):
    """`forward = classify(decode(encode(x)))`, pooled as timm has it; transformers take images of one size only.

    Attributes:
        feature_dim: channels D of what `decode` returns.
    """

    def __init__(self, name: str, n_bands: int, n_classes: int, size_px: int) -> None:
        super().__init__()
        self.encoder = _bare(name, n_bands, size_px)
        with torch.no_grad():
            self.encoder.eval()
            shown = torch.zeros(1, n_bands, size_px, size_px)
            self.feature_dim: int = self.encoder.forward_head(self.encoder.forward_features(shown)).shape[1]
            self.encoder.train()
        self.head = nn.Linear(self.feature_dim, n_classes)

    def encode(self, pixels: Tensor) -> list[Tensor]:
        """Return `pixels` (N, B, H, W), the maps before the last ones, and those pooled, (N, feature_dim, 1, 1).

        Architectures whose maps timm does not give have the pooled ones alone.
        """
        try:
            last, maps = self.encoder.forward_intermediates(pixels, indices=_N_MAPS)
        except AttributeError:
            last, maps = self.encoder.forward_features(pixels), []
        return [pixels, *maps[:-1], self.encoder.forward_head(last)[:, :, None, None]]

    def decode(self, features: list[Tensor]) -> Tensor:
        """Return the pooled features (N, feature_dim)."""
        return features[-1].flatten(1)

    def classify(self, decoded: Tensor) -> Tensor:
        """Return logits (N, n_classes)."""
        logits: Tensor = self.head(decoded)
        return logits

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits (N, n_classes) of `pixels` (N, B, H, W)."""
        return self.classify(self.encoder.forward_head(self.encoder.forward_features(pixels)))


def takes_any_size(name: str) -> bool:
    """Say whether timm's net `name` takes images of any size; most transformers take the one they were built for."""
    import timm

    known = timm.get_pretrained_cfg(_TIMM_NAMES.get(name, name))
    return known is None or not known.fixed_input_size


def _bare(name: str, n_bands: int, size_px: int) -> Any:
    """Return the timm net without its classifier; transformers are told the size of the images."""
    import timm

    settings: dict[str, Any] = {"pretrained": False, "num_classes": 0, "in_chans": n_bands}
    try:
        return timm.create_model(name, img_size=size_px, **settings)
    except TypeError:  # a convolutional net takes any size
        return timm.create_model(name, **settings)
    except RuntimeError as error:
        raise ConfigError(f"encoder {name!r}: timm cannot build it ({error}); name one that timm knows") from error


def load_weights(net: nn.Module, path: Path) -> None:
    """Load weights into a net; what the file holds beside (a classifier) is left out.

    Raises:
        ConfigError: it is no safetensors file.
        DataError: it lacks weights of the net, or they have other shapes.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        stored = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"weights {path}: cannot be read as safetensors ({error})") from error
    wanted = net.state_dict()
    unlike = [
        name
        for name, value in wanted.items()
        if not name.endswith("num_batches_tracked") and (name not in stored or stored[name].shape != value.shape)
    ]
    if unlike:
        raise DataError(
            f"weights {path}: {unlike[0]} is missing or of another shape, as are {len(unlike) - 1} more of "
            f"{len(wanted)}; expected those of this encoder"
        )
    net.load_state_dict({name: stored.get(name, value) for name, value in wanted.items()})


def with_weights(method: Method, weights: Path, encoder: str) -> Method:
    """Return `method` as it is, but for the net that it builds: a `TimmNet` of the encoder with these weights.

    Args:
        method: with its options.
        weights: safetensors file.
        encoder: the net's; where it takes images of one size only, a first look at all images does not enlarge them.
    """
    kind: Any = type(method)
    is_open = takes_any_size(encoder)

    def needs(self: Method) -> Needs:
        asked: Needs = kind.needs(self)
        return asked if is_open else replace(asked, first_survey_px=0)

    def build(self: Method, spec: NetSpec) -> nn.Module:
        del self
        name = _TIMM_NAMES.get(spec.encoder, spec.encoder)
        net = TimmNet(name, spec.n_bands, spec.n_classes, spec.crop_px)
        load_weights(net.encoder, weights)
        return net

    own = {"build": build, "needs": needs, "__module__": kind.__module__}
    pretrained: Any = type(kind.__name__, (kind,), own)
    found: Method = pretrained(**{item.name: getattr(method, item.name) for item in fields(method)})
    return found
