"""Files in parts of a bounded size, for places that take no large file, and back again.

The files are laid end to end and cut every so many bytes; `parts.json` tells their names, sizes and sha256. Made for
some hundred megabytes: all of it is held in memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from berunda.errors import DataError, SecurityError

__all__ = ["INDEX", "join_parts", "split_files"]

INDEX = "parts.json"


def split_files(files: Mapping[str, Path], folder: Path, part_bytes: int) -> list[Path]:
    """Write `files` as `part-000`, `part-001`, ... of at most `part_bytes` each, and `parts.json`.

    Args:
        files: path of each file by the name under which it comes back, relative, with "/".
        folder: made where it is missing; parts that are there are replaced.
        part_bytes: at least 1.

    Returns:
        The parts, then the index.
    """
    contents = {name: path.read_bytes() for name, path in files.items()}
    whole = b"".join(contents.values())
    folder.mkdir(parents=True, exist_ok=True)
    for old in (*folder.glob("part-*"), folder / INDEX):
        old.unlink(missing_ok=True)
    written = []
    for number, start in enumerate(range(0, len(whole), part_bytes)):
        written.append(folder / f"part-{number:03d}")
        written[-1].write_bytes(whole[start : start + part_bytes])
    told = [{"name": n, "bytes": len(c), "sha256": hashlib.sha256(c).hexdigest()} for n, c in contents.items()]
    index = {"parts": [path.name for path in written], "files": told}
    (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    return [*written, folder / INDEX]


def join_parts(folders: Sequence[Path], target: Path) -> list[Path]:
    """Write the files that `split_files` has cut back into the folder `target`.

    Args:
        folders: where the parts and the index lie, together or apart.
        target: made where it is missing; files of the same names are replaced.

    Returns:
        The files.

    Raises:
        DataError: no index or a part is missing, or a file is not what it was.
        SecurityError: the index names a file outside `target`.
    """
    index = _index(folders)
    whole = b"".join(_find(folders, name).read_bytes() for name in index["parts"])
    written, start = [], 0
    for told in index["files"]:
        content = whole[start : start + int(told["bytes"])]
        start += int(told["bytes"])
        if hashlib.sha256(content).hexdigest() != told["sha256"]:
            raise DataError(f"{told['name']} in the parts of {_named(folders)}: damaged (sha256); bring them anew")
        path = target / _safe(str(told["name"]))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        written.append(path)
    return written


def _index(folders: Sequence[Path]) -> Any:
    path = _find(folders, INDEX)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        parts, files = found["parts"], found["files"]
        if not all(_is_plain(name) for name in parts):
            raise SecurityError(f"{path}: names a part outside its folder, refused")
        if all({"name", "bytes", "sha256"} <= told.keys() for told in files):
            return found
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not an index of parts ({error}); bring the parts anew") from error
    raise DataError(f"{path}: not an index of parts; bring the parts anew")


def _find(folders: Sequence[Path], name: str) -> Path:
    found = next((folder / name for folder in folders if (folder / name).is_file()), None)
    if found is None:
        raise DataError(f"{name}: not found in {_named(folders)}; bring all parts and {INDEX}")
    return found


def _is_plain(name: object) -> bool:
    return isinstance(name, str) and name.startswith("part-") and PurePosixPath(name).name == name


def _safe(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or not path.parts:
        raise SecurityError(f"parts name the file {name!r}, expected one below the target folder; refused")
    return path


def _named(folders: Iterable[Path]) -> str:
    return ", ".join(map(str, folders)) or "no folder"
