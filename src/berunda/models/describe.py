"""Images described by an encoder that is trained no further: the means of its features at every stage.

The coarse stages tell what is in an image, the fine ones its colours and texture, which the coarse ones were trained to
overlook. Appearance is both.
"""

from __future__ import annotations

import hashlib
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch

from berunda.models.build import build_net
from berunda.models.device import deterministic, resolve_device
from berunda.models.fold import fold_batch_norms
from berunda.models.spec import NetSpec

__all__ = ["Describer"]


class Describer:
    """Turns scaled images into feature vectors, in float32: the same batch gives the same bits, on CUDA too.

    Attributes:
        encoder: its name, as `berunda.models.encoders.build_encoder` takes it.
        stages: number of features of each stage, fine to coarse.
        device: where it computes.
        digest: sha256 of the weights: features of equal digests are of one encoder.

    Args:
        encoder: of any number of bands; multi-band images go through filters spread over their bands.
        n_bands: B.
        pretrained: with its pretrained weights; without, features are random projections.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        ConfigError: the encoder or the device is unknown.
        FetchError: its weights cannot be had on this machine.
    """

    def __init__(self, encoder: str, n_bands: int, *, pretrained: bool = True, device: str = "auto") -> None:
        self.encoder = encoder
        self.device = resolve_device(device)
        spec = NetSpec("scene", n_bands, 2, encoder, encoder_depth=5, pretrained=pretrained)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # for what an encoder without pretrained weights starts from
            net = build_net(spec).eval().requires_grad_(False)
        self.digest = _digest(net)
        fold_batch_norms(net)
        self._net: Any = net.to(self.device).to(memory_format=torch.channels_last)
        self.stages: tuple[int, ...] = tuple(int(n) for n in self._net.encoder.out_channels[1:])

    @torch.inference_mode()
    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Return features (n, D) float32 of scaled images (n, B, H, W) float32, D the sum of `stages`."""
        given = torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device, memory_format=torch.channels_last)
        with deterministic() if self.device.type == "cuda" else nullcontext():
            means = [features.mean((2, 3)) for features in self._net.encode(given)[1:]]
            described: np.ndarray = torch.cat(means, dim=1).float().cpu().numpy()
        return described


def _digest(net: torch.nn.Module) -> str:
    """Return a sha256 of names, shapes and values of the encoder's parameters and buffers."""
    found = hashlib.sha256()
    for name, tensor in sorted(net.encoder.state_dict().items()):  # type: ignore[union-attr]
        array = np.ascontiguousarray(tensor.cpu().numpy())
        found.update(f"{name}|{array.shape}|{array.dtype}".encode())
        found.update(array.data)
    return found.hexdigest()
