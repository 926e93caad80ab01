"""Vision transformers in DeiT's sizes that compute visible patches only, for any number of bands."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from berunda.errors import ConfigError

__all__ = ["TRANSFORMERS", "VisionTransformer", "images_of", "patches_of", "sine_positions", "taken", "undivided"]

_PATCHES = (8, 16)
_SIZES = {"mini": (192, 6, 3), "tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12)}

TRANSFORMERS: dict[str, tuple[int, int, int, int]] = {
    f"vit_{size}_patch{patch_px}": (patch_px, *shape) for size, shape in _SIZES.items() for patch_px in _PATCHES
}
"""Side of a patch, width, blocks and attention heads by name; "mini" is for two CPU cores, the others are DeiT's."""


def patches_of(pixels: Tensor, patch_px: int) -> Tensor:
    """Return the patches (N, L, B * P * P) of images (N, B, H, W) of any type, row by row; within one (band, row, col).

    Args:
        pixels: H and W are multiples of `patch_px`.
        patch_px: P.
    """
    n, n_bands, rows, cols = pixels.shape
    cut = pixels.reshape(n, n_bands, rows // patch_px, patch_px, cols // patch_px, patch_px)
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def images_of(patches: Tensor, grid: tuple[int, int], patch_px: int) -> Tensor:
    """Return the images (N, B, H, W) whose `patches_of` are `patches` (N, L, B * P * P), on a `grid` of rows, cols."""
    rows, cols = grid
    cut = patches.unflatten(2, (-1, patch_px, patch_px)).unflatten(1, (rows, cols))
    return cut.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def taken(patches: Tensor, places: Tensor) -> Tensor:
    """Return of `patches` (N, L, D) those at `places` (N, K) int64, each image its own: (N, K, D)."""
    return patches.gather(1, places[:, :, None].expand(-1, -1, patches.shape[2]))


def sine_positions(width: int, grid: tuple[int, int]) -> Tensor:
    """Return (width, rows, cols): sines and cosines of each patch's row and column, at falling frequencies.

    Args:
        width: a multiple of 4.
        grid: rows and columns of patches.

    Source: He et al. 2022 (masked autoencoders), after Vaswani et al. 2017, section 3.5.
    """
    frequencies = 10_000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    rows, cols = (torch.arange(n, dtype=torch.float64) * frequencies[:, None] for n in grid)
    of_rows, of_cols = (torch.cat([x.sin(), x.cos()]) for x in (rows, cols))
    shape = (width // 2, *grid)
    return torch.cat([of_rows[:, :, None].expand(shape), of_cols[:, None, :].expand(shape)]).float()


class Places(nn.Module):
    """Where patches lie: fixed numbers for each place of a grid, interpolated for other grids.

    Attributes:
        table: (1, D, rows, cols).
    """

    table: Tensor

    def __init__(self, width: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.register_buffer("table", sine_positions(width, grid)[None])

    def forward(self, grid: tuple[int, int], places: Tensor | None = None) -> Tensor:
        """Return (1, L, D) of all places of `grid`, or (N, K, D) of `places` (N, K) on it."""
        table = self.table
        if tuple(table.shape[2:]) != grid:
            table = F.interpolate(table, size=grid, mode="bicubic", align_corners=False)
        every = table.flatten(2).transpose(1, 2)
        return every if places is None else every[0][places]


class VisionTransformer(nn.Module):
    """Patches -> linear layer -> positions -> attention blocks -> norm; without a class token: what it says is pooled.

    Source: Dosovitskiy et al. 2021 (ViT); Touvron et al. 2021 (DeiT), table 1, for the sizes; He et al. 2022 (masked
        autoencoders) for the fixed positions, the initial weights and for computing visible patches only.
    Deviations: no class token, since the mean of the tokens is classified.

    Attributes:
        out_channels: bands of the input, then the width D.
        patch_px: side P of a patch.
        width: D.
        grid: rows and columns of patches of the images it was made for; others are told their places by interpolation.

    Args:
        n_bands: bands of the input, at least 1.
        image_px: side of the training images, a multiple of `patch_px`.
        shape: patch_px, width, blocks, heads, as in `TRANSFORMERS`.

    Raises:
        ConfigError: the patches do not divide the images.
    """

    def __init__(self, n_bands: int, image_px: int, shape: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.patch_px, self.width, depth, n_heads = shape
        self.grid = self.grid_of(image_px, image_px)
        self.out_channels = [n_bands, self.width]
        self.project = nn.Linear(n_bands * self.patch_px**2, self.width)
        self.places = Places(self.width, self.grid)
        self.blocks = attention_blocks(self.width, depth, n_heads)
        self.norm = nn.LayerNorm(self.width, eps=1e-6)
        self.apply(spread_evenly)

    def grid_of(self, rows: int, cols: int) -> tuple[int, int]:
        """Return rows and columns of patches of an image.

        Raises:
            ConfigError: the patches do not divide the image.
        """
        if told := undivided(self.patch_px, rows, cols):
            raise ConfigError(told)
        return rows // self.patch_px, cols // self.patch_px

    def embed(self, pixels: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return the tokens (N, K, D) of the patches at `seen` (N, K) int64, all L of None, before any attention.

        Args:
            pixels: (N, B, H, W).
            seen: places, row by row; each image its own.
        """
        grid = self.grid_of(*pixels.shape[2:])
        patches = patches_of(pixels, self.patch_px)
        tokens: Tensor = self.project(patches if seen is None else taken(patches, seen))
        return tokens + self.places(grid, seen)

    def attend(self, tokens: Tensor) -> Tensor:
        """Return tokens (N, K, D) after they have looked at each other: the cost is in K, not in the image's size."""
        attended: Tensor = self.norm(self.blocks(tokens))
        return attended

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Return `pixels` (N, B, H, W), then the tokens of all patches as a map (N, D, H / P, W / P)."""
        tokens = self.attend(self.embed(pixels))
        rows, cols = self.grid_of(*pixels.shape[2:])
        return [pixels, tokens.transpose(1, 2).unflatten(2, (rows, cols))]

    @torch.no_grad()
    def load_timm(self, stored: dict[str, Tensor], filters: Tensor) -> None:
        """Take over the weights of one of timm's vision transformers.

        Args:
            stored: its state.
            filters: (D, B, P, P), its first convolution for these bands.
        """
        wanted = self.state_dict()
        positions = stored["pos_embed"][:, -(math.isqrt(stored["pos_embed"].shape[1]) ** 2) :]
        side = math.isqrt(positions.shape[1])
        table = positions.transpose(1, 2).unflatten(2, (side, side))
        if (side, side) != self.grid:
            table = F.interpolate(table, size=self.grid, mode="bicubic", align_corners=False)
        given = {
            "project.weight": filters.flatten(1),
            "project.bias": stored["patch_embed.proj.bias"],
            "places.table": table,
        }
        self.load_state_dict({name: given[name] if name in given else stored[name] for name in wanted})


def undivided(patch_px: int, rows: int, cols: int) -> str:
    """Return in words that patches do not divide an image, and which sides they would; "" if they do.

    Example:
        >>> undivided(16, 64, 64)
        ''
    """
    if rows and cols and not rows % patch_px and not cols % patch_px:
        return ""
    near = ", ".join(str(n * patch_px) for n in dict.fromkeys((max(1, cols // patch_px), cols // patch_px + 1)))
    return (
        f"vision transformer: found images of {cols} x {rows} px, expected sides that patches of {patch_px} px "
        f"divide, such as {near}; choose --image-px so, or an encoder with other patches"
    )


def attention_blocks(width: int, depth: int, n_heads: int) -> nn.Sequential:
    """Return `depth` of timm's pre-norm attention blocks, (N, K, width) to the same."""
    from timm.models.vision_transformer import Block

    return nn.Sequential(*(cast(Any, Block)(width, n_heads, qkv_bias=True) for _ in range(depth)))


def spread_evenly(layer: nn.Module) -> None:
    """Give a linear layer the initial weights of a masked autoencoder: Xavier's, biases of 0."""
    if isinstance(layer, nn.Linear):
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
