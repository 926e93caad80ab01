"""Class names: from field values, and what `--classes old=new,old2=` makes of them."""

from __future__ import annotations

import difflib
import math
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from berunda.errors import ConfigError, GeoError

__all__ = ["class_name", "map_classes", "parse_class_mapping"]

MAX_CLASSES = 255
"""Class numbers are bytes and 0 means no data."""


def parse_class_mapping(text: str) -> dict[str, str]:
    """Return the mapping that `old=new,old2=` writes; an empty new name drops the class.

    Names with a comma or an equals sign cannot be written this way; the configuration file's `classes` takes
    them.

    Example:
        >>> parse_class_mapping("meadow=grassland, scrub=")
        {'meadow': 'grassland', 'scrub': ''}

    Raises:
        ConfigError: a part is not `old=new`, or a class is mapped twice.
    """
    mapping: dict[str, str] = {}
    for part in text.split(","):
        if not part.strip():
            continue
        old, sign, new = (" ".join(p.split()) for p in part.partition("="))
        if not sign or not old or "=" in new:
            raise ConfigError(f"--classes has '{part.strip()}': expected old=new, or old= to drop a class")
        if mapping.get(old, new) != new:
            raise ConfigError(f"--classes maps '{old}' to '{mapping[old]}' and to '{new}': expected one new name")
        mapping[old] = new
    if not mapping:
        raise ConfigError(f"--classes has no entry in '{text}': expected old=new,old2=")
    return mapping


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
    text = unicodedata.normalize("NFC", " ".join(str(value).split()))
    return text if text and text not in {"NaT", "<NA>"} else None


def map_classes(names: Iterable[str | None], mapping: Mapping[str, str] | None, source: str) -> list[str | None]:
    """Return the new name of each feature: None where it has no class, "" where the mapping drops it.

    Raises:
        GeoError: the mapping names a class that is not there, or too many classes are left, or none.
    """
    names = list(names)
    known = sorted({n for n in names if n})
    for old in mapping or {}:
        if old not in known:
            near = difflib.get_close_matches(old, known, 1) or [k for k in known if k.lower() == old.lower()]
            hint = f"did you mean '{near[0]}'?" if near else "correct --classes"
            raise GeoError(
                f"--classes names '{old}', which is not in {source}: expected one of {_listed(known)}; {hint}"
            )
    table = {k: " ".join(v.split()) for k, v in (mapping or {}).items()}
    mapped = [n if n is None else table.get(n, n) for n in names]
    left = sorted({n for n in mapped if n})
    if not left:
        found = f"{len(known)} before --classes" if known else "no feature has a value in the field"
        raise GeoError(f"{source} has no classes left ({found}): expected at least one; check --field and --classes")
    if len(left) > MAX_CLASSES:
        raise GeoError(
            f"{source} has {len(left)} different classes ({_listed(left[:3])}, ...): expected at most"
            f" {MAX_CLASSES};"
            " is --field the one with class names?"
        )
    return mapped


def _listed(names: list[str]) -> str:
    """Return names for a message."""
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
