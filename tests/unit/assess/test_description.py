"""What is described of images, what is left out, and what the cache keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from toy_masks import write_tif
from toy_sites import write_site

from berunda.api.analyze_verb import analyze
from berunda.assess.description import Description, describe_images
from berunda.data.scaling import Scaling
from berunda.data.site_layouts import Cutting, find_sites
from berunda.data.site_pixels import SitePixels
from berunda.errors import DataError
from berunda.options.analyze import AnalyzeOptions

SCALING = Scaling(np.zeros(3), np.full(3, 255.0))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BERUNDA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def described(root: Path, **more: float) -> Description:
    pixels = SitePixels(find_sites([str(root)], Cutting(block_px=16)))
    return describe_images(pixels, SCALING, lambda given: given.mean((2, 3)), image_px=16, key="mean", **more)


def scene(path: Path, seed: int) -> Path:
    """Write 8 blocks of 16 px: the first row of four whole, the second without data in 4, 7, 9 and 16 columns."""
    values = np.random.default_rng(seed).integers(1, 255, (3, 32, 64)).astype(np.uint8)
    for block, n_cols in enumerate((4, 7, 9, 16)):
        values[:, 16:, 16 * block : 16 * block + n_cols] = 0
    return write_tif(path, values, nodata=0)


def test_blocks_that_hold_too_little_data_are_left_out_and_named(tmp_path: Path) -> None:
    for seed, site in enumerate(("a", "b")):
        scene(tmp_path / "d" / site / "s.tif", seed)
    found = described(tmp_path / "d")
    assert found.blank == ("a/s.tif@16,32", "a/s.tif@16,48", "b/s.tif@16,32", "b/s.tif@16,48")
    assert len(found.sites) == len(found.features) == 12
    assert not {item.name for item in found.sites.items} & {*found.blank}
    again = described(tmp_path / "d")
    assert again.from_cache
    assert again.blank == found.blank
    assert len(described(tmp_path / "d", min_valid=0.0).sites) == 16
    assert len(described(tmp_path / "d", min_valid=1.0).sites) == 8


def test_an_analysis_counts_what_it_left_out(tmp_path: Path) -> None:
    for seed, site in enumerate(("a", "b")):
        scene(tmp_path / "d" / site / "s.tif", seed)
    given = AnalyzeOptions.make({"inputs": [str(tmp_path / "d")], "image_px": 32, "block_px": 16})
    outcome = analyze(given, tmp_path / "out")
    assert any("4 of 16 images hold data on less than 50% of their pixels" in text for text in outcome.warnings)
    assert len(outcome.analysis.sites) == 12
    write_tif(tmp_path / "e" / "a" / "s.tif", np.zeros((3, 32, 32), np.uint8), nodata=0)
    with pytest.raises(DataError, match="none of its 4 images can be read and holds data: they are nodata"):
        described(tmp_path / "e")


def test_that_an_image_cannot_be_read_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_site(tmp_path / "d" / "a", 1, 3, side=16)
    whole = Path.read_bytes
    busy = tmp_path / "d" / "a" / "001.png"

    def failing(path: Path) -> bytes:
        if path == busy:
            raise OSError(24, "Too many open files")
        return whole(path)

    with monkeypatch.context() as changed:
        changed.setattr(Path, "read_bytes", failing)
        first = described(tmp_path / "d")
        assert [(name, "Too many" in reason) for name, reason in first.broken] == [("a/001.png", True)]
        second = described(tmp_path / "d")
        assert second.from_cache
        assert second.broken == first.broken
    third = described(tmp_path / "d")
    assert not third.broken
    assert len(third.sites) == 3
    assert described(tmp_path / "d").from_cache
