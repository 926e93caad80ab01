"""The toy landscape's map: which class and which parcel lies where. A pure function of (key, window)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from berunda.data.noise import cell_hash, fractal, hash32, pixel_rows_cols, smooth
from berunda.geo.grid import Window

__all__ = ["CLASS_NAMES", "FIELD", "FOREST", "GRASS", "ROAD", "TOWN", "WATER", "Cover", "cover"]

CLASS_NAMES = ("field", "forest", "grass", "road", "town", "water")
"""Sorted; class numbers are 1..6 in this order."""

FIELD, FOREST, GRASS, ROAD, TOWN, WATER = range(1, 7)

REGION_PX = 160
"""Side of the regions within which fields share a direction."""

TOWN_CELL_PX = 288
"""One town at most in each cell of this side."""

TOWN_SHARE = 0.75
ROAD_HALF_PX = 1.3
STREET_PX = 14


@dataclass(frozen=True)
class Cover:
    """What covers the ground.

    Attributes:
        truth: (h, w) uint8 class numbers 1..6.
        parcel: (h, w) uint32, a random number of its own for each field parcel or forest stand or town block.
        height: (h, w) float32 0..1, the terrain.
    """

    truth: np.ndarray
    parcel: np.ndarray
    height: np.ndarray


@dataclass(frozen=True)
class Town:
    """A town's centre and radius in pixels and the direction of its streets."""

    row: float
    col: float
    radius: float
    cos: float
    sin: float


def cover(key: int, window: Window) -> Cover:
    """Return the landscape's classes in a window."""
    height = fractal(key, window, 256, 4)
    parcel, margin = _parcels(key, window)
    truth = np.full(height.shape, FIELD, np.uint8)
    truth[margin] = GRASS
    meadow = smooth(key + 11, window, 96) > np.float32(0.72)
    truth[meadow] = GRASS
    stands = _stands(key, window)
    woods = fractal(key + 1, window, 128, 4) + height * np.float32(0.35) > np.float32(0.745)
    truth[woods] = FOREST
    valley = height < np.float32(0.34)
    truth[valley & (truth == FIELD)] = GRASS
    parcel = np.where(truth == FOREST, stands, parcel)
    _draw_towns(key, window, truth, parcel)
    _draw_roads(key, window, truth)
    truth[_water(key, window, height)] = WATER
    return Cover(truth, parcel, height)


def _stands(key: int, window: Window) -> np.ndarray:
    """Return the numbers of the forest stands: cells with wavy borders."""
    rows, cols = pixel_rows_cols(window)
    wave = ((smooth(key + 4, window, 18) - np.float32(0.5)) * np.float32(44)).astype(np.int64)
    return hash32(key + 3, (rows + wave) // 44, (cols - wave) // 44)


def _parcels(key: int, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """Return parcel numbers and the grass strips between parcels.

    Regions have wavy borders; each has a direction, a parcel length and a parcel width of its own.
    """
    rows, cols = pixel_rows_cols(window)
    wave = ((smooth(key + 21, window, 40) - np.float32(0.5)) * np.float32(60)).astype(np.int64)
    region_row, region_col = (rows + wave) // REGION_PX, (cols - wave) // REGION_PX
    region = hash32(key + 22, region_row, region_col)
    turn = (region & np.uint32(15)).astype(np.intp)
    angles = [math.pi * k / 16 for k in range(16)]
    cos = np.array([math.cos(a) for a in angles], np.float32)[turn]
    sin = np.array([math.sin(a) for a in angles], np.float32)[turn]
    width = (12 + ((region >> np.uint32(4)) & np.uint32(15))).astype(np.float32)
    length = (30 + ((region >> np.uint32(8)) & np.uint32(31))).astype(np.float32)
    across = (rows * cos - cols * sin) / width
    along = (rows * sin + cols * cos) / length
    strip = np.floor(across)
    along = along + (hash32(key + 23, strip.astype(np.int64), 0) >> np.uint32(8)).astype(np.float32) * np.float32(
        2**-24
    )
    piece = np.floor(along)
    number = hash32(key + 24, strip.astype(np.int64), piece.astype(np.int64)) ^ region
    margin = ((across - strip) * width < 1.2) & ((region & np.uint32(1 << 16)) > 0)
    return number, margin


def _water(key: int, window: Window, height: np.ndarray) -> np.ndarray:
    """Return the river (a level line of smooth noise), wider in low land, and the lakes."""
    course = fractal(key + 31, window, 420, 3) - np.float32(0.5)
    width = np.float32(0.010) + (np.float32(1) - height) * np.float32(0.012)
    lakes = fractal(key + 32, window, 110, 3) > np.float32(0.80)
    return np.asarray((np.abs(course) < width) | lakes)


def _towns(key: int, window: Window, reach_cells: int) -> Iterator[tuple[int, int, Town | None]]:
    """Yield the towns of all cells around a window, row by row."""
    for row in range(window.row // TOWN_CELL_PX - reach_cells, window.row_stop // TOWN_CELL_PX + reach_cells + 1):
        for col in range(window.col // TOWN_CELL_PX - reach_cells, window.col_stop // TOWN_CELL_PX + reach_cells + 1):
            yield row, col, _town(key, row, col)


def _town(key: int, row: int, col: int) -> Town | None:
    """Return the town of a cell, None where there is none."""
    if cell_hash(key + 41, row, col) > TOWN_SHARE:
        return None
    angle = math.pi * cell_hash(key + 42, row, col)
    return Town(
        row=(row + 0.2 + 0.6 * cell_hash(key + 43, row, col)) * TOWN_CELL_PX,
        col=(col + 0.2 + 0.6 * cell_hash(key + 44, row, col)) * TOWN_CELL_PX,
        radius=14 + 44 * cell_hash(key + 45, row, col) ** 2,
        cos=math.cos(angle),
        sin=math.sin(angle),
    )


def _draw_towns(key: int, window: Window, truth: np.ndarray, parcel: np.ndarray) -> None:
    """Draw towns with frayed edges, blocks and streets into `truth` and `parcel`."""
    for row, col, town in _towns(key, window, 1):
        if town is None:
            continue
        reach = math.ceil(1.5 * town.radius)
        box = Window(math.floor(town.row) - reach, math.floor(town.col) - reach, 2 * reach + 1, 2 * reach + 1)
        part = box.intersect(window)
        if part is None:
            continue
        at = part.slices_in(window)
        rows, cols = pixel_rows_cols(part)
        down, right = (rows - town.row).astype(np.float32), (cols - town.col).astype(np.float32)
        edge = np.float32(town.radius) * (np.float32(0.55) + np.float32(0.9) * fractal(key + 46, part, 24, 2))
        inside = down * down + right * right < edge * edge
        u = (down * np.float32(town.cos) - right * np.float32(town.sin)) * np.float32(1 / STREET_PX)
        v = (down * np.float32(town.sin) + right * np.float32(town.cos)) * np.float32(0.6 / STREET_PX)
        block_u, block_v = np.floor(u), np.floor(v)
        street = (u - block_u < 1.6 / STREET_PX) | (v - block_v < 0.96 / STREET_PX)
        number = hash32(key + 47 + 31 * row + 17 * col, block_u.astype(np.int64), block_v.astype(np.int64))
        truth[at] = np.where(inside, np.where(street, np.uint8(ROAD), np.uint8(TOWN)), truth[at])
        parcel[at] = np.where(inside, number, parcel[at])


def _draw_roads(key: int, window: Window, truth: np.ndarray) -> None:
    """Draw straight roads from each town to those right of it and below it; towns keep their streets."""
    is_town = truth == TOWN
    for row, col, town in _towns(key, window, 2):
        for other in (_town(key, row, col + 1), _town(key, row + 1, col)):
            if town is not None and other is not None:
                _draw_segment(window, town, other, truth)
    truth[is_town] = TOWN


def _draw_segment(window: Window, start: Town, end: Town, truth: np.ndarray) -> None:
    """Draw one road."""
    top, left = math.floor(min(start.row, end.row)) - 2, math.floor(min(start.col, end.col)) - 2
    bottom, right = math.ceil(max(start.row, end.row)) + 2, math.ceil(max(start.col, end.col)) + 2
    part = Window(top, left, bottom - top, right - left).intersect(window)
    if part is None:
        return
    rows, cols = pixel_rows_cols(part)
    length = math.hypot(end.row - start.row, end.col - start.col)
    down, across = (end.row - start.row) / length, (end.col - start.col) / length
    distance = ((rows - start.row) * across - (cols - start.col) * down).astype(np.float32)
    at = part.slices_in(window)
    truth[at] = np.where(np.abs(distance) < np.float32(ROAD_HALF_PX), np.uint8(ROAD), truth[at])
