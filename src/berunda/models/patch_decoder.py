"""What guesses the pixels of hidden patches from what a vision transformer says of the visible ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from berunda.models.transformer import Places, VisionTransformer, attention_blocks, images_of, patches_of, spread_evenly

__all__ = ["LinearGuess", "PatchDecoder", "fill_patches"]

_HEAD_WIDTH = 32


class PatchDecoder(nn.Module):
    """Attention over visible tokens and mask tokens, narrower and much shallower than the encoder, then a linear layer.

    The encoder computes visible patches alone, which is what makes a step cheap.

    Source: He et al. 2022 (masked autoencoders), section 3.

    Args:
        encoder: whose tokens it reads.
        depth: attention blocks, at least 1: a lone linear layer on mask tokens would see no context.
        width: of its tokens, a multiple of 32.
    """

    def __init__(self, encoder: VisionTransformer, depth: int, width: int) -> None:
        super().__init__()
        self.narrow = nn.Linear(encoder.width, width)
        self.mask_token = nn.Parameter(0.02 * torch.randn(width))
        self.places = Places(width, encoder.grid)
        self.blocks = attention_blocks(width, depth, width // _HEAD_WIDTH)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.last = nn.Linear(width, encoder.project.in_features)
        self.apply(spread_evenly)

    def forward(
        self, encoder: VisionTransformer, pixels: Tensor, seen: Tensor, hidden: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the encoder's tokens of the visible patches, and a guess of the hidden ones.

        Args:
            encoder: the one it was made for, or its average.
            pixels: (N, B, H, W); what lies in hidden patches is not read.
            seen: (N, K) int64, places of the visible patches.
            hidden: (N, M) int64, places of the hidden ones.

        Returns:
            tokens (N, K, D) and patches (N, M, B * P * P).
        """
        grid = encoder.grid_of(*pixels.shape[2:])
        tokens = encoder.attend(encoder.embed(pixels, seen))
        shown = self.narrow(tokens) + self.places(grid, seen)
        asked = self.mask_token + self.places(grid, hidden)
        guessed = _through(self.blocks, torch.cat([shown, asked.to(shown.dtype)], dim=1), seen.shape[1])
        return tokens, self.last(self.norm(guessed))


def _through(blocks: nn.Sequential, tokens: Tensor, start: int) -> Tensor:
    """Return what attention blocks make of the tokens from `start` on.

    All tokens are looked at in every block, but behind the attention of the last one only those that are returned are
    computed: nobody reads the others.
    """
    *first, last = blocks
    for block in first:
        tokens = block(tokens)
    end: Any = last
    tokens = tokens + end.drop_path1(end.ls1(end.attn(end.norm1(tokens))))
    asked = tokens[:, start:]
    through: Tensor = asked + end.drop_path2(end.ls2(end.mlp(end.norm2(asked))))
    return through


class LinearGuess(nn.Module):
    """A linear layer on mask tokens that went through the encoder: no decoder to train, but a step at full cost.

    Source: Xie et al. 2022 (SimMIM), section 3.3.
    """

    def __init__(self, encoder: VisionTransformer) -> None:
        super().__init__()
        self.mask_token = nn.Parameter(0.02 * torch.randn(encoder.width))
        self.last = nn.Linear(encoder.width, encoder.project.in_features)
        self.apply(spread_evenly)

    def forward(
        self, encoder: VisionTransformer, pixels: Tensor, seen: Tensor, hidden: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return what `PatchDecoder.forward` returns."""
        shown = encoder.embed(pixels, seen)
        asked = self.mask_token + encoder.places(encoder.grid_of(*pixels.shape[2:]), hidden)
        tokens = encoder.attend(torch.cat([shown, asked.to(shown.dtype)], dim=1))
        n_seen = seen.shape[1]
        return tokens[:, :n_seen], self.last(tokens[:, n_seen:])


def fill_patches(
    encoder: VisionTransformer,
    decoder: PatchDecoder | LinearGuess,
    pixels: Tensor,
    known: Tensor,
    finish: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    """Return `pixels` with a guess of each patch that is not wholly known; one image after the other.

    Args:
        encoder: of the net.
        decoder: that was trained with it.
        pixels: (N, B, H, W).
        known: (N, H, W) bool; each image may have its own number of patches to guess.
        finish: makes of the hidden patches (1, M, D), as they are, and their guess what is shown; None for the guess.

    Returns:
        (N, B, H, W): `pixels` where known; NaN elsewhere in an image without a single patch that is.
    """
    grid, side = encoder.grid_of(*pixels.shape[2:]), encoder.patch_px
    filled = []
    for image, seen_by in zip(pixels, known, strict=True):
        whole = patches_of(seen_by[None, None], side)[0].all(1)
        seen, hidden = whole.nonzero()[:, 0], (~whole).nonzero()[:, 0]
        patches = patches_of(image[None], side)
        if not len(seen):
            patches = torch.full_like(patches, torch.nan)
        elif len(hidden):
            guess = decoder(encoder, image[None], seen[None], hidden[None])[1]
            guess = guess if finish is None else finish(patches[:, hidden], guess)
            patches = patches.index_copy(1, hidden, guess.to(patches.dtype))
        filled.append(torch.where(seen_by, image, images_of(patches, grid, side)[0]))
    return torch.stack(filled)
