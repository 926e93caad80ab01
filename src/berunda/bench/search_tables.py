"""The table of a search: what each value of an option reached on the validation images, and which was chosen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from berunda.bench.cells import Cell, markdown_table

__all__ = ["search_part"]

_TITLE = (
    "**Options chosen on validation images**: each value was trained as long as any other run, so a row with a search "
    "had as many times the compute of one without, which its cost tells; figures on the validation images, %, the "
    "chosen one in bold"
)


def search_part(cells: Sequence[Cell]) -> list[str]:
    """Return the parts of a page on searches, nothing where there was none."""
    lines = list(_lines(cells))
    values = list(dict.fromkeys(value for line in lines for value in line[1]))
    if not lines:
        return []
    table = markdown_table(
        ["method", "labels", "seed", *values],
        ([*head, *(told.get(value, "") for value in values)] for head, told in lines),
    )
    return [_TITLE, table]


def _lines(cells: Sequence[Cell]) -> Iterator[tuple[list[str], dict[str, str]]]:
    """Yield what stands before the figures of a run, and its figures by value."""
    for cell in cells:
        for row in cell.rows:
            if "search" in row:
                told = row["search"]
                names = [name for name in told[0]["options"] if len({str(one["options"][name]) for one in told}) > 1]
                figures = {}
                for one in told:
                    text = f"{100 * one['validation']:.1f}"
                    value = ", ".join(f"{name}={one['options'][name]}" for name in names)
                    figures[value] = f"**{text}**" if one["chosen"] else text
                yield [cell.method, cell.labels, str(row["seed"])], figures
