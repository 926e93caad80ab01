"""The rows of a benchmark, grouped: one cell for the seeds of a method at one number of labels, its figures as text.

A mean of fewer than three seeds says so wherever it stands.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from berunda.bench.suite import KNOWN_FLOORS

__all__ = [
    "HEADLINE",
    "LEAST_SEEDS",
    "Cell",
    "Setting",
    "cells_of",
    "file_name",
    "labels_order",
    "markdown_table",
    "scalar_metrics",
    "with_spread",
]

LEAST_SEEDS = 3
HEADLINE = {
    "scene": ("oa", "Overall accuracy"),
    "multilabel": ("macro_auprc", "Macro AUPRC"),
    "segmentation": ("miou", "Mean IoU"),
}
"""The metric that a table shows first, by task."""

Row = Mapping[str, Any]


@dataclass(frozen=True, order=True)
class Setting:
    """What all cells of one table share."""

    dataset: str
    task: str
    encoder: str
    labels_unit: str

    @property
    def headline(self) -> tuple[str, str]:
        """The first metric's key and title."""
        return HEADLINE[self.task]


@dataclass(frozen=True)
class Cell:
    """The runs of one method at one number of labels.

    Attributes:
        setting: data set, task, encoder and unit of the labels.
        method: name with its variant, or the title that a suite gives both; the encoder whose frozen features a floor
            rests on, and whether it saw the test images without labels.
        labels: how many, as text.
        rows: one a seed, by seed.
    """

    setting: Setting
    method: str
    labels: str
    rows: tuple[Row, ...]

    def values(self, metric: str) -> list[float]:
        """Return what the seeds have of a metric, leaving out those that have none."""
        found = (row["metrics"].get(metric) for row in self.rows)
        return [float(value) for value in found if value is not None]

    def fields(self, name: str) -> list[float]:
        """Return the numbers that the seeds have of a field of their rows."""
        return [float(row[name]) for row in self.rows if row.get(name) is not None]

    def texts(self, name: str) -> str:
        """Return the different texts of a field, sorted, in one."""
        return "; ".join(sorted({str(row[name]) for row in self.rows if row.get(name)}))

    def percent(self, metric: str) -> str:
        """Return mean and standard deviation over the seeds in percent, see `with_spread`."""
        return with_spread([100 * value for value in self.values(metric)], 1)

    def share(self, name: str) -> str:
        """Return mean and standard deviation of a field of the rows in percent, see `with_spread`."""
        return with_spread([100 * value for value in self.fields(name)], 1)

    def number(self, metric: str, digits: int = 3, times: float = 1.0) -> str:
        """Return mean and standard deviation over the seeds, multiplied by `times`, see `with_spread`."""
        return with_spread([times * value for value in self.values(metric)], digits)

    def mean(self, name: str, digits: int = 0) -> str:
        """Return the mean of a field of the rows, "" without it."""
        found = self.fields(name)
        return f"{statistics.mean(found):,.{digits}f}" if found else ""


def cells_of(rows: Iterable[Row]) -> list[Cell]:
    """Group rows by setting, method and labels, in a fixed order; rows without their headline are left out.

    Rows that train no net (floors on frozen features, a forest on pixels) stand beside every net on the same data.
    """
    groups: dict[tuple[Setting, str, str], list[Row]] = {}
    judged = [row for row in rows if row["metrics"].get(HEADLINE.get(row["task"], ("",))[0]) is not None]
    encoders: dict[tuple[str, ...], set[str]] = {}
    for row in judged:
        if not _is_floor(row):
            encoders.setdefault(_beside_encoder(row), set()).add(str(row["encoder"]))
    for row in judged:
        dataset, task, unit = _beside_encoder(row)
        own = {str(row["encoder"])}
        for encoder in encoders.get((dataset, task, unit), own) if _is_floor(row) else own:
            setting = Setting(dataset, task, encoder, unit)
            groups.setdefault((setting, _method(row), str(row["labels"])), []).append(row)
    ordered = sorted(groups.items(), key=lambda item: (item[0][0], item[0][1], labels_order(item[0][2])))
    return [
        Cell(setting, method, labels, tuple(sorted(runs, key=lambda row: int(row["seed"]))))
        for (setting, method, labels), runs in ordered
    ]


def _is_floor(row: Row) -> bool:
    return not row["encoder"] or row["method"] in KNOWN_FLOORS


def _beside_encoder(row: Row) -> tuple[str, str, str]:
    return str(row["dataset"]), str(row["task"]), str(row["labels_unit"])


def _method(row: Row) -> str:
    named = [str(row["method"]).replace("_", " "), str(row.get("variant") or "")]
    words = [str(row["title"])] if row.get("title") else named
    words.append(f"({row['encoder']})" if row["method"] in KNOWN_FLOORS else "")
    words.append("(transductive)" if row.get("is_transductive") else "")
    return " ".join(word for word in words if word)


def file_name(text: str) -> str:
    """Return `text` as a part of a file's name: letters, digits, and "._-"; other signs become "_"."""
    return "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in text)


def labels_order(labels: str) -> float:
    """Return a key that sorts numbers of labels, "all" last.

    Example:
        >>> sorted(["all", "20", "5", "0.1"], key=labels_order)
        ['0.1', '5', '20', 'all']
    """
    try:
        return float(labels)
    except ValueError:
        return float("inf")


def scalar_metrics(cells: Sequence[Cell]) -> list[str]:
    """Return the names of all metrics that are single numbers, sorted."""
    rows = (row for cell in cells for row in cell.rows)
    found = {name for row in rows for name, value in row["metrics"].items() if _is_number(value)}
    return sorted(found)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def with_spread(values: Sequence[float], digits: int) -> str:
    """Return mean and standard deviation over seeds as text; fewer than three seeds are counted, none give "".

    Example:
        >>> with_spread([1.0, 2.0, 3.0], 1), with_spread([1.0, 3.0], 1), with_spread([1.0], 1)
        ('2.0 ± 1.0', '2.0 ± 1.4 (2 seeds)', '1.0 (1 seed)')
    """
    if not values:
        return ""
    mean = f"{statistics.mean(values):.{digits}f}"
    if len(values) == 1:
        return f"{mean} (1 seed)"
    spread = f"{mean} ± {statistics.stdev(values):.{digits}f}"
    return spread if len(values) >= LEAST_SEEDS else f"{spread} ({len(values)} seeds)"


def markdown_table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; pipes in cells are escaped.

    Example:
        >>> print(markdown_table(["a", "b"], [["1", "x|y"]]))
        | a | b |
        | --- | --- |
        | 1 | x\\|y |
    """
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows)
