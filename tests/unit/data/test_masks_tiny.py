"""tinyMiniFrance: as many sub-tiles as asked for, spread evenly, from every tile, with shares and balance kept."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from toy_masks import write_tif

from berunda.data.masks.images import open_masks
from berunda.data.masks.tiny import PLAN_NAME, Tile, build_tiny, find_tiles, plan_tiny, shares_of_total
from berunda.errors import DataError

TOWNS = {"Nice": 4, "Nantes_Saint-Nazaire": 8, "Brest": 2, "Rennes": 6}


def bare(n_by_town: dict[str, int], side: int = 100) -> list[Tile]:
    """Return tiles without files behind them."""
    return [
        Tile(town, f"{town}-{number}", Path(f"{town}/{number}.tif"), None, side, side)
        for town, n in n_by_town.items()
        for number in range(n)
    ]


def write_source(root: Path, side: int = 60) -> Path:
    """Write MiniFrance in small: conurbations of different numbers of tiles, each tile of classes in bands."""
    for town, n in TOWNS.items():
        for number in range(n):
            rng = np.random.default_rng(number)
            image = rng.integers(1, 255, (3, side, side), np.uint8)
            classes = 1 + (np.arange(side)[None, :, None] // 15 + number).repeat(side, axis=2) % 14
            name = f"99-2013-{number:04d}-LA93-0M50-E080.tif"
            write_tif(root / "BDORTHO" / town / name, image)
            write_tif(root / "UA" / town / name, classes.astype(np.uint8))
    return root


def test_the_total_is_exact_and_regions_keep_their_shares() -> None:
    planned = plan_tiny(bare(TOWNS), n_subtiles=333, side_px=10)
    assert len(planned) == 333
    found = Counter(sub.tile.town for sub in planned)
    for town, n in TOWNS.items():
        assert abs(found[town] - 333 * n / 20) < 1


@pytest.mark.parametrize("total", [20, 21, 137, 3500])
def test_shares_of_total_are_exact_for_any_total(total: int) -> None:
    given = shares_of_total(TOWNS, total)
    assert sum(given.values()) == total
    assert all(given[town] >= n for town, n in TOWNS.items())


def test_every_tile_gives_one_and_the_published_size_is_reached() -> None:
    tiles = bare(dict.fromkeys(("Nice", "Brest", "Rennes", "Vannes"), 133), 200)
    planned = plan_tiny(tiles, side_px=100)
    assert len(planned) == 3500
    assert {sub.tile.name for sub in planned} == {tile.name for tile in tiles}


def test_places_are_uniform_and_lie_inside() -> None:
    planned = plan_tiny(bare({"Nice": 10}, 110), n_subtiles=3000, side_px=10)
    rows, cols = np.array([(sub.row, sub.col) for sub in planned]).T
    assert min(rows.min(), cols.min()) >= 0
    assert max(rows.max(), cols.max()) <= 100
    for values in (rows, cols):
        counts, _ = np.histogram(values, bins=10, range=(0, 101))
        assert ((counts - 300) ** 2 / 300).sum() < 27.9  # chi squared, 9 degrees of freedom, p = .001
    tiles = Counter(sub.tile.name for sub in planned)
    assert ((np.array(list(tiles.values())) - 300.0) ** 2 / 300).sum() < 27.9


def test_the_same_seed_gives_the_same_and_another_one_others() -> None:
    one, two, other = (plan_tiny(bare(TOWNS), seed=seed, n_subtiles=100, side_px=10) for seed in (3, 3, 4))
    assert one == two
    assert one != other
    assert plan_tiny(bare(TOWNS)[::-1], seed=3, n_subtiles=100, side_px=10) == one


def test_too_few_and_too_small_are_told() -> None:
    with pytest.raises(DataError, match="19 sub-tiles asked for, 20 tiles found"):
        plan_tiny(bare(TOWNS), n_subtiles=19, side_px=10)
    with pytest.raises(DataError, match="100 x 100 px found, expected at least 1000 px"):
        plan_tiny(bare(TOWNS))
    with pytest.raises(DataError, match="too small for that many different sub-tiles"):
        plan_tiny(bare({"Nice": 1}, 10), n_subtiles=5, side_px=10)


def test_the_set_is_built_with_values_and_balance_kept_and_reads_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BERUNDA_CACHE", str(tmp_path / "cache"))
    source = write_source(tmp_path / "minifrance")
    made = build_tiny(source, tmp_path / "tiny", seed=1, n_subtiles=80, side_px=20)
    masks = open_masks("tinyminifrance", folder=made)
    images = sorted((made / "BDORTHO").rglob("*.tif"))
    assert len(images) == 80
    assert set(masks.sites) == set(TOWNS)
    whole = open_masks("minifrance", folder=source)
    for town in ("Nice", "Nantes_Saint-Nazaire", "Rennes"):
        shares = [m.class_shares([i for i, s in enumerate(m.sites) if s == town]) for m in (whole, masks)]
        assert np.abs(shares[0] - shares[1]).sum() < 0.25
    name = images[0].stem
    tile, row, col = name.rsplit("_", 2)
    town = images[0].parent.name
    index = masks.names.index(f"BDORTHO/{town}/{name}.tif")
    origin = whole.names.index(f"BDORTHO/{town}/{tile}.tif")
    cut = (slice(int(row), int(row) + 20), slice(int(col), int(col) + 20))
    np.testing.assert_array_equal(masks.pixels(index), whole.pixels(origin)[:, cut[0], cut[1]])
    np.testing.assert_array_equal(masks.labels(index), whole.labels(origin)[cut])


def test_a_second_build_writes_nothing_and_another_draw_is_refused(tmp_path: Path) -> None:
    source = write_source(tmp_path / "minifrance")
    made = build_tiny(source, tmp_path / "tiny", n_subtiles=25, side_px=20)
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*.tif")}
    build_tiny(source, tmp_path / "tiny", n_subtiles=25, side_px=20)
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*.tif")} == before
    assert json.loads((made / PLAN_NAME).read_text())["n"] == 25
    with pytest.raises(DataError, match="tells of another draw"):
        build_tiny(source, tmp_path / "tiny", seed=1, n_subtiles=25, side_px=20)


def test_a_mask_of_another_size_and_an_empty_folder_are_told(tmp_path: Path) -> None:
    source = write_source(tmp_path / "minifrance")
    mask = next((source / "UA" / "Nice").glob("*.tif"))
    write_tif(mask, np.ones((1, 30, 60), np.uint8))
    with pytest.raises(DataError, match="60 x 30 px found, its image has 60 x 60"):
        find_tiles(source)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no tile of MiniFrance found"):
        find_tiles(tmp_path / "empty")
