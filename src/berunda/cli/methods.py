"""The methods of learning as lines of text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

__all__ = ["describe_one", "list_all", "range_of"]


def list_all() -> Iterator[str]:
    """Yield a line for each method, and how to see more of one."""
    from berunda.methods import describe_method, method_names

    names = method_names()
    width = max(len(name) for name in names)
    for name in names:
        summary = " ".join(describe_method(name)["doc"].split("\n\n")[0].split())
        yield f"{name:<{width}}  {summary}"
    yield ""
    yield f"Hyper-parameters of one: berunda methods {names[0]}"


def describe_one(name: str) -> Iterator[str]:
    """Yield what there is to know about the method `name`: its docstring, tasks and hyper-parameters."""
    from berunda.methods import describe_method

    found = describe_method(name)
    yield f"{name}: {found['doc']}"
    yield ""
    yield f"Tasks: {', '.join(found['needs']['tasks'])}"
    yield f"Learns from unlabelled images: {'yes' if found['needs']['unlabelled'] else 'no'}"
    for ability, verb in (("generates", "berunda generate"), ("fills", "berunda inpaint")):
        if found["abilities"][ability]:
            yield f"Serves {verb}"
    if found["settings"]:
        yield ""
        yield "Hyper-parameters (berunda map --option NAME=VALUE):"
    width = max((len(setting["name"]) for setting in found["settings"]), default=0)
    for setting in found["settings"]:
        only = f"; {', '.join(setting['tasks'])} alone" if setting["tasks"] else ""
        text = f"{setting['help']} [{range_of(setting)}; default {setting['default']}{only}]"
        indent = " " * (width + 4)
        wrapped = textwrap.wrap(text, 100, initial_indent=indent, subsequent_indent=indent)
        yield f"  {setting['name']:<{width}}  " + "\n".join(wrapped).lstrip()


def range_of(setting: dict[str, Any]) -> str:
    """Return in words what a hyper-parameter may be."""
    limits = setting["range"]
    if setting["type"] == "bool":
        return "true or false"
    if setting["type"] == "str":
        return ", ".join(map(str, limits)) or "text"
    if len(limits) != 2:
        return str(setting["type"])
    unit = setting["unit"] if setting["unit"] not in (None, "", "1") else ""
    return f"{limits[0]} to {limits[1]} {unit}".rstrip()
