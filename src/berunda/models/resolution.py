"""What nets for segmentation have in common: how maps come back to full resolution, and decoders that stand alone."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

__all__ = ["FullResolution", "NoEncoder"]


class FullResolution:
    """The parts `decoded_stride` and `restore` of nets whose decoded features stand for single pixels or whole images.

    Attributes:
        decoded_stride: pixels a side that a decoded feature stands for: 1.
        pixel_dim: channels of the decoded features that a pixel path gives: 0, unless the net has one.
    """

    decoded_stride: int = 1
    pixel_dim: int = 0

    def restore(self, maps: Tensor, pixels: Tensor) -> Tensor:
        """Return `maps` as they are."""
        del pixels
        return maps


class NoEncoder(nn.Module):
    """Stands where a net has its encoder, in a decoder that reads the features of another net's.

    Attributes:
        out_channels, n_convolutions: of that encoder.
    """

    def __init__(self, out_channels: Sequence[int], n_convolutions: Sequence[int] = ()) -> None:
        super().__init__()
        self.out_channels = list(out_channels)
        self.n_convolutions = list(n_convolutions)
