"""Make tiles in this process: reading, forward passes and writing overlap."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import torch

from berunda.errors import GeoError
from berunda.mapping.backends import TRIES, SetAside
from berunda.mapping.journal import Receipt
from berunda.mapping.patch_map import PatchWork
from berunda.mapping.tiles import TileWork

__all__ = ["make_tiles", "single_passes"]


def make_tiles(work: TileWork | PatchWork, indices: Sequence[int], workers: int) -> Iterator[Receipt | SetAside]:
    """Make the tiles and yield what became of each, in the order of `indices`.

    One thread reads ahead, one writes, and in between `workers` tiles are under way, whose batches share as
    many threads as torch was given. Each forward pass runs on a single thread: that is faster than several on
    one pass, and the number of threads can then not change how sums are split, hence no bit of the map. At
    most `workers` + 2 tiles are in memory. A tile whose pixels cannot be read is set aside after `TRIES` tries;
    any other error ends the rest and is raised.

    Args:
        work: how a tile is made.
        indices: which tiles, each once.
        workers: tiles under way, at least 1.
    """
    n_threads = max(workers, torch.get_num_threads()) if work.predictor.device.type == "cpu" else 1
    with ExitStack() as stack:
        stack.enter_context(single_passes())
        sizes = {"read": 1, "tile": workers, "net": n_threads, "write": 1}
        pools = {name: stack.enter_context(ThreadPoolExecutor(n, f"map-{name}")) for name, n in sizes.items()}
        pending: deque[tuple[int, Future[Receipt]]] = deque()
        try:
            for index in indices:
                pending.append((index, _submit(work, index, pools)))
                if len(pending) >= workers + 2:
                    yield _outcome(work, *pending.popleft())
            while pending:
                yield _outcome(work, *pending.popleft())
        finally:
            for pool in pools.values():
                pool.shutdown(wait=False, cancel_futures=True)


def _submit(work: TileWork | PatchWork, index: int, pools: dict[str, ThreadPoolExecutor]) -> Future[Receipt]:
    """Queue the three steps of a tile; each waits for the one before, which was queued before it."""
    loaded = pools["read"].submit(work.load, index)
    planes = pools["tile"].submit(lambda: work.predict(loaded.result(), pools["net"].map))
    return pools["write"].submit(lambda: work.keep(index, planes.result()))


def _outcome(work: TileWork | PatchWork, index: int, first: Future[Receipt]) -> Receipt | SetAside:
    """Return what became of a tile; where its pixels could not be read, it is tried again here."""
    try:
        return first.result()
    except GeoError as error:
        found = error
    for _ in range(TRIES - 1):
        try:
            return work(index)
        except GeoError as error:
            found = error
    return SetAside(index, TRIES, found)


@contextmanager
def single_passes() -> Iterator[None]:
    """Let each thread compute alone within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
