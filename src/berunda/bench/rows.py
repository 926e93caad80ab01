"""The file of a benchmark: one row a finished run, rewritten whole under a lock, so that any run can be resumed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from berunda.errors import ConfigError, DataError
from berunda.files import write_text

__all__ = ["KEY", "REQUIRED", "WALL_TIME", "RowFile", "refuse_other_settings", "variant_of"]

KEY = ("suite", "dataset", "task", "method", "variant", "encoder", "labels", "labels_unit", "seed")
"""What tells one run from another; `variant` names settings that differ from the method's defaults."""
REQUIRED = (
    *("suite", "dataset", "task", "method", "encoder", "labels", "labels_unit", "seed"),
    *("metrics", "wall_s", "images_per_s", "hardware", "command", "version"),
)
WALL_TIME = "wall time: from the opening of the decoded images to the last figure; training is a part of it"
"""What `wall_s` and `training_s` are in the rows of classifiers of images and of masks."""


class RowFile:
    """Rows of finished runs in `benchmarks/results/<suite>.json`.

    Args:
        path: the file; it need not exist.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def rows(self) -> list[dict[str, Any]]:
        """Return all rows.

        Raises:
            DataError: the file does not hold a list of rows.
        """
        if not self.path.exists():
            return []
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{self.path}: not JSON ({error}); move it away to start anew") from error
        if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
            raise DataError(f"{self.path}: expected a list of rows; move it away to start anew")
        return found

    def has(self, **key: Any) -> bool:
        """Say whether a row agrees with all of `key`."""
        return any(all(row.get(k) == v for k, v in key.items()) for row in self.rows())

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add finished runs; a row of the same run (see KEY) is replaced. The file is whole at any moment.

        Raises:
            DataError: a row lacks a field that the protocol requires.
        """
        for row in rows:
            lacking = [name for name in REQUIRED if name not in row]
            if lacking:
                raise DataError(f"a benchmark row lacks {', '.join(lacking)}")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_suffix(".lock")):
            new = {_key(row) for row in rows}
            kept = [row for row in self.rows() if _key(row) not in new] + [dict(row) for row in rows]
            kept.sort(key=lambda row: json.dumps(_key(row)))
            write_text(self.path, json.dumps(kept, indent=1, allow_nan=False) + "\n")


def refuse_other_settings(rows: RowFile, own: Mapping[str, Any], dataset: str, encoder: str) -> None:
    """Refuse to add runs to others on other images of that name, or that were trained for longer or otherwise.

    Of rows of another encoder, and of those that train no net, only the images have to be the same. A setting that a
    row of a net does not tell is another one.

    Raises:
        ConfigError: naming what differs.
    """
    for row in rows.rows():
        other = row.get("setting", {})
        if row.get("dataset") != dataset:
            continue
        is_net = bool(set(other) - {"fingerprint"})
        compared = own if is_net and row.get("encoder") == encoder else set(other) & {"fingerprint"}
        told = [f"{key} {other.get(key)} (now {own[key]})" for key in compared if other.get(key) != own[key]]
        if told:
            raise ConfigError(
                f"{rows.path}: its runs were trained otherwise: {', '.join(told)}; expected the same of all runs of a "
                "table: give the data and options they were made with, or choose another --out"
            )


def variant_of(options: Mapping[str, Any]) -> str:
    """Return in words what differs from a method's defaults, for the field `variant`; "" for nothing.

    Example:
        >>> variant_of({"tau": 0.8, "mu": 3})
        'mu=3, tau=0.8'
    """
    return ", ".join(f"{name}={value}" for name, value in sorted(options.items()))


def _key(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(row.get(name, "")) for name in KEY)
