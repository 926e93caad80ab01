"""tinyMiniFrance, built from MiniFrance: sub-tiles spread over each conurbation, as many as its share of the tiles."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from berunda.data.catalog._france import ROLES, kind_and_stem, town_of
from berunda.data.listing import RASTER_SUFFIXES, files_of
from berunda.data.order import Randomness
from berunda.errors import DataError
from berunda.files import write_text
from berunda.geo.grid import Window
from berunda.geo.labelraster import label_grid
from berunda.geo.raster import describe, open_scenes
from berunda.geo.write import create_tiled, finish_tiled
from berunda.progress import Progress, Silent

__all__ = [
    "N_SUBTILES",
    "PLAN_NAME",
    "SIDE_PX",
    "SubTile",
    "Tile",
    "build_tiny",
    "find_tiles",
    "plan_tiny",
    "shares_of_total",
]

N_SUBTILES, SIDE_PX = 3500, 1000
PLAN_NAME = "tinyminifrance.json"
_N_TRIES = 16  # draws of a conurbation's places, of which the one with the most alike shares of classes is taken
_COARSE = 10  # every so many pixels of a mask are looked at for that
_N_VALUES = 16


@dataclass(frozen=True)
class Tile:
    """A tile of MiniFrance: conurbation, name, files, and rows and columns; `mask` is None where there is none."""

    town: str
    name: str
    image: Path
    mask: Path | None
    rows: int
    cols: int


@dataclass(frozen=True)
class SubTile:
    """A place that is cut out: of which tile, and the row and column of its corner."""

    tile: Tile
    row: int
    col: int

    @property
    def name(self) -> str:
        """Name of its files, as published: tile, row, column."""
        return f"{self.tile.name}_{self.row}_{self.col}"


def shares_of_total(sizes: Mapping[str, int], total: int) -> dict[str, int]:
    """Return how many of `total` each key gets, in proportion to its size and at least its size's number of ones.

    Largest remainders make the sum exact. No key gets fewer than `sizes` says, so that each tile can give one.

    Raises:
        DataError: `total` is below the sum of the sizes.

    Example:
        >>> shares_of_total({"Nice": 30, "Brest": 10}, 100)
        {'Nice': 75, 'Brest': 25}
    """
    whole = sum(sizes.values())
    if total < whole:
        raise DataError(
            f"{total} sub-tiles asked for, {whole} tiles found, expected at least one sub-tile of each; ask for more"
        )
    exact = {key: total * size / whole for key, size in sizes.items()}
    given = {key: int(value) for key, value in exact.items()}
    order = sorted(exact, key=lambda key: (given[key] - exact[key], key))
    for key in order[: total - sum(given.values())]:
        given[key] += 1
    return given


def plan_tiny(
    tiles: Sequence[Tile], *, seed: int = 0, n_subtiles: int = N_SUBTILES, side_px: int = SIDE_PX
) -> list[SubTile]:
    """Return the places of all sub-tiles, a pure function of tiles and seed.

    Each conurbation gets its share of the tiles; each tile gives one sub-tile, and the rest go to tiles by chance.
    Places are uniform within their tile. Of several such draws the one is taken whose shares of classes are most alike
    those of the whole conurbation.

    Source: Castillo-Navarro 2022, on tinyMiniFrance: 3,500 sub-tiles of 1,000 x 1,000 pixels.
    Deviations: the thesis does not say how the balance of the classes was kept; drawing several times and keeping the
    best is this project's way.

    Raises:
        DataError: there are more tiles than sub-tiles, or a tile is smaller than a sub-tile.
    """
    small = [tile for tile in tiles if min(tile.rows, tile.cols) < side_px]
    if small:
        raise DataError(
            f"{small[0].image}: {small[0].cols} x {small[0].rows} px found, expected at least {side_px} px on each side"
        )
    by_town: dict[str, list[Tile]] = {}
    for tile in sorted(tiles, key=lambda tile: (tile.town, tile.name)):
        by_town.setdefault(tile.town, []).append(tile)
    share = shares_of_total({town: len(found) for town, found in by_town.items()}, n_subtiles)
    planned: list[SubTile] = []
    for number, (town, found) in enumerate(sorted(by_town.items())):
        rng = Randomness(seed).at(number)
        planned += _best_draw(found, share[town], side_px, rng)
    return planned


def _best_draw(tiles: Sequence[Tile], n: int, side_px: int, rng: Randomness) -> list[SubTile]:
    """Return the draw of a conurbation's places whose class shares are most alike its own."""
    draws = [_draw(tiles, n, side_px, rng.numpy("sub-tiles", turn)) for turn in range(_N_TRIES)]
    masks = {tile.name: _coarse_mask(tile.mask) for tile in tiles if tile.mask is not None}
    if not masks:
        return draws[0]
    whole = _shares(list(masks.values()))
    return min(draws, key=lambda draw: float(np.abs(_shares(_cut(draw, masks, side_px)) - whole).sum()))


def _draw(tiles: Sequence[Tile], n: int, side_px: int, draw: np.random.Generator) -> list[SubTile]:
    """Return `n` different places, at least one in each tile."""
    extra = draw.integers(len(tiles), size=n - len(tiles))
    chosen = np.concatenate([np.arange(len(tiles)), extra])
    found: dict[tuple[str, int, int], SubTile] = {}
    n_of_tile: Counter[str] = Counter()
    for index in chosen:
        tile = tiles[int(index)]
        n_places = (tile.rows - side_px + 1) * (tile.cols - side_px + 1)
        if n_of_tile[tile.name] >= n_places:
            raise DataError(f"{tile.image}: too small for that many different sub-tiles; ask for fewer")
        while True:
            row, col = int(draw.integers(tile.rows - side_px + 1)), int(draw.integers(tile.cols - side_px + 1))
            if (tile.name, row, col) not in found:
                found[tile.name, row, col] = SubTile(tile, row, col)
                n_of_tile[tile.name] += 1
                break
    return sorted(found.values(), key=lambda sub: (sub.tile.name, sub.row, sub.col))


def _coarse_mask(path: Path) -> np.ndarray:
    """Return every tenth pixel of a mask, by strips, so that no mask is held whole."""
    with open_scenes([path])[0] as scene:
        rows, cols = scene.grid.shape.rows, scene.grid.shape.cols
        strips = []
        for top in range(0, rows, 100 * _COARSE):
            block = scene.read(Window(top, 0, min(100 * _COARSE, rows - top), cols))
            values = np.where(block.valid, block.values[0], 0)[::_COARSE, ::_COARSE]
            strips.append(np.clip(values, 0, _N_VALUES - 1).astype(np.uint8))
    return np.concatenate(strips)


def _cut(draw: Sequence[SubTile], masks: Mapping[str, np.ndarray], side_px: int) -> list[np.ndarray]:
    side = max(1, side_px // _COARSE)
    return [
        masks[sub.tile.name][sub.row // _COARSE : sub.row // _COARSE + side, sub.col // _COARSE :][:, :side]
        for sub in draw
        if sub.tile.name in masks
    ]


def _shares(masks: Sequence[np.ndarray]) -> np.ndarray:
    counts = np.zeros(_N_VALUES)
    for mask in masks:
        counts += np.bincount(mask.ravel(), minlength=_N_VALUES)
    return counts / max(1.0, counts.sum())


def build_tiny(
    source: Path | str,
    out: Path | str,
    *,
    seed: int = 0,
    n_subtiles: int = N_SUBTILES,
    side_px: int = SIDE_PX,
    progress: Progress | None = None,
) -> Path:
    """Build tinyMiniFrance from MiniFrance and return its folder; what is there already is not written again.

    Args:
        source: MiniFrance as published: folders `BDORTHO` and `UA` (or `UrbanAtlas`), one folder a conurbation.
        out: for `BDORTHO/<conurbation>/<tile>_<row>_<column>.tif`, masks of the same name in `UA/`, and
            `tinyminifrance.json`, which tells seed, places and shares.
        seed: of the draw.
        n_subtiles: in all.
        side_px: of a sub-tile.
        progress: told of every sub-tile.

    Raises:
        DataError: no tiles, too many of them, or too small ones; or `out` holds another draw.
        OutputError: a file cannot be written.
    """
    folder, told = Path(out).absolute(), progress or Silent()
    tiles = find_tiles(Path(source))
    planned = plan_tiny(tiles, seed=seed, n_subtiles=n_subtiles, side_px=side_px)
    _note_plan(folder, planned, seed, side_px)
    told.start("sub-tiles", len(planned))
    for sub in planned:
        for kind, path in (("BDORTHO", sub.tile.image), ("UA", sub.tile.mask)):
            if path is not None:
                _copy(path, sub, side_px, folder / kind / sub.tile.town / f"{sub.name}.tif")
        told.advance()
    told.finish()
    return folder


def find_tiles(root: Path) -> list[Tile]:
    """Return the tiles of MiniFrance below a folder.

    Raises:
        DataError: there are none, or a mask has another size than its image.
    """
    if not root.is_dir():
        page = "https://ieee-dataport.org/open-access/minifrance"
        raise DataError(f"{root}: not found, expected the folder of MiniFrance; fetch it from {page}")
    found: dict[tuple[str, str], dict[str, Path]] = {}
    for name, file in files_of(root, RASTER_SUFFIXES).items():
        town, kind = town_of(name), kind_and_stem(name)
        if town is not None and kind is not None and kind[0] != "elevation":
            found.setdefault((town, kind[1]), {})[kind[0]] = file.path
    tiles = []
    for (town, stem), files in sorted(found.items()):
        if "image" not in files:
            raise DataError(f"{files['mask']}: no image of this tile found in BDORTHO, expected one; fetch it again")
        shape, mask = describe(files["image"]).grid.shape, files.get("mask")
        if mask is not None and label_grid(mask).shape != shape:
            other = label_grid(mask).shape
            raise DataError(
                f"{mask}: {other.cols} x {other.rows} px found, its image has {shape.cols} x {shape.rows}; expected "
                "the same"
            )
        tiles.append(Tile(town, stem, files["image"], mask, shape.rows, shape.cols))
    if not tiles:
        raise DataError(
            f"{root}: no tile of MiniFrance found, expected BDORTHO/<conurbation>/*.tif with conurbations "
            f"{', '.join(ROLES)}"
        )
    return tiles


def _note_plan(folder: Path, planned: Sequence[SubTile], seed: int, side_px: int) -> None:
    """Write the draw down; refuse a folder that holds another one."""
    places = [[sub.tile.town, sub.tile.name, sub.row, sub.col] for sub in planned]
    text = json.dumps({"seed": seed, "side_px": side_px, "n": len(planned), "places": places}, indent=0) + "\n"
    path = folder / PLAN_NAME
    if path.is_file() and path.read_text(encoding="utf-8") != text:
        raise DataError(f"{path}: tells of another draw (seed, number or tiles); choose another folder")
    write_text(path, text)


def _copy(source: Path, sub: SubTile, side_px: int, target: Path) -> None:
    """Cut a sub-tile out of a raster, values and place unchanged."""
    if target.is_file():
        return
    window = Window(sub.row, sub.col, side_px, side_px)
    with open_scenes([source])[0] as scene:
        block = scene.read(window)
        grid = scene.grid.crop(window)
        kind = scene.bands[0].dtype
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    values = np.where(block.valid, block.values, 0).astype(kind)
    with create_tiled(temporary, grid, len(values), kind, None) as writer:
        writer.write(values, grid.full_window)
    finish_tiled(temporary, target)
