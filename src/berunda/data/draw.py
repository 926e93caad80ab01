"""Drawing polygons on a toy landscape the way a person would: compact shapes well inside one class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from berunda.data.landscape import CLASS_NAMES, ROAD
from berunda.data.order import Randomness
from berunda.data.synthetic import Landscape, block
from berunda.geo.grid import Grid, Window

__all__ = ["draw_polygons"]

CELL_PX = 96
"""Each cell of this side gives at most one polygon per class, so polygons of a class never touch."""

MIN_PX = 12
MAX_CELLS = 4000


def draw_polygons(spec: Landscape, per_class: int) -> tuple[list[Any], list[int]]:
    """Return shapely polygons in map coordinates and their class numbers, at most `per_class` of each class.

    Cells are visited in a random order that depends on seed and site only, until every class has enough.
    """
    rng = Randomness(spec.seed).numpy(f"polygons {spec.site}")
    wanted = dict.fromkeys(range(1, len(CLASS_NAMES) + 1), per_class)
    geometries: list[Any] = []
    classes: list[int] = []
    for cell in _cells(spec, rng):
        if not any(wanted.values()):
            break
        _, truth, cloud = block(spec, cell)
        for class_id, n in wanted.items():
            radius = float(rng.uniform(4, 13))
            if n == 0:
                continue
            shape = _compact(truth == class_id, cloud, radius, is_thin=class_id == ROAD)
            if shape is not None:
                geometries.append(_outline(shape, spec.grid.crop(cell), is_thin=class_id == ROAD))
                classes.append(class_id)
                wanted[class_id] -= 1
    order = np.argsort(np.array(classes, int), kind="stable")
    return [geometries[i] for i in order], [classes[i] for i in order]


def _cells(spec: Landscape, rng: np.random.Generator) -> Iterator[Window]:
    """Yield cells inside the landscape in random order, without repeats."""
    n_rows, n_cols = max(1, spec.rows // CELL_PX), max(1, spec.cols // CELL_PX)
    n = n_rows * n_cols
    numbers = rng.permutation(n) if n <= 10**6 else np.unique(rng.integers(0, n, MAX_CELLS))
    if n > 10**6:
        rng.shuffle(numbers)
    for number in numbers[:MAX_CELLS]:
        row, col = int(number) // n_cols * CELL_PX, int(number) % n_cols * CELL_PX
        yield Window(row, col, min(CELL_PX, spec.rows - row), min(CELL_PX, spec.cols - col))


def _compact(mask: np.ndarray, cloud: np.ndarray, radius: float, *, is_thin: bool) -> np.ndarray | None:
    """Return a compact piece of a mask, away from its edge unless the class is thin; None if too small."""
    from scipy import ndimage

    room = np.pad(mask & ~cloud, 1)
    depth = ndimage.distance_transform_cdt(room, metric="taxicab")[1:-1, 1:-1]
    inner = depth >= (1 if is_thin else 2)
    if not inner.any():
        return None
    row, col = np.unravel_index(int(np.argmax(depth)), depth.shape)
    down, across = np.ogrid[: mask.shape[0], : mask.shape[1]]
    inner &= (down - row) ** 2 + (across - col) ** 2 <= radius**2
    parts, _ = ndimage.label(inner)
    piece = np.asarray(parts == parts[row, col])
    return piece if piece.sum() >= MIN_PX else None


def _outline(piece: np.ndarray, grid: Grid, *, is_thin: bool) -> Any:
    """Return the outline of a piece without holes, smoothed by less than a pixel unless it is thin."""
    import shapely
    from rasterio.features import shapes

    found = [
        outline["coordinates"][0]
        for outline, value in shapes(piece.astype(np.uint8), connectivity=4, transform=grid.transform)
        if value == 1
    ]
    polygon = shapely.polygons(found[0])
    return polygon if is_thin else shapely.simplify(polygon, 0.8 * grid.resolution[0])
