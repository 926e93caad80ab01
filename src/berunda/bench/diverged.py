"""The runs of a benchmark that diverged: noted, so that a later call does not spend its time on the same again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from berunda.files import write_text

__all__ = ["DivergedRuns"]


class DivergedRuns:
    """Runs that diverged, with the settings they had; with others they may be tried anew.

    Args:
        path: the file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def beside(cls, rows: Path) -> Self:
        """Return those that are noted beside a file of rows, in `<suite>_diverged.json`."""
        return cls(rows.with_name(f"{rows.stem}_diverged.json"))

    def add(self, name: str, error: Exception, setting: Mapping[str, Any]) -> None:
        """Note a run, which replaces one of its name."""
        self._write({**self._read(), name: {"error": str(error), "setting": dict(setting)}})

    def drop(self, name: str) -> None:
        """Forget a run, which came to its end."""
        found = self._read()
        if found.pop(name, None) is not None:
            self._write(found)

    def told(self) -> dict[str, str]:
        """Return what happened to each run, by name, sorted."""
        return {name: str(told["error"]) for name, told in sorted(self._read().items())}

    def take_over(self, other: DivergedRuns) -> None:
        """Note what another file notes."""
        if found := other._read():
            self._write({**self._read(), **found})

    def names(self, setting: Mapping[str, Any]) -> list[str]:
        """Return the names of the runs that diverged with these settings, sorted."""
        return sorted(name for name, told in self._read().items() if told["setting"] == setting)

    def _read(self) -> dict[str, Any]:
        return dict(json.loads(self.path.read_text(encoding="utf-8"))) if self.path.is_file() else {}

    def _write(self, found: Mapping[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.path, json.dumps(found, indent=1) + "\n")
