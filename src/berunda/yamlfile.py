"""Reading of YAML that somebody else may have written: plain values only, bounded in size and depth."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from berunda.errors import ConfigError, SecurityError

__all__ = ["MAX_BYTES", "MAX_DEPTH", "parse_mapping", "read_mapping"]

MAX_BYTES = 1 << 18
"""A configuration file is at most this large (256 KiB, read in about 3 s); a run's own is about 2 KiB."""

MAX_DEPTH = 8
"""Lists and mappings lie at most this deep in each other."""

MAX_DIGITS = 100
"""A longer number is refused: YAML reads 1:1:1... in base 60, in quadratic time."""

_LONG_NUMBER = re.compile(rf"[-+0-9a-fA-Fxo_:.]{{{MAX_DIGITS},}}")
_OPENING = (yaml.MappingStartEvent, yaml.SequenceStartEvent)
_CLOSING = (yaml.MappingEndEvent, yaml.SequenceEndEvent)


def read_mapping(path: Path) -> dict[str, Any]:
    """Return the mapping that the YAML file at `path` holds.

    Raises:
        ConfigError: the file is missing, not text, not YAML, or not a mapping of names to values.
        SecurityError: it is too large or too deep, or uses anchors, aliases or tags.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"{path}: configuration cannot be read: {reason}; give the path of a YAML file") from error
    if len(content) > MAX_BYTES:
        raise SecurityError(
            f"{path}: configuration refused: found more than {MAX_BYTES} bytes, expected about 2000; "
            "give the YAML file of a run"
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: configuration is not text: byte {error.start} is not UTF-8; give the YAML file of a run"
        ) from error
    return parse_mapping(text, str(path))


def parse_mapping(text: str, where: str) -> dict[str, Any]:
    """Return the mapping that the YAML `text` holds; `where` names it in errors, as in `read_mapping`."""
    try:
        _refuse_what_is_not_plain(text, where)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None:
            _refuse_repeated_keys(node, where)
        found = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigError(f"{where}: {line}not YAML: {error.problem or error.context}; correct that line") from error
    except (yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{where}: not YAML: {reason}; correct the value") from error
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise ConfigError(
            f"{where}: found {_kind(found)}, expected a mapping of option names to values, such as `seed: 0`"
        )
    return found


def _refuse_what_is_not_plain(text: str, where: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise SecurityError(f"{where}: line {line}: anchors and aliases (& and *) are refused; write the value out")
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise SecurityError(f"{where}: line {line}: the tag {tag!r} is refused; write a plain value")
        if isinstance(event, yaml.ScalarEvent) and event.implicit[0] and _LONG_NUMBER.fullmatch(event.value):
            raise ConfigError(
                f"{where}: line {line}: found a number of {len(event.value)} characters, expected less than "
                f"{MAX_DIGITS}; put it in quotes if it is a text"
            )
        depth += isinstance(event, _OPENING)
        depth -= isinstance(event, _CLOSING)
        if depth > MAX_DEPTH:
            raise SecurityError(
                f"{where}: line {line}: refused: values lie over {MAX_DEPTH} deep in each other; flatten them"
            )


def _refuse_repeated_keys(node: yaml.Node, where: str) -> None:
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_repeated_keys(item, where)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: dict[str, int] = {}
    for key, value in node.value:
        name, line = str(key.value), key.start_mark.line + 1
        if name in seen:
            raise ConfigError(
                f"{where}: line {line}: {name!r} is given twice (see line {seen[name]}); keep one of them"
            )
        seen[name] = line
        _refuse_repeated_keys(value, where)


def _kind(found: object) -> str:
    if isinstance(found, dict):
        return "a mapping with keys that are not names"
    return "a list" if isinstance(found, list) else f"a single value of type {type(found).__name__}"
