"""Choosing options of a method on validation images: every value is trained, the best one makes the row.

Each candidate is a row of a file of its own, so that a search goes on where it was stopped. Its cost is that of all
candidates; what the others reached on the test images decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from berunda.bench.rows import RowFile
from berunda.errors import DataError

__all__ = ["search_suite", "searched_row"]

C = TypeVar("C")
_SUMMED = ("image_passes", "wall_s", "training_s")


def search_suite(suite: str) -> str:
    """Return the name of the suite that the candidates of a search are rows of."""
    return f"{suite}_search"


def searched_row(
    candidates: Sequence[C],
    rows: RowFile,
    key_of: Callable[[C], Mapping[str, Any]],
    make_row: Callable[[C], Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the row of the best candidate, with the cost of all of them, and "search": what each reached.

    Args:
        candidates: to train, in order; the first of equally good ones is taken.
        rows: of the candidates that are done.
        key_of: what tells a candidate's row from others.
        make_row: trains one; its row has "validation", the first metric on validation images, "options", and what it
            cost: "image_passes", "wall_s" and "training_s".

    Raises:
        DataError: there are no validation labels to choose by.
    """
    done = []
    for candidate in candidates:
        key = key_of(candidate)
        if not rows.has(**key):
            rows.add([{**make_row(candidate), **key}])
        done.append(next(row for row in rows.rows() if all(row.get(name) == value for name, value in key.items())))
    if any(row.get("validation") is None for row in done):
        raise DataError(
            f"{rows.path}: a search found no validation labels to choose by, expected some; use a data set with "
            "validation images, or set the option"
        )
    best = max(done, key=lambda row: float(row["validation"]))
    told = [{"options": row["options"], "validation": row["validation"], "chosen": row is best} for row in done]
    cost = {name: sum(row[name] for row in done) for name in _SUMMED}
    cost["images_per_s"] = round(cost["image_passes"] / max(cost["training_s"], 1e-9), 1)
    return {**best, **cost, "search": told}
