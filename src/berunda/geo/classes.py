"""Class names: from field values, and what a mapping of old to new names makes of them."""

from __future__ import annotations

import difflib
import math
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from berunda.errors import GeoError

__all__ = ["class_name", "map_classes"]

MAX_NAME = 200
"""Characters of a class name."""
MAX_CLASSES = 255
"""Class numbers are bytes and 0 means no data."""


def class_name(value: Any) -> str | None:
    """Return a field's value as a class name: 3.0 is "3", spaces are tidied; None when it is missing."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    item = getattr(value, "item", None)
    value = item() if callable(item) else value
    if value is None or isinstance(value, float):
        if value is None or not math.isfinite(value):
            return None
        value = int(value) if value == int(value) else repr(value)
    if isinstance(value, bool):
        value = "true" if value else "false"
    plain = "".join(c for c in str(value) if c.isspace() or unicodedata.category(c) not in {"Cc", "Cs"})
    text = unicodedata.normalize("NFC", " ".join(plain.split()))
    return text if text and text not in {"NaT", "<NA>"} else None


def map_classes(
    names: Iterable[str | None], mapping: Mapping[str, str] | None, source: str, known: Iterable[str] = ()
) -> list[str | None]:
    """Return the new name of each feature: None where it has no class, "" where the mapping drops it.

    Args:
        names: class of each feature, None for none.
        mapping: old name -> new name, "" drops the class; classes not named stay.
        source: the file, for messages.
        known: further classes that the mapping may name.

    Raises:
        GeoError: the mapping names a class that is not there, or too many classes are left, or none.
    """
    names = list(names)
    there = sorted({n for n in names if n})
    allowed = sorted({*there, *known})
    for old in mapping or {}:
        if old not in allowed:
            near = difflib.get_close_matches(old, allowed, 1) or [k for k in allowed if k.lower() == old.lower()]
            hint = f"did you mean '{near[0]}'?" if near else "correct --classes"
            raise GeoError(
                f"--classes names '{old}', which is not in {source}: expected one of {_listed(allowed)}; {hint}"
            )
    table = {k: " ".join(v.split()) for k, v in (mapping or {}).items()}
    mapped = [n if n is None else table.get(n, n) for n in names]
    left = sorted({n for n in mapped if n})
    if not left:
        found = f"{len(there)} before --classes" if there else "no feature has a value in the field"
        raise GeoError(f"{source} has no classes left ({found}): expected at least one; check --field and --classes")
    if len(left) > MAX_CLASSES:
        raise GeoError(
            f"{source} has {len(left)} different classes ({_listed(left[:3])}, ...): expected at most {MAX_CLASSES};"
            " is --field the one with class names?"
        )
    for name in left:
        if len(name) > MAX_NAME or any(unicodedata.category(c) in ("Cc", "Cs") for c in name):
            raise GeoError(
                f"{source} has the class name {name[:40]!r}: expected at most {MAX_NAME} characters, none of them"
                " control characters; correct the field or choose another one with --field"
            )
    return mapped


def _listed(names: list[str]) -> str:
    """Return names for a message."""
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
