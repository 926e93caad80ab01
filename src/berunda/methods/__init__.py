"""The methods: found by looking through this folder and the entry-point group `berunda.methods`.

A module of this package that is not part of its own machinery is a method, named like its file; an
installed package adds one with an entry point whose name is the method's and whose value is the class.
Names are found without importing any method, and so without torch.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
import typing
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from berunda.errors import ConfigError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from berunda.methods.contract import Method

__all__ = ["check_method_name", "describe_method", "load_method", "make_method", "method_names"]

ENTRY_POINTS = "berunda.methods"
_MACHINERY = frozenset({"contract", "check"})


def method_names() -> tuple[str, ...]:
    """Return the names of all methods, sorted; imports none of them."""
    return tuple(sorted({*_own_names(), *_outside()}))


def check_method_name(name: str) -> None:
    """Raise unless there is a method of this name; imports none of them.

    Raises:
        ConfigError: there is none; the nearest name is told.
    """
    if name not in method_names():
        raise ConfigError(_unknown("method", name, method_names()))


def load_method(name: str) -> type[Method]:
    """Return the class of the method `name`; the project's own methods come before those of other packages.

    Raises:
        ConfigError: if there is no such method, or its module holds none of that name.
    """
    check_method_name(name)
    from berunda.methods.contract import Method

    if name in _own_names():
        members = vars(importlib.import_module(f"{__name__}.{name}")).values()
        for member in members:
            if inspect.isclass(member) and issubclass(member, Method) and vars(member).get("name") == name:
                return member
        raise ConfigError(f"method '{name}': its file defines no Method whose name is '{name}'")
    point = _outside()[name]
    found = point.load()
    if not (inspect.isclass(found) and issubclass(found, Method) and vars(found).get("name") == name):
        raise ConfigError(f"method '{name}': entry point {point.value} is no Method whose name is '{name}'")
    return found


def make_method(name: str, options: Mapping[str, Any] | None = None) -> Method:
    """Return the method `name` with `options`; text is read as the option's type.

    An option `other.name` is one of the method `other` that goes on after this one.

    Raises:
        ConfigError: if there is no such method, or naming every option that is unknown, of the wrong type
            or out of its range.

    Example:
        >>> make_method("fixmatch", {"threshold": "0.8"}).threshold
        0.8
    """
    method = load_method(name)
    types = typing.get_type_hints(method)
    known = tuple(item.name for item in fields(method))
    faults, values = [], {}
    of_followers: dict[str, dict[str, Any]] = {}
    for option, value in (options or {}).items():
        follower, dot, own = option.partition(".")
        if dot:
            of_followers.setdefault(follower, {})[own] = value
            continue
        if option not in known:
            faults.append(_unknown("option", option, known))
            continue
        try:
            values[option] = _converted(value, types[option])
        except (TypeError, ValueError):
            faults.append(f"option '{option}' is {value!r}, expected {types[option].__name__}")
    if faults:
        raise ConfigError(f"method '{name}': " + "; ".join(faults))
    made = method(**values)
    for follower, given in of_followers.items():
        made = made.with_follower_options(follower, given)
    return made


def describe_method(name: str) -> dict[str, Any]:
    """Return what there is to know about a method, in plain types that JSON can hold.

    Returns:
        name, summary (one line), doc (the whole docstring), source, settings (a list of name, type,
        default, help, unit, range, source, tasks), and with the default settings needs and abilities: whether its
        models generate images ("generates"), fill gaps ("fills"), and tell log p(x) ("density").
    """
    from berunda.methods.contract import Method

    method = load_method(name)
    made = method()
    doc = inspect.getdoc(method) or ""
    types = typing.get_type_hints(method)
    settings = [
        {
            "name": item.name,
            "type": types[item.name].__name__,
            "default": item.default,
            **{key: item.metadata.get(key) for key in ("help", "unit", "source")},
            "tasks": list(item.metadata.get("tasks", ())),
            "range": list(item.metadata.get("range", ())),
        }
        for item in fields(method)
    ]
    return {
        "name": name,
        "summary": doc.splitlines()[0] if doc else "",
        "doc": doc,
        "source": _source_of(doc),
        "settings": settings,
        "needs": asdict(made.needs()),
        "abilities": {
            "generates": method.generate is not Method.generate,
            "fills": made.can_fill(),
            "density": made.has_density(),
        },
    }


def _own_names() -> frozenset[str]:
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return frozenset(name for name in found if not name.startswith("_")) - _MACHINERY


def _outside() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def _unknown(what: str, name: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return f"{what} '{name}' is unknown, expected one of {', '.join(known) or '(none)'}{hint}"


def _converted(value: Any, kind: type) -> Any:
    """Return `value` as `kind` (bool, int, float or str) without losing anything.

    Raises:
        ValueError: if that cannot be.
    """
    if kind is bool:
        text = str(value).strip().lower()
        if text not in ("true", "false", "yes", "no", "on", "off", "1", "0"):
            raise ValueError(value)
        return text in ("true", "yes", "on", "1")
    if kind is str or isinstance(value, bool):
        if kind is not str or not isinstance(value, str):
            raise ValueError(value)
        return value
    if kind is int and isinstance(value, float) and not value.is_integer():
        raise ValueError(value)
    return kind(value)


def _source_of(doc: str) -> str:
    """Return the paragraph of a docstring that begins with "Source:", on one line."""
    lines = iter(line.strip() for line in doc.splitlines())
    source: list[str] = []
    for line in lines:
        if line.startswith("Source:"):
            source.append(line.removeprefix("Source:").strip())
        elif source and (not line or (line.split(":")[0].isalpha() and ":" in line)):
            break
        elif source:
            source.append(line)
    return " ".join(source)
