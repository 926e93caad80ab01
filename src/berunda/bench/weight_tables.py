"""What a learned weight between two losses did: its curve in the rows, and where it started and ended in a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from berunda.bench.cells import Cell, markdown_table, with_spread

__all__ = ["FIELD", "N_POINTS", "has_weight", "weight_field", "weight_part"]

N_POINTS = 64
"""Steps of a training at which its row keeps the weight, at most: the first, the last, and even ones between."""
FIELD = "learned_weight"
"""Of a row: the steps, and the share of the supervised loss at each."""
_TITLE = (
    "**Learned weight**: share of the supervised loss in the sum, at the start, half way and at the end of the "
    "training; at 0.5 the sum is that of the fixed weight at the method's default"
)


def weight_field(log: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Return the field of a row with the curve of a learned weight; nothing where none was learned.

    Args:
        log: one row a step; those of methods that weigh two losses have "weight".

    Example:
        >>> weight_field([{"weight": 0.5}, {"weight": 0.61}])
        {'learned_weight': {'step': [0, 1], 'value': [0.5, 0.61]}}
        >>> weight_field([{"weight": 0.5}, {"weight": 0.5}])
        {}
    """
    told = [(step, row["weight"]) for step, row in enumerate(log) if "weight" in row]
    if len({value for _, value in told}) < 2:
        return {}
    places = np.linspace(0, len(told) - 1, min(N_POINTS, len(told))).round().astype(int).tolist()
    return {FIELD: {"step": [told[i][0] for i in places], "value": [round(told[i][1], 5) for i in places]}}


def has_weight(cell: Cell) -> bool:
    """Say whether a run of the cell learned its weight."""
    return any(FIELD in row for row in cell.rows)


def weight_part(cells: Sequence[Cell]) -> list[str]:
    """Return the parts of a page on learned weights, nothing where there is none."""
    learned = [cell for cell in cells if has_weight(cell)]
    if not learned:
        return []
    lines = []
    for cell in learned:
        curves = [row[FIELD]["value"] for row in cell.rows if FIELD in row]
        places = [[float(values[at]) for values in curves] for at in (0, len(curves[0]) // 2, -1)]
        lines.append([cell.method, cell.labels, *(with_spread(values, 3) for values in places)])
    return [_TITLE, markdown_table(["method", "labels", "start", "half way", "end"], lines)]
