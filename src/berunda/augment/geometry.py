"""How a view lies on its original image, as a value that maps images, masks and label maps there and back.

A geometry is a turn (one of the eight symmetries of the square), then a whole-pixel shift, then an
optional affine map, drawn for each sample on its own. Turns and shifts move pixels and never mix them, so
labels and pseudo-labels survive them exactly; only the affine part interpolates. It is not a photometric
change: see `views`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from berunda.errors import DataError

__all__ = ["Geometry", "draw_geometry"]

FLIP_ROWS, FLIP_COLS, TRANSPOSE = 1, 2, 4
"""Bits of a turn: the image is transposed first, then its rows are reversed, then its columns."""


@dataclass(frozen=True, eq=False)
class Geometry:
    """Where the pixels of each sample's view come from.

    Attributes:
        turn: (N,) int64 in 0..7, the sum of FLIP_ROWS, FLIP_COLS and TRANSPOSE; 0 leaves the image as it is.
        shift_px: (N, 2) int64, rows and columns by which the turned image moves down and right.
        affine: (N, 2, 3) float or None; maps an output pixel (row, col, 1), counted in pixels from the
            centre, to the position in the turned and shifted image that it shows.
        is_square: whether any sample may be transposed, which only a square image can be.

    Example:
        >>> geometry = Geometry(torch.tensor([FLIP_COLS]), torch.tensor([[0, 1]]))
        >>> geometry.apply(torch.tensor([[[1, 2], [3, 4]]]), fill=-1).tolist()
        [[[-1, 2], [-1, 4]]]
    """

    turn: Tensor
    shift_px: Tensor
    affine: Tensor | None = None
    is_square: bool = True

    @classmethod
    def identity(cls, n: int, device: torch.device | str = "cpu") -> Geometry:
        """Return the geometry that leaves `n` samples as they are."""
        turn = torch.zeros(n, dtype=torch.int64, device=device)
        return cls(turn, torch.zeros(n, 2, dtype=torch.int64, device=device), is_square=False)

    @property
    def n(self) -> int:
        """Number of samples."""
        return self.turn.shape[0]

    def select(self, index: Tensor) -> Geometry:
        """Return the geometry of the samples at `index` (M,) int64."""
        affine = None if self.affine is None else self.affine[index]
        return replace(self, turn=self.turn[index], shift_px=self.shift_px[index], affine=affine)

    def apply(self, x: Tensor, fill: float = 0) -> Tensor:
        """Map `x` from the original image into the view.

        Args:
            x: (N, H, W) or (N, C, H, W) of any type. Real numbers are interpolated by the affine part,
                integers take the nearest pixel, and a bool mask stays true only where every pixel that was
                mixed is true.
            fill: value where the view shows something outside the image (-1 for label maps, 0 or False
                otherwise).

        Returns:
            A new tensor of the same shape and type.

        Raises:
            DataError: if the number of samples differs or a non-square image may be transposed.
        """
        self._check(x)
        index, inside = self._gather_index(x.shape[-2], x.shape[-1])
        moved = _gather(x, index, inside, fill)
        return moved if self.affine is None else _warp(moved, self.affine, fill)

    def apply_masked(self, x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Map an image (N, C, H, W) and its validity (N, H, W) into the view; the image is 0 where not valid.

        Values at invalid pixels, NaN included, are never read.

        Returns:
            The view's image in a new contiguous tensor, and its validity.
        """
        valid_view = self.apply(valid)
        if self.affine is not None:
            x = x.masked_fill(~valid[:, None], 0)
            return self.apply(x) * valid_view[:, None].to(x.dtype), valid_view
        self._check(x)
        index, _ = self._gather_index(x.shape[-2], x.shape[-1])
        return _moved(x, index).masked_fill_(~valid_view[:, None], 0), valid_view

    def inverse(self, x: Tensor, fill: float = 0) -> Tensor:
        """Map `x` from the view back onto the original image; what the view had pushed out becomes `fill`.

        Args, returns and raises as `apply`.
        """
        self._check(x)
        unwarped = x if self.affine is None else _warp(x, _inverse_affine(self.affine), fill)
        index, inside = self._scatter_index(x.shape[-2], x.shape[-1])
        return _gather(unwarped, index, inside, fill)

    def _check(self, x: Tensor) -> None:
        if x.ndim not in (3, 4) or x.shape[0] != self.n:
            raise DataError(
                f"geometry: found a tensor of shape {tuple(x.shape)}, expected ({self.n}, H, W) or ({self.n}, C, H, W)"
            )
        if self.is_square and x.shape[-1] != x.shape[-2]:
            raise DataError(
                f"geometry: found {x.shape[-2]} x {x.shape[-1]} pixels, expected a square image for a "
                "geometry that may transpose; draw the geometry for this shape"
            )

    def _bits(self) -> tuple[Tensor, Tensor, Tensor]:
        turn = self.turn[:, None]
        return (turn & FLIP_ROWS) > 0, (turn & FLIP_COLS) > 0, (turn & TRANSPOSE) > 0

    def _gather_index(self, n_rows: int, n_cols: int) -> tuple[Tensor, Tensor]:
        """Return the flat index (N, H, W) of each view pixel's source, and whether there is one."""
        flip_rows, flip_cols, transposed = self._bits()
        rows = torch.arange(n_rows, device=self.turn.device) - self.shift_px[:, :1]
        cols = torch.arange(n_cols, device=self.turn.device) - self.shift_px[:, 1:]
        rows_inside, cols_inside = (rows >= 0) & (rows < n_rows), (cols >= 0) & (cols < n_cols)
        rows = torch.where(flip_rows, n_rows - 1 - rows, rows).clamp(0, n_rows - 1)
        cols = torch.where(flip_cols, n_cols - 1 - cols, cols).clamp(0, n_cols - 1)
        by_row = torch.where(transposed, rows, rows * n_cols)
        by_col = torch.where(transposed, cols * n_cols, cols)
        return by_row[:, :, None] + by_col[:, None, :], rows_inside[:, :, None] & cols_inside[:, None, :]

    def _scatter_index(self, n_rows: int, n_cols: int) -> tuple[Tensor, Tensor]:
        """Return the flat index (N, H, W) where the view shows each original pixel, and whether it does."""
        flip_rows, flip_cols, transposed = self._bits()
        rows = torch.arange(n_rows, device=self.turn.device)
        cols = torch.arange(n_cols, device=self.turn.device)
        # An original row is a row of the view, or a column of it where the view is transposed (then H
        # equals W).
        row_flipped = torch.where(transposed, flip_cols, flip_rows)
        col_flipped = torch.where(transposed, flip_rows, flip_cols)
        row_shift = torch.where(transposed, self.shift_px[:, 1:], self.shift_px[:, :1])
        col_shift = torch.where(transposed, self.shift_px[:, :1], self.shift_px[:, 1:])
        at_row = torch.where(row_flipped, n_rows - 1 - rows, rows) + row_shift
        at_col = torch.where(col_flipped, n_cols - 1 - cols, cols) + col_shift
        rows_inside, cols_inside = (at_row >= 0) & (at_row < n_rows), (at_col >= 0) & (at_col < n_cols)
        at_row, at_col = at_row.clamp(0, n_rows - 1), at_col.clamp(0, n_cols - 1)
        by_row = torch.where(transposed, at_row, at_row * n_cols)
        by_col = torch.where(transposed, at_col * n_cols, at_col)
        return by_row[:, :, None] + by_col[:, None, :], rows_inside[:, :, None] & cols_inside[:, None, :]


def draw_geometry(
    shape: tuple[int, int, int],
    generator: torch.Generator,
    *,
    turns: bool = True,
    max_shift_px: int = 0,
    log_scale: float = 0.0,
    rotation_deg: float = 0.0,
) -> Geometry:
    """Draw a geometry for each sample, uniformly within the ranges.

    Args:
        shape: samples, rows, cols.
        generator: on the device where the images are.
        turns: draw one of the eight symmetries (four for an image that is not square).
        max_shift_px: largest shift in pixels, either way, in rows and in columns.
        log_scale: the picture is enlarged by a factor between exp(-log_scale) and exp(log_scale); 0 for none.
        rotation_deg: largest rotation in degrees, either way; 0 for none.

    Returns:
        A geometry with an affine part only if `log_scale` or `rotation_deg` is positive.
    """
    n, n_rows, n_cols = shape
    device, is_square = generator.device, n_rows == n_cols
    uniform = torch.rand(n, 5, generator=generator, device=device)
    n_turns = (8 if is_square else 4) if turns else 1
    turn = (uniform[:, 0] * n_turns).long().clamp_(max=n_turns - 1)
    shift_px = (uniform[:, 1:3] * (2 * max_shift_px + 1)).long().clamp_(max=2 * max_shift_px) - max_shift_px
    affine = None
    if log_scale > 0 or rotation_deg > 0:
        zoom = torch.exp((1 - 2 * uniform[:, 3]) * log_scale)
        angle = torch.deg2rad((2 * uniform[:, 4] - 1) * rotation_deg)
        affine = _rotation(zoom, angle)
    return Geometry(turn, shift_px, affine, is_square=is_square and turns)


def _rotation(factor: Tensor, angle: Tensor) -> Tensor:
    cos, sin, zero = factor * torch.cos(angle), factor * torch.sin(angle), torch.zeros_like(angle)
    return torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)


def _moved(x: Tensor, index: Tensor) -> Tensor:
    n, n_bands, n_rows, n_cols = x.shape
    n_pixels = n_rows * n_cols
    flat_index = index.view(n, 1, n_pixels).expand(n, n_bands, n_pixels)
    return x.reshape(n, n_bands, n_pixels).gather(2, flat_index).view(n, n_bands, n_rows, n_cols)


def _gather(x: Tensor, index: Tensor, inside: Tensor, fill: float) -> Tensor:
    if x.ndim == 3:
        return _gather(x[:, None], index, inside, fill)[:, 0]
    return _moved(x, index).masked_fill_(~inside[:, None], fill)


def _inverse_affine(affine: Tensor) -> Tensor:
    a, b, c, d = affine[:, 0, 0], affine[:, 0, 1], affine[:, 1, 0], affine[:, 1, 1]
    matrix = torch.stack([torch.stack([d, -b], 1), torch.stack([-c, a], 1)], 1) / (a * d - b * c)[:, None, None]
    return torch.cat([matrix, -matrix @ affine[:, :, 2:]], dim=2)


def _warp(x: Tensor, affine: Tensor, fill: float) -> Tensor:
    """Sample `x` (N, [C,] H, W) at the positions that `affine` (N, 2, 3) names."""
    if x.ndim == 3:
        return _warp(x[:, None], affine, fill)[:, 0]
    n_rows, n_cols = x.shape[-2:]
    real = x.dtype if x.is_floating_point() else torch.float32
    grid = _sampling_grid(affine.to(real), n_rows, n_cols)
    if x.is_floating_point():
        return F.grid_sample(x - fill, grid, mode="bilinear", align_corners=False) + fill
    if x.dtype == torch.bool:
        share = F.grid_sample(x.to(real) - float(fill), grid, mode="bilinear", align_corners=False) + float(fill)
        return share > 0.999
    nearest = F.grid_sample(x.to(torch.float64) - fill, grid.double(), mode="nearest", align_corners=False) + fill
    return nearest.round().to(x.dtype)


def _sampling_grid(affine: Tensor, n_rows: int, n_cols: int) -> Tensor:
    """Return positions (N, H, W, 2) as grid_sample takes them: (col, row), -1 to 1 between outer edges."""
    rows = torch.arange(n_rows, device=affine.device, dtype=affine.dtype) - (n_rows - 1) / 2
    cols = torch.arange(n_cols, device=affine.device, dtype=affine.dtype) - (n_cols - 1) / 2
    position = affine[:, :, :1] * rows[:, None].expand(n_rows, n_cols).reshape(-1)
    position = position + affine[:, :, 1:2] * cols.expand(n_rows, n_cols).reshape(-1) + affine[:, :, 2:]
    row, col = position[:, 0] * (2 / n_rows), position[:, 1] * (2 / n_cols)
    return torch.stack([col, row], dim=-1).view(-1, n_rows, n_cols, 2)
