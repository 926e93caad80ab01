"""Write the import graph of src/berunda into ARCHITECTURE.md, and say which imports break the layers.

Usage: python docs/import_graph.py [--check]   (--check only fails when the file is out of date)
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "berunda"
BEGIN, END = "<!-- import graph: begin -->", "<!-- import graph: end -->"

LAYERS: tuple[tuple[str, ...], ...] = (
    ("cli",),
    ("api", "doctor"),
    ("train", "mapping", "assess", "bench"),
    ("methods", "data"),
    ("models", "augment", "losses", "geo"),
    ("config", "options", "schema", "yamlfile", "progress", "ranks", "cache", "cores", "memory", "files", "errors"),
)
"""From top to bottom: a room imports from the rooms below it."""

SAME_LAYER = {
    ("config", "schema"),
    ("config", "yamlfile"),
    ("config", "errors"),
    ("config", "files"),
    ("files", "errors"),
    ("options", "config"),
    ("options", "schema"),
    ("options", "yamlfile"),
    ("schema", "errors"),
    ("yamlfile", "errors"),
    ("methods", "data"),
    ("bench", "train"),
    ("bench", "mapping"),
    ("bench", "assess"),
}
"""Imports between rooms of one layer that are allowed; of any two rooms, one way only."""

NO_ROOM = {"_version", "__init__", "__main__"}


def room_of(module: str) -> str:
    """Return the room of a dotted module name ("berunda.geo.grid" -> "geo"), "" for the package itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def imports(path: Path) -> set[tuple[str, bool]]:
    """Return (module, is lazy) for each import of berunda in a file; lazy ones stand in a function."""
    found: set[tuple[str, bool]] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = set(_statements(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {(name.name, node not in top) for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "berunda":
            found |= {(f"berunda.{name.name}", node not in top) for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add((node.module, node not in top))
    return {(module, lazy) for module, lazy in found if module.split(".")[0] == "berunda"}


def _statements(tree: ast.Module) -> list[ast.stmt]:
    """Return the statements that run at import (those under `if TYPE_CHECKING` do not)."""
    return [
        statement
        for outer in tree.body
        for statement in ([outer, *outer.body] if isinstance(outer, ast.Try) else [outer])
    ]


def edges() -> dict[tuple[str, str], bool]:
    """Return (room, room it imports) -> whether every such import is lazy."""
    found: dict[tuple[str, str], bool] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        for module, lazy in imports(path):
            other = room_of(module)
            if room not in NO_ROOM and other and other not in NO_ROOM and other != room:
                found[room, other] = found.get((room, other), True) and lazy
    return found


def breaches(found: dict[tuple[str, str], bool]) -> list[str]:
    """Return a line for each import that goes up, sideways or to a room that is in no layer."""
    level = {room: index for index, rooms in enumerate(LAYERS) for room in rooms}
    lines = []
    for room, other in sorted(found):
        if room not in level or other not in level:
            lines.append(f"{room} -> {other}: a room is in no layer of docs/import_graph.py")
        elif level[room] > level[other]:
            lines.append(f"{room} -> {other}: goes up")
        elif level[room] == level[other] and (room, other) not in SAME_LAYER:
            lines.append(f"{room} -> {other}: goes sideways")
    return lines


def picture(found: dict[tuple[str, str], bool]) -> str:
    """Return the graph as a Mermaid diagram, without the lowest layer, which every room may import.

    Dotted arrows are imports that wait until they are needed.
    """
    lines = ["```mermaid", "flowchart TD"]
    shown = {edge: lazy for edge, lazy in sorted(found.items()) if edge[1] not in LAYERS[-1]}
    present = {room for edge in shown for room in edge}
    for index, rooms in enumerate(LAYERS[:-1]):
        inside = "; ".join(room for room in rooms if room in present)
        lines.append(f"  subgraph layer{index}[ ]\n    direction LR\n    {inside}\n  end")
    lines += [f"  {room} {'-.->' if lazy else '-->'} {other}" for (room, other), lazy in shown.items()]
    return "\n".join([*lines, "```"])


def renewed(text: str, part: str, begin: str = BEGIN, end: str = END) -> str:
    """Return `text` with what stands between the markers replaced by `part`."""
    before, after = text.index(begin) + len(begin), text.index(end)
    return f"{text[:before]}\n{part}\n{text[after:]}"


def main(arguments: list[str]) -> int:
    """Write the graph, or check it; return the exit code."""
    target = ROOT / "ARCHITECTURE.md"
    found = edges()
    text = target.read_text(encoding="utf-8")
    new = renewed(text, picture(found))
    for line in breaches(found):
        print(line)
    if "--check" in arguments:
        return int(new != text or bool(breaches(found)))
    target.write_text(new, encoding="utf-8")
    return int(bool(breaches(found)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
