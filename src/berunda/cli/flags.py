"""Flags of the command line, derived from the options a verb takes, so that there is one schema only."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from berunda.schema import Options

__all__ = ["Flag", "flags_of", "given_values", "signature_of"]


@dataclass(frozen=True)
class Flag:
    """One flag or argument.

    Attributes:
        name: key under which its value is handed on.
        help: what it does, with range and default, in one or two lines.
        metavar: stands for the value in the help; "" for a switch.
        many: may be given several times (an argument: takes several values).
        argument: given by place and not by name.
        required: must be given.
        spelled: how the command line spells it; by default `--name`.
        negated: how the command line switches off what is on by default; "" for a switch that is off.
    """

    name: str
    help: str
    metavar: str = ""
    many: bool = False
    argument: bool = False
    required: bool = False
    spelled: str = ""
    negated: str = ""

    def parameter(self) -> inspect.Parameter:
        """Return it as the parameter of a function that Typer reads."""
        base: Any = bool if not self.metavar else str
        annotation = list[base] if self.many else base
        default: Any = ... if self.required else None
        if self.argument:
            made: Any = typer.Argument(default, help=self.help, metavar=self.metavar, show_default=False)
        else:
            made = typer.Option(
                default, *self._declared(), help=self.help, show_default=False, metavar=self.metavar or None
            )
        return inspect.Parameter(
            self.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=made,
            annotation=annotation if self.required else annotation | None,
        )

    def _declared(self) -> list[str]:
        spelled = self.spelled or "--" + self.name.replace("_", "-")
        return [f"{spelled}/{self.negated}" if self.negated else spelled]


def flags_of(model: type[Options], leave_out: tuple[str, ...] = ()) -> tuple[Flag, ...]:
    """Return a flag for every option of `model`; values stay texts, which `model` itself reads and checks."""
    schema = model.model_json_schema()["properties"]
    return tuple(_flag(model, name, schema[name]) for name in model.model_fields if name not in leave_out)


def signature_of(flags: tuple[Flag, ...]) -> inspect.Signature:
    """Return the signature that makes Typer parse `flags`."""
    return inspect.Signature([flag.parameter() for flag in flags])


def given_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that the user gave, without the flags that were left out."""
    return {name: value for name, value in values.items() if value is not None and value != []}


def _flag(model: type[Options], name: str, schema: dict[str, Any]) -> Flag:
    part = next(part for part in schema.get("anyOf", [schema]) if part.get("type") != "null")
    argument = bool(schema.get("argument")) or model.arguments.get(name, "-").isupper()
    spelled = model.spell(name, flags=True)
    return Flag(
        name,
        _help(schema, part),
        metavar=_metavar(schema, part, spelled if argument else ""),
        many=(argument and part["type"] == "array") or bool(schema.get("many")),
        argument=argument,
        required=model.model_fields[name].is_required(),
        spelled=spelled,
        negated="--no-" + name.replace("_", "-") if schema.get("default") is True else "",
    )


def _metavar(schema: dict[str, Any], part: dict[str, Any], argument: str) -> str:
    if argument:
        return argument
    if "metavar" in schema:
        return str(schema["metavar"])
    if "enum" in part:
        return "|".join(map(str, part["enum"]))
    kinds = {"integer": "N", "number": "X", "boolean": "", "array": "A,B,...", "object": "NAME=VALUE"}
    return kinds.get(part["type"], "TEXT")


def _help(schema: dict[str, Any], part: dict[str, Any]) -> str:
    text = str(schema["description"])
    unit = f" {schema['unit']}" if "unit" in schema else ""
    notes = []
    if "minimum" in part and part.get("maximum", 0) < 2**62:
        notes.append(
            f"{part['minimum']} to {part['maximum']}{unit}" if "maximum" in part else f"from {part['minimum']}"
        )
    default = schema.get("default")
    if default not in (None, [], {}) and default is not False:
        notes.append("on by default" if default is True else f"default {default}")
    return text + (f" [{'; '.join(notes)}]" if notes else "")
