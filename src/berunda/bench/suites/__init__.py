"""The suites: found by looking through this folder. Each file holds one, called `SUITE`."""

from __future__ import annotations

import difflib
import importlib
import pkgutil

from berunda.bench.suite import Suite
from berunda.errors import ConfigError

__all__ = ["load_suite", "suite_names"]


def suite_names() -> tuple[str, ...]:
    """Return the names of all suites, sorted; imports none of them."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def load_suite(name: str) -> Suite:
    """Return the suite `name`.

    Raises:
        ConfigError: there is none of this name; the nearest is told.
    """
    if name not in suite_names():
        near = difflib.get_close_matches(name, suite_names(), n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise ConfigError(f"suite '{name}' is unknown, expected one of {', '.join(suite_names())}{hint}")
    suite: Suite = importlib.import_module(f"{__name__}.{name}").SUITE
    return suite
