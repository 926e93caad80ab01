"""Map runs in processes of their own that are killed or run out of disk. Called as a script; prints JSON lines."""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import segmentation_models_pytorch.decoders.unet.decoder
import segmentation_models_pytorch.encoders.timm_universal  # noqa: F401
import torch

import berunda.methods.supervised  # noqa: F401
from berunda.errors import BerundaError
from berunda.geo.raster import open_scenes
from berunda.mapping.bundle import load_bundle
from berunda.mapping.journal import read_journal
from berunda.mapping.result import MapResult
from berunda.mapping.run import WORK_NAME, map_scenes
from berunda.progress import Progress, Silent

WORKERS = 2
OOD_PART_BYTES = 2 * 512 * 512 * 4
"""The largest temporary raster: two bands of one uncompressed block."""
FINAL = ("confidence.tif", "legend.qml", "map.tif", "map.tif.aux.xml", "ood.tif")


def map_once(root: Path, out: Path, progress: Progress | None = None) -> MapResult:
    """Map the scene of `root` into `out`."""
    torch.set_num_threads(1)
    scenes = open_scenes([root / "scene.tif"])
    return map_scenes(load_bundle(root / "model"), scenes, out, tile_px=32, workers=WORKERS, progress=progress)[0]


def tiles_left(out: Path) -> tuple[int, int]:
    """Return of how many tiles the journal in `out` knows, and how many more have been finished all the same."""
    work = out / WORK_NAME / "maps" / "map"
    made = {int(path.stem) for path in work.glob("tiles-*/*.tile")}
    try:
        head = (work / "journal.jsonl").read_bytes().splitlines(keepends=True)[0]
        known, _ = read_journal(work / "journal.jsonl", json.loads(head)["plan"])
    except (OSError, IndexError, ValueError):
        known = {}
    return len(known), len(made - known.keys())


def in_fork(act: Callable[[], object]) -> int:
    """Start `act` in a fork (nothing here has started threads) and return its process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        act()
        code = 0
    except BerundaError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        code = error.exit_code
    finally:
        os._exit(code)


def ended(pid: int) -> int:
    """Wait for the process and return its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def digests(out: Path) -> dict[str, str]:
    """Return the sha256 of what stands under final names."""
    return {n: hashlib.sha256((out / n).read_bytes()).hexdigest() for n in FINAL if (out / n).exists()}


def kill_trials(root: Path, n_trials: int) -> None:
    """Kill a run at a random time, look, run again to the end, compare with an undisturbed run."""
    start = time.monotonic()
    code = ended(in_fork(lambda: map_once(root, root / "whole")))
    duration = time.monotonic() - start
    whole = digests(root / "whole")
    print(json.dumps({"whole": whole, "code": code, "seconds": duration}), flush=True)
    draw = random.Random(n_trials)
    for trial in range(n_trials):
        out = root / f"out{trial}"
        pid = in_fork(lambda out=out: map_once(root, out))
        time.sleep(duration * (trial + draw.random()) / n_trials)
        os.kill(pid, signal.SIGKILL)
        killed = ended(pid)
        after = digests(out)
        partial = {n: d for n, d in after.items() if whole[n] != d}
        journalled, lost = tiles_left(out)
        kept = root / f"kept{trial}"
        code = ended(in_fork(lambda out=out, kept=kept: kept.write_text(str(map_once(root, out).n_tiles_kept))))
        left = sorted(p.name for p in out.iterdir() if p.name not in FINAL)
        told = {"killed": killed, "after_kill": sorted(after), "partial": sorted(partial), "code": code}
        told |= {"journalled": journalled, "lost": lost, "kept": int(kept.read_text())}
        print(json.dumps({**told, "same": digests(out) == whole, "left": left}), flush=True)


class Limit(Silent):
    """Lets no file grow over a limit, from the start of a phase on."""

    def __init__(self, phase: str, n_bytes: int) -> None:
        self.phase, self.n_bytes = phase, n_bytes

    def start(self, name: str, total: int) -> None:
        if name.startswith(self.phase):
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.n_bytes, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def full_trials(root: Path, n_trials: int) -> None:
    """Let no file grow over a limit, then run again without.

    In turn from the first tile on, at limits up to the largest temporary raster, and from the making of the final
    rasters on, at limits up to the largest of those.
    """
    ended(in_fork(lambda: map_once(root, root / "whole")))
    whole = digests(root / "whole")
    largest = {"mapping": OOD_PART_BYTES, "writing": max((root / "whole" / name).stat().st_size for name in FINAL)}
    for trial in range(n_trials):
        out, phase = root / f"full{trial}", ("mapping", "writing")[trial % 2]
        limit = Limit(phase, int(largest[phase] * trial / n_trials))
        code = ended(in_fork(lambda out=out, limit=limit: map_once(root, out, limit)))
        after = sorted(digests(out))
        again = ended(in_fork(lambda out=out: map_once(root, out)))
        told = {"phase": phase, "limit": limit.n_bytes, "code": code, "after": after, "again": again}
        print(json.dumps({**told, "same": digests(out) == whole}), flush=True)


if __name__ == "__main__":
    {"kill": kill_trials, "full": full_trials}[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))
