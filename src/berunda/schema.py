"""Options as checked, unchangeable models: every problem is told at once, each in the words of the reader."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic.functional_validators import ModelWrapValidatorHandler

from berunda.errors import ConfigError

__all__ = [
    "ClassMap",
    "Options",
    "PathList",
    "PathText",
    "Text",
    "TextList",
    "ValueMap",
    "expected_of",
    "parse_value",
]

Plain = bool | int | float | str

MAX_PROBLEMS = 20
"""More problems than this are counted, not listed."""

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_KINDS = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "a text"}


def parse_value(text: str) -> Plain:
    """Return the value that `text` spells: true or false, a whole number, a number, or else the text itself.

    Example:
        >>> [parse_value(text) for text in ("true", "3", "1e-3", "l1")]
        [True, 3, 0.001, 'l1']
    """
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if not _NUMBER.fullmatch(text) or len(text) > 40:
        return text
    return int(text) if re.fullmatch(r"[+-]?\d+", text) else float(text)


def _plain_text(text: str) -> str:
    if not text.strip():
        raise ValueError("it is empty")
    if any(ord(character) < 32 for character in text):
        raise ValueError("it holds control characters")
    return text


def _path_text(value: object) -> object:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _list_of_one(value: object) -> object:
    return (value,) if isinstance(value, str | os.PathLike) else value


def _split_at_commas(value: object) -> object:
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


def _from_pairs(value: object) -> object:
    """Turn "a=b,c=" or ["a=b", "c="] into a mapping; anything else is left for the check of the type."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        return value
    pairs: dict[str, str] = {}
    for part in parts:
        name, equals, new = str(part).partition("=")
        name = name.strip()
        if not equals or not name:
            raise ValueError(f"{str(part).strip()!r} is not of the form name=value")
        if name in pairs:
            raise ValueError(f"{name!r} is given twice")
        pairs[name] = new.strip()
    return pairs


def _class_name(value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, bool):
        raise ValueError(f"YAML reads this name as {str(value).lower()}: put it in quotes")
    return str(value) if isinstance(value, int) else value


def _number_if_spelled(value: object) -> object:
    return parse_value(value) if isinstance(value, str) else value


Text = Annotated[str, AfterValidator(_plain_text)]
"""A text that is not blank and holds no control characters."""
PathText = Annotated[str, BeforeValidator(_path_text), AfterValidator(_plain_text)]
"""A path or address as text; paths are taken as well."""
ClassName = Annotated[str, BeforeValidator(_class_name)]
"""Name of a class; numbers become their text, nothing (YAML's null) the empty name."""
Value = Annotated[Plain, BeforeValidator(_number_if_spelled)]
"""A plain value; a text that spells a number becomes that number (YAML takes 1e-3 for a text)."""
PathList = Annotated[tuple[PathText, ...], BeforeValidator(_list_of_one)]
"""Paths; a single one makes a list of one."""
TextList = Annotated[tuple[Text, ...], BeforeValidator(_split_at_commas)]
"""Texts; a single one is split at its commas."""
ClassMap = Annotated[dict[ClassName, ClassName], BeforeValidator(_from_pairs)]
"""Old to new class names; also taken as "old=new,other=" (an empty new name drops the class)."""
ValueMap = Annotated[dict[str, Value], BeforeValidator(_from_pairs)]
"""Names to plain values; also taken as ["name=value", ...]."""


class Options(BaseModel):
    """Base of all sets of options: frozen, no unknown names, and one `ConfigError` that tells every problem.

    A field's description, range and `json_schema_extra={"unit": ..., "expected": ...}` feed the command line,
    the documentation and the errors. A derived class may override `conflicts` and `arguments`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    arguments: ClassVar[Mapping[str, str]] = {}
    """How the command line spells an option that is not `--name`."""

    @classmethod
    def make(cls, options: Mapping[str, Any], *, where: str = "", flags: bool = False) -> Self:
        """Return the options that the values in `options`, by field name, give.

        Args:
            options: values by name; what is left out takes its default.
            where: named in errors (a file, "command line").
            flags: name options in errors as the command line spells them (`--crop-px`).

        Raises:
            ConfigError: naming every unknown, wrong, missing or conflicting option.
        """
        return cls.model_validate(dict(options), context={"where": where, "flags": flags})

    @classmethod
    def spell(cls, name: str, flags: bool) -> str:
        """Return how the reader knows the option `name`: as in a file, or as on the command line."""
        return cls.arguments.get(name, "--" + name.replace("_", "-")) if flags else name

    @classmethod
    def conflicts(cls, data: Mapping[str, Any], flags: bool) -> list[str]:
        """Return the problems between options; when one of them is wrong, `data` holds the values as given."""
        del data, flags
        return []

    def replaced(self, **changes: Any) -> Self:
        """Return a copy with `changes`, checked like new options.

        Raises:
            ConfigError: a change is unknown or wrong.
        """
        return type(self).model_validate({**self.model_dump(), **changes})

    @model_validator(mode="wrap")
    @classmethod
    def _all_problems_at_once(cls, data: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        if isinstance(data, cls):
            return data
        context = info.context or {}
        flags = bool(context.get("flags"))
        problems: list[str] = []
        options = None
        try:
            options = handler(data)
        except ValidationError as error:
            problems += [_problem(cls, one, flags) for one in error.errors(include_url=False)]
        given = vars(options) if options is not None else data if isinstance(data, Mapping) else {}
        problems += cls.conflicts(given, flags)
        if options is None or problems:
            raise ConfigError(_joined(str(context.get("where", "")), list(dict.fromkeys(problems))))
        return options


def expected_of(model: type[Options], name: str) -> str:
    """Return in words what the option `name` of `model` takes: its kind, range and unit."""
    schema = model.model_json_schema()["properties"][name]
    if "expected" in schema:
        return str(schema["expected"])
    part = next(part for part in schema.get("anyOf", [schema]) if part.get("type") != "null")
    if "enum" in part:
        return "one of " + ", ".join(map(str, part["enum"]))
    text = _KINDS.get(part["type"], "a list of texts")
    if "minimum" in part:
        upper = part.get("maximum")
        text += f" from {part['minimum']}" + (" on" if upper is None else f" to {upper}")
    return text + (f" {schema['unit']}" if "unit" in schema else "")


def _problem(model: type[Options], error: Any, flags: bool) -> str:
    place = [str(part) for part in error["loc"]]
    name = place[0] if place else ""
    if error["type"] == "extra_forbidden":
        close = difflib.get_close_matches(name.lower().replace("-", "_"), model.model_fields, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}?" if close else "expected one of " + ", ".join(model.model_fields)
        return f"unknown option {_cut(name)}; {hint}"
    if name not in model.model_fields:
        return f"found {_cut(error['input'])}, expected a mapping of option names to values"
    inner = f" ({place[1]})" if len(place) > 1 and isinstance(error["loc"][1], int | str) else ""
    why = f" ({error['ctx']['error']})" if error["type"] == "value_error" else ""
    found = f"{model.spell(name, flags)}{inner}: found {_cut(error['input'])}{why}"
    return f"{found}, expected {expected_of(model, name)}"


def _cut(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python does not write out numbers of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= 60 else text[:57] + "..."


def _joined(where: str, problems: list[str]) -> str:
    prefix = f"{where}: " if where else ""
    if len(problems) == 1:
        return prefix + problems[0]
    shown = problems[:MAX_PROBLEMS]
    if len(problems) > len(shown):
        shown.append(f"and {len(problems) - len(shown)} more")
    return f"{prefix}{len(problems)} options are wrong:" + "".join(f"\n  {problem}" for problem in shown)
