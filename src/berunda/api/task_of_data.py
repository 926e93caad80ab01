"""Which task a data set has labels for."""

from __future__ import annotations

from pathlib import Path

from berunda.data.catalog import find
from berunda.errors import ConfigError
from berunda.models.spec import Task

__all__ = ["task_of_data"]


def task_of_data(dataset: str, folder: Path | None, wanted: Task | None) -> Task:
    """Return the task that is wanted, else the one that the data has labels for; no image is read.

    Args:
        dataset: name or path.
        folder: where the data set of that name lies; None for its usual places.
        wanted: the task asked for; None where the data is to tell.

    Raises:
        ConfigError: the data set has no labels for the task.
        DataError: it is unknown or missing.
    """
    entry, root = find(dataset, folder)
    found = wanted or entry.task_of(root)
    if found not in entry.tasks:
        raise ConfigError(
            f"data set {entry.name}: task {found!r} found, expected one of {', '.join(entry.tasks)}; choose another "
            "data set or suite"
        )
    return found
