"""The runs of a benchmark that diverged: noted, so that a later call does not spend its time on the same again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from berunda.files import write_text

__all__ = ["DivergedRuns"]


class DivergedRuns:
    """Runs that diverged, with the settings they had; with others they may be tried anew.

    Args:
        path: the file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, name: str, error: Exception, setting: Mapping[str, Any]) -> None:
        """Note a run, which replaces one of its name."""
        self._write({**self._read(), name: {"error": str(error), "setting": dict(setting)}})

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
