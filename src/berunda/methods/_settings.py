"""The fields of a method: hyper-parameters that carry their documentation, and what is wrong with a value of one."""

from __future__ import annotations

from dataclasses import Field, field, fields
from typing import Any

from berunda.models.spec import Task

__all__ = ["balance_setting", "fault_of", "same_setting", "setting"]


def setting(
    default: Any, about: str, *, valid: tuple[Any, ...], unit: str = "", source: str = "", tasks: tuple[Task, ...] = ()
) -> Any:
    """Return a dataclass field for one hyper-parameter, with all that its documentation is derived from.

    Args:
        default: value where nothing else is asked for.
        about: what it is, in one line.
        valid: (low, high), both included, for numbers; the allowed values for text, of which a single one says in words
            what it may be, and the method itself refuses all else; (False, True) for a switch.
        unit: "images", "share", "px", ...; "" for a pure number or a name.
        source: paper, and equation or section, that the default comes from; "" for the project's own choice.
        tasks: those for which it changes anything; empty for all that the method serves. Set for another it is refused.
    """
    metadata = {"help": about, "unit": unit or "1", "range": valid, "source": source or "Berunda", "tasks": tasks}
    return field(default=default, metadata=metadata)


def balance_setting(of_what: str, tasks: tuple[Task, ...]) -> Any:
    """Return the field of a method that balances classes in its supervised loss, which several labels do not need.

    Args:
        of_what: a class may have many of.
        tasks: those with one label that the method serves.
    """
    about = f"let every class of a batch count once, however many {of_what} it has"
    return setting(True, about, valid=(False, True), tasks=tasks)


def same_setting(like: type[Any], name: str) -> Any:
    """Return a dataclass field like the one called `name` of the method `like`, documented alike, for all tasks."""
    one = next(item for item in fields(like) if item.name == name)
    return field(default=one.default, metadata={**one.metadata, "tasks": ()})


def fault_of(item: Field[Any], value: Any) -> str:
    """Return what is wrong with the value of a setting, "" if nothing."""
    valid = item.metadata.get("range")
    is_open = isinstance(item.default, str) and len(valid or ()) == 1
    if not valid or (is_open and isinstance(value, str)):
        return ""
    if isinstance(item.default, (bool, str)):
        allowed = ", ".join(str(choice).lower() if isinstance(choice, bool) else choice for choice in valid)
        return "" if value in valid else f"option '{item.name}' is {value!r}, expected one of {allowed}"
    if isinstance(value, (int, float)) and valid[0] <= value <= valid[1]:
        return ""
    return f"option '{item.name}' is {value!r}, expected {valid[0]:g} to {valid[1]:g}"
