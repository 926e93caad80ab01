"""The table of generated images: how far they are from real ones, in the features of a named encoder."""

from __future__ import annotations

from collections.abc import Sequence

from berunda.bench.cells import Cell, markdown_table

__all__ = ["sample_part"]

_TITLE = (
    "**Generated images**, small is good: distances to test images in the features of {encoder}, not of Inception, so "
    "neither FID nor KID; the kernel distance times 1000, with its standard deviation over subsets of the images; of "
    "training images: the same distances of real ones, which no generator can be expected to fall below"
)
_HEAD = (
    "method",
    "labels",
    "Frechet",
    "kernel",
    "over subsets",
    "Frechet of training images",
    "kernel of training images",
)
_MILLI = 1000.0


def sample_part(cells: Sequence[Cell]) -> list[str]:
    """Return the parts of a page on generated images, nothing where there are none."""
    parts = []
    for encoder in sorted({cell.rows[0]["metrics"].get("samples_encoder") or "" for cell in cells} - {""}):
        lines = [_line(cell, encoder) for cell in cells if cell.rows[0]["metrics"].get("samples_encoder") == encoder]
        parts += [_TITLE.format(encoder=encoder), markdown_table([*_HEAD, "generated, real, of a subset"], lines)]
    return parts


def _line(cell: Cell, encoder: str) -> list[str]:
    frechet, kernel = f"frechet_{encoder}", f"kernel_{encoder}"
    counts = ", ".join(f"{round(cell.values(name)[0])}" for name in ("n_generated", "n_real", "n_subset"))
    return [
        *(cell.method, cell.labels, cell.number(frechet, 2), cell.number(kernel, 2, _MILLI)),
        cell.number(f"{kernel}_deviation", 2, _MILLI),
        *(cell.number(f"{frechet}_of_training", 2), cell.number(f"{kernel}_of_training", 2, _MILLI)),
        counts,
    ]
