"""Figures: accuracy, calibration, out-of-distribution layers, areas, and the reports that show them.

The folder shares its name with the verb, so it can be called: `berunda.assess(...)` is `berunda.assess.run.assess_map`
whether or not anything here was imported before.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from berunda.assess.run import AssessResult


class _Room(ModuleType):
    def __call__(self, *arguments: Any, **options: Any) -> AssessResult:
        """Assess a map; see `berunda.assess.run.assess_map`."""
        from berunda.assess.run import assess_map

        return assess_map(*arguments, **options)


sys.modules[__name__].__class__ = _Room
