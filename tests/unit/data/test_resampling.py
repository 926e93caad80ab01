"""Images brought to another side."""

from __future__ import annotations

import torch

from berunda.data.order import Randomness
from berunda.data.resampling import ResampledSource, resample_images
from berunda.data.source import RawImages


def test_a_plain_image_stays_plain_and_its_own_size_stays_itself() -> None:
    pixels = torch.full((2, 3, 10, 10), 0.5)
    assert resample_images(pixels, 10) is pixels
    for side in (4, 25):
        torch.testing.assert_close(resample_images(pixels, side), torch.full((2, 3, side, side), 0.5))


def test_shrinking_averages_and_does_not_pick() -> None:
    stripes = torch.zeros(1, 1, 16, 16)
    stripes[..., ::2] = 1.0
    assert resample_images(stripes, 4)[0, 0, 1:3, 1:3].sub(0.5).abs().max() < 0.1


class Pair:
    """A source of one image, half of it without data."""

    has_unlabelled = True

    def labelled(self, rng: Randomness, n: int) -> RawImages:
        valid = torch.ones(n, 8, 8, dtype=torch.bool)
        valid[:, :, :4] = False
        return RawImages(torch.ones(n, 2, 8, 8) * valid[:, None], valid, torch.arange(n), torch.arange(n))

    def unlabelled(self, rng: Randomness, n: int) -> RawImages:
        raw = self.labelled(rng, n)
        return RawImages(raw.pixels, raw.valid, None, raw.index)


def test_a_source_keeps_labels_and_where_there_is_data() -> None:
    source = ResampledSource(Pair(), 16)
    raw = source.labelled(Randomness(0), 3)
    assert raw.pixels.shape == (3, 2, 16, 16)
    assert raw.labels is not None
    assert raw.labels.tolist() == [0, 1, 2]
    assert raw.valid[:, :, 8:].all()
    assert not raw.valid[:, :, :8].any()
    assert (raw.pixels[..., :8] == 0).all()
    assert source.has_unlabelled
    assert source.unlabelled(Randomness(0), 2).labels is None
