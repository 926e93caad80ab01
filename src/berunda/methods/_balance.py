"""The setting by which methods let every class of a batch count once."""

from __future__ import annotations

from typing import Any

from berunda.methods.contract import Task, setting

__all__ = ["balance_setting"]


def balance_setting(of_what: str, tasks: tuple[Task, ...]) -> Any:
    """Return the field of a method that balances classes in its supervised loss, which several labels do not need.

    Args:
        of_what: a class may have many of.
        tasks: those with one label that the method serves.
    """
    about = f"let every class of a batch count once, however many {of_what} it has"
    return setting(True, about, valid=(False, True), tasks=tasks)
