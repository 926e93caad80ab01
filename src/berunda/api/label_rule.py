"""A rule such as `B02>1800` that leaves out labels, for example polygons under cloud."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from berunda.errors import ConfigError

__all__ = ["LabelRule"]

_PATTERN = re.compile(r"^\s*(?P<band>[^<>=\s]+)\s*(?P<sign>[<>])\s*(?P<bound>[-+0-9.eE]+)\s*$")


@dataclass(frozen=True)
class LabelRule:
    """A bound on one band, in the units of the raw pixels.

    Example:
        >>> LabelRule.parse("B02>1800").holds(1900.0)
        True
    """

    band: str
    sign: str
    bound: float

    @classmethod
    def parse(cls, text: str) -> LabelRule:
        """Return the rule that `text` states.

        Raises:
            ConfigError: the text is not BAND>NUMBER or BAND<NUMBER.
        """
        match = _PATTERN.match(text)
        try:
            bound = float(match["bound"]) if match else float("nan")
        except ValueError:
            bound = float("nan")
        if match is None or not np.isfinite(bound):
            raise ConfigError(
                f"--drop-labels-where: found {text!r}, expected BAND>NUMBER or BAND<NUMBER, such as B02>1800"
            )
        return cls(match["band"], match["sign"], bound)

    def holds(self, values: np.ndarray | float) -> np.ndarray | bool:
        """Say where `values` pass the bound."""
        return values > self.bound if self.sign == ">" else values < self.bound

    def __str__(self) -> str:
        return f"{self.band} {self.sign} {self.bound:g}"
