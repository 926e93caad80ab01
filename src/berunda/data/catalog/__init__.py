"""The data sets: found by looking through this folder. Names are found without importing any of them.

A module of this package that is not part of its own machinery is a data set, named like its file.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from berunda.errors import DataError

if TYPE_CHECKING:
    from berunda.data.catalog.contract import Entry

__all__ = ["entries", "find", "load", "names"]

_MACHINERY = frozenset({"contract"})


@cache
def names() -> tuple[str, ...]:
    """Return the names of all data sets, sorted; imports none of them."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in found if not name.startswith("_") and name not in _MACHINERY))


def load(name: str) -> Entry:
    """Return the data set `name`.

    Raises:
        DataError: there is none of this name; the nearest is told.
    """
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise DataError(
            f"data set {name!r} is unknown, expected one of {', '.join(names())}, or the path of a folder with one "
            f"sub-directory a class or of a .csv table{hint}"
        )
    from berunda.data.catalog.contract import Entry

    members = vars(importlib.import_module(f"{__name__}.{name}")).values()
    own = [m for m in members if inspect.isclass(m) and issubclass(m, Entry) and vars(m).get("name") == name]
    if not own:
        raise DataError(f"data set {name!r}: its file defines no Entry whose name is {name!r}")
    entry: Entry = own[0]()
    return entry


def entries() -> tuple[Entry, ...]:
    """Return all data sets, sorted by name."""
    return tuple(load(name) for name in names())


def find(dataset: str, folder: Path | None = None) -> tuple[Entry, Path]:
    """Return the data set that `dataset` means, and where it lies.

    Args:
        dataset: a name of the catalogue, which goes first, or the path of a folder or of a .csv table.
        folder: where the data set of that name lies (a folder, or the archive or table itself); else where it is
            usually kept.

    Raises:
        DataError: unknown, or not found: the message says what to fetch from where into which folder.
    """
    path = Path(dataset).expanduser()
    if dataset not in names() and path.exists():
        entry = load("csv" if path.suffix.lower() == ".csv" else "folder")
        folder = path
    else:
        entry = load(dataset)
    root = entry.locate(folder)
    if root is None:
        raise entry.missing(folder)
    return entry, root
