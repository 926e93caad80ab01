"""Checkpoints on disk: either whole and verified, or not there.

A checkpoint is a folder `step-00000100` with `state.safetensors`, `state.json` and `manifest.json` (sha256 of
both). It is written under a temporary name, every file and folder is flushed to the disk, and only then it
gets its name. What was interrupted stays under the temporary name and is removed by the next save.

What each of several ranks holds for itself is named `rank3/...` and lies in a shard, `shard-0003.safetensors`; a rank
reads its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor

from berunda.errors import CheckpointError, OutputError

__all__ = ["Checkpoint", "Files", "load_checkpoint", "save_checkpoint"]

FORMAT = "berunda-checkpoint"
VERSION = 1
_RANK = re.compile(r"rank(\d+)/(.+)")
_PREFIX, _DRAFT, _TRASH = "step-", ".draft-", ".trash-"
_NAME = re.compile(rf"{_PREFIX}(\d+)(?:\.(\d+))?")  # the step, and how often the run has gone back before it


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that verified.

    Attributes:
        folder: where it lies.
        step: number of steps done when it was written.
        tensors: by name, on the CPU; those of this rank's shard among them.
        meta: what else was stored, as JSON.
    """

    folder: Path
    step: int
    tensors: dict[str, Tensor]
    meta: dict[str, Any]


class Files:
    """The operations on the file system that a save consists of; tests let each one fail."""

    def make_folder(self, path: Path) -> None:
        """Create `path` and its parents."""
        path.mkdir(parents=True, exist_ok=True)

    def write(self, path: Path, content: bytes) -> None:
        """Write `content` to the new file `path`."""
        path.write_bytes(content)

    def flush(self, path: Path) -> None:
        """Flush the file or folder `path` to the disk."""
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def rename(self, source: Path, target: Path) -> None:
        """Give `source` the free name `target`."""
        source.rename(target)

    def remove(self, path: Path) -> None:
        """Remove the folder `path` and all in it."""
        shutil.rmtree(path)


def save_checkpoint(
    folder: Path,
    step: int,
    tensors: Mapping[str, Tensor],
    meta: Mapping[str, Any],
    *,
    keep: int = 3,
    files: Files | None = None,
) -> Path:
    """Write the checkpoint of `step` into `folder` and remove all but the newest `keep`.

    A run that went back says how often in meta["attempt"]; its checkpoints are newer than all from before.

    Returns:
        The checkpoint's folder.

    Raises:
        OutputError: an operation failed; the checkpoints that were there still load.
    """
    files = files or Files()
    attempt = int(meta.get("attempt", 0))
    final = folder / (f"{_PREFIX}{step:08d}" + (f".{attempt}" if attempt else ""))
    if isinstance(_read(final), Checkpoint):  # the same run at the same step has the same state
        return final
    draft = folder / f"{_DRAFT}{final.name}"
    contents = {name: dump_tensors(held) for name, held in _by_file(tensors).items()}
    contents["state.json"] = _to_json(meta)
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "step": step,
        "files": {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            for name, content in contents.items()
        },
    }
    try:
        files.make_folder(folder)
        _clear(folder, files)
        files.make_folder(draft)
        for name, content in {**contents, "manifest.json": _to_json(manifest)}.items():
            files.write(draft / name, content)
            files.flush(draft / name)
        files.flush(draft)
        if final.exists():  # it is damaged
            files.rename(final, folder / f"{_TRASH}{final.name}")
        files.rename(draft, final)
        files.flush(folder)
        for old in _folders(folder)[keep:]:
            files.rename(old, folder / f"{_TRASH}{old.name}")
        _clear(folder, files)
    except OSError as error:
        size = sum(map(len, contents.values()))
        raise OutputError(
            f"checkpoint {final}: cannot be written ({error.strerror or error}), it needs {size} bytes; "
            "the last good checkpoint is kept; free some space or check the permissions, then start again"
        ) from error
    return final


def load_checkpoint(folder: Path, rank: int = 0, before: int | None = None) -> Checkpoint | None:
    """Return the newest checkpoint in `folder` that verifies, as `rank` needs it; None when there is none at all.

    Args:
        folder: where they lie.
        rank: whose shard is read.
        before: only those of earlier steps count.

    Raises:
        CheckpointError: there are checkpoints, but not one of them is whole.
    """
    faults = []
    for candidate in _folders(folder):
        if before is not None and _order(candidate)[1] >= before:
            continue
        found = _read(candidate, rank)
        if isinstance(found, Checkpoint):
            return found
        faults.append(f"{candidate.name}: {found}")
    if faults:
        raise CheckpointError(
            f"checkpoints in {folder}: none of {len(faults)} is whole ({'; '.join(faults)}); remove the "
            "folder to start from the beginning"
        )
    return None


def _by_file(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Return which tensors lie in which file."""
    files: dict[str, dict[str, Tensor]] = {"state.safetensors": {}}
    for name, tensor in tensors.items():
        found = _RANK.fullmatch(name)
        if found is None:
            files["state.safetensors"][name] = tensor
        else:
            files.setdefault(_shard(int(found[1])), {})[found[2]] = tensor
    return files


def _shard(rank: int) -> str:
    return f"shard-{rank:04d}.safetensors"


def _read(folder: Path, rank: int = 0) -> Checkpoint | str:
    """Return the checkpoint in `folder`, or what is wrong with it."""
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        if (manifest["format"], manifest["version"]) != (FORMAT, VERSION):
            return f"format {manifest['format']} version {manifest['version']}, expected {FORMAT} {VERSION}"
        contents = {}
        shards = sorted(name for name in manifest["files"] if re.fullmatch(r"shard-\d{4,}\.safetensors", name))
        for name in ("state.safetensors", "state.json", *shards):
            contents[name] = (folder / name).read_bytes()
            if hashlib.sha256(contents[name]).hexdigest() != manifest["files"][name]["sha256"]:
                return f"{name} does not match its sha256"
            if name in shards and name != _shard(rank):
                del contents[name]
        return Checkpoint(
            folder=folder,
            step=int(manifest["step"]),
            tensors={
                name: tensor
                for file, content in contents.items()
                if file != "state.json"
                for name, tensor in load_tensors(content).items()
            },
            meta=json.loads(contents["state.json"]),
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        return f"{type(error).__name__} {error}"


def _folders(folder: Path) -> list[Path]:
    """Return the folders of checkpoints, the newest first."""
    return sorted((path for path in folder.glob(f"{_PREFIX}*") if path.is_dir()), key=_order, reverse=True)


def _order(folder: Path) -> tuple[int, int]:
    """Return how often the run had gone back when a checkpoint was written, and its step; (-1, -1) of other names."""
    found = _NAME.fullmatch(folder.name)
    return (int(found[2] or 0), int(found[1])) if found else (-1, -1)


def _clear(folder: Path, files: Files) -> None:
    """Remove what earlier saves left behind."""
    for pattern in (f"{_DRAFT}*", f"{_TRASH}*"):
        for path in sorted(folder.glob(pattern)):
            files.remove(path)


def _to_json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True).encode()
