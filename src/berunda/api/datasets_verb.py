"""The data sets that can be opened by name: which are here, and where to get the others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from berunda.data import catalog
from berunda.data.catalog.contract import Entry

__all__ = ["DatasetFacts", "datasets"]


@dataclass(frozen=True)
class DatasetFacts:
    """A data set of the catalogue.

    Attributes:
        name: as `berunda train` takes it.
        title: one line.
        tasks: what it has labels for.
        about: size and number of its images.
        licence: what is known of it, and what to cite.
        root: where it lies; None where it is not found.
        is_anywhere: whether it stands for any folder or table that the user names, and so lies nowhere.
        advice: what to do where it is not found, "" else.
    """

    name: str
    title: str
    tasks: tuple[str, ...]
    about: str
    licence: str
    root: Path | None
    is_anywhere: bool
    advice: str

    @property
    def status(self) -> str:
        """In one word, whether it can be opened."""
        return "any" if self.is_anywhere else "here" if self.root is not None else "missing"


def datasets(name: str | None = None) -> tuple[DatasetFacts, ...]:
    """Return all data sets of the catalogue, by name, or the one of this name; no image is read.

    Raises:
        DataError: there is none of this name; the nearest is told.
    """
    return tuple(_facts(entry) for entry in (catalog.entries() if name is None else (catalog.load(name),)))


def _facts(entry: Entry) -> DatasetFacts:
    is_anywhere = not entry.folders
    root = None if is_anywhere else entry.locate()
    return DatasetFacts(
        name=entry.name,
        title=entry.title,
        tasks=tuple(entry.tasks),
        about=entry.about,
        licence=entry.licence,
        root=root,
        is_anywhere=is_anywhere,
        advice="" if is_anywhere or root is not None else str(entry.missing()),
    )
