"""What methods that hide patches have beside their loss: the encoder they need, what is hidden, what a pass costs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from berunda.augment.puzzle import draw_orders
from berunda.errors import ConfigError
from berunda.methods.contract import NetSpec
from berunda.models.transformer import TRANSFORMERS, VisionTransformer

__all__ = ["draw_hidden", "encoder_of", "masked_passes"]

_ENDS_SHARE, _BLOCK_SHARE = 0.04, 0.08
"""What the decoder's linear layers and one block of it cost, as shares of a pass of all patches through the encoder.

Of the smallest encoder, with a decoder of four heads; at a mask ratio of .75 the sum is what was measured (.37)."""


def masked_passes(mask_ratio: float, depth: int, n_heads: int) -> float:
    """Return what an image costs of a whole pass: its visible patches in the encoder, and all of them in the decoder.

    Of larger encoders the decoder is a smaller part: there this counts too much, and other methods get the longer runs.

    Args:
        mask_ratio: share of the patches that is hidden.
        depth: blocks of the decoder.
        n_heads: of the decoder, 32 features each.
    """
    width = n_heads / 4
    return 1 - mask_ratio + _ENDS_SHARE * width + _BLOCK_SHARE * depth * width**2


def draw_hidden(
    encoder: VisionTransformer, streams: list[Tensor], ratio: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return the places (N, K) of the visible patches and (N, M) of the hidden ones, of all images (n, B, H, W)."""
    rows, cols = encoder.grid_of(*streams[0].shape[2:])
    n_patches = rows * cols
    orders = torch.cat([draw_orders(len(x), n_patches, generator) for x in streams])
    n_hidden = min(max(1, round(ratio * n_patches)), n_patches - 1)
    return orders[:, n_hidden:], orders[:, :n_hidden]


def encoder_of(method: str, net: nn.Module, spec: NetSpec) -> VisionTransformer:
    """Return the net's transformer.

    Raises:
        ConfigError: it has none, or the images are of a single patch.
    """
    encoder = getattr(net, "encoder", None)
    if not isinstance(encoder, VisionTransformer):
        raise ConfigError(
            f"method '{method}': found encoder {spec.encoder!r}, expected one of patches: {', '.join(TRANSFORMERS)}; "
            "choose it by --encoder"
        )
    if encoder.grid == (1, 1):
        raise ConfigError(
            f"method '{method}': found images of {spec.crop_px} px, a single patch, expected at least "
            f"{2 * encoder.patch_px} px; choose larger --image-px or smaller patches"
        )
    return encoder
