"""Make tiles on a Dask cluster, over the same plan and journal.

The client plans, keeps the journal and assembles; workers read the scene and write tiles into OUT/.work. So
every worker needs the same version of Berunda and a file system shared with the client, on which the scene and OUT
have the same paths. Before its first tile a worker makes the plan anew from what it sees and compares it: tiles that
would not fit into the map, to the last bit, are never made.

A tile can be made twice: it comes out the same and replaces its file as a whole. Dask hands the tile of a worker
that died to another one. Dask itself ships pickled calls: use only clusters whose members you trust.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import distributed
from dask.system import CPU_COUNT

from berunda.errors import BerundaError, ConfigError, OutputError
from berunda.geo.raster import Band, BandSource, Handles, RasterFile, Scene
from berunda.geo.resolve import is_remote
from berunda.mapping.backends import TRIES, MakeTiles, SetAside
from berunda.mapping.backends.local import single_passes
from berunda.mapping.bundle import Bundle, load_bundle, save_bundle
from berunda.mapping.journal import Receipt
from berunda.mapping.patch_map import PatchWork
from berunda.mapping.plan import Plan, make_plan
from berunda.mapping.predictor import Precision, Predictor
from berunda.mapping.tiles import TileStore, TileWork
from berunda.memory import keep_freed_memory

__all__ = ["dask_tiles"]

CONNECT_S = 20
PATIENCE_S = 60.0
"""So long a cluster may be without any worker."""
MAX_DEATHS = 20
"""So many workers may die in a row without a tile in between."""
POLL_S = 2.0

Outcome = Receipt | SetAside


@contextlib.contextmanager
def dask_tiles(address: str, bundle: Bundle, folder: Path) -> Iterator[MakeTiles]:
    """Give what makes tiles on a cluster, within the block.

    Args:
        address: of a scheduler ("tcp://host:port", "tls://host:port"), or "local:N" for N worker processes of one
            core each on this machine ("local": as many as there are cores), which end with the block.
        bundle: the model; workers read it from `folder`.
        folder: a folder that all workers see under the same path.

    Raises:
        ConfigError: no scheduler answers at `address`.
        OutputError: the folder cannot be written; or, while tiles are made, the scheduler or all workers are gone,
            or a worker does not see the same files or has another version.
    """
    with _client(address) as client:
        shared = folder.absolute() / "bundle"
        shared.parent.mkdir(parents=True, exist_ok=True)
        save_bundle(shared, bundle)

        def make(work: TileWork | PatchWork, indices: Sequence[int]) -> Iterator[Outcome]:
            assert isinstance(work, TileWork)  # models for whole images are refused before
            return _Farm(client, _Job.of(work, shared)).outcomes(indices)

        yield make


@contextlib.contextmanager
def _client(address: str) -> Iterator[Any]:
    with contextlib.ExitStack() as stack:
        target: Any = address
        if address.startswith("local"):
            n_workers = int(address.partition(":")[2] or CPU_COUNT)
            target = stack.enter_context(_local_cluster(n_workers))
        try:
            client = distributed.Client(target, timeout=CONNECT_S, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            raise ConfigError(
                f"--dask: no scheduler answers at {address} ({_one_line(error)}), expected one within {CONNECT_S} s; "
                "start it with `dask scheduler`, or pass --dask local"
            ) from error
        stack.callback(client.close, timeout=5)
        yield client


def _local_cluster(n_workers: int) -> Any:
    """Return a cluster on the loopback address; the first death of a worker under a tile is told to the client."""
    return distributed.LocalCluster(
        n_workers=n_workers,
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        memory_limit=0,
        silence_logs=logging.CRITICAL,
        scheduler_kwargs={"allowed_failures": 0},
    )


@dataclass(frozen=True)
class _Job:
    """What a worker needs to make the tiles of one map: small, since it travels with every tile."""

    plan: Plan
    scene: Scene
    precision: Precision
    bundle: Path
    store: Path

    @classmethod
    def of(cls, work: TileWork, bundle: Path) -> _Job:
        return cls(work.plan, _anchored(work.scene), work.predictor.precision, bundle, work.store.folder)

    def opened(self) -> TileWork:
        """Return the work of this job for this process.

        Raises:
            BerundaError: the process does not see what the client sees, or would compute otherwise.
        """
        if not self.store.is_dir():
            raise OutputError(f"does not see {self.store}; --out must lie on a file system shared with all workers")
        keep_freed_memory()
        numerics = dict(self.plan.numerics)
        bundle = load_bundle(self.bundle)
        predictor = Predictor(bundle, numerics["device"], precision=self.precision)
        try:
            own = make_plan(bundle, self.scene, predictor, self.plan.tile_rows)
        except OSError as error:
            raise OutputError(
                f"does not see {error.filename or 'the scene'}; it must lie on a file system shared with all workers"
            ) from error
        if own.scene != self.plan.scene:
            raise OutputError(f"sees another scene {self.scene.name} than the client under the same path")
        if own.identity != self.plan.identity:
            found = {name: value for name, value in own.numerics if value != numerics.get(name)}
            raise OutputError(
                f"would compute with {found or 'another lattice'}, expected {numerics} as in the client; "
                "the map would not be the same: make them alike"
            )
        return TileWork(self.plan, self.scene, predictor, TileStore(self.store))


@dataclass(frozen=True)
class _Answer:
    """What a worker says of a tile: its receipt, or what went wrong, and whether that ends the run."""

    worker: str
    receipt: Receipt | None = None
    error: BerundaError | None = None
    is_final: bool = False


_opened: dict[Path, TileWork] = {}
_opening = threading.Lock()


def _make_tile(job: _Job, index: int) -> _Answer:
    """Make a tile in a worker. Errors are answers: Dask would log them, and hand them on as pickles."""
    name = distributed.get_worker().address
    try:
        with _opening:
            if job.store not in _opened:
                _opened.clear()
                _opened[job.store] = job.opened()
            work = _opened[job.store]
    except (BerundaError, OSError) as error:
        return _Answer(name, error=OutputError(f"--dask: worker {name} {_one_line(error)}"), is_final=True)
    try:
        with single_passes():
            return _Answer(name, receipt=work(index))
    except OutputError as error:
        return _Answer(name, error=error, is_final=True)
    except BerundaError as error:
        return _Answer(name, error=error)
    except Exception as error:  # of whatever library: it may do better elsewhere
        text = f"worker {name}: unexpected {type(error).__name__}: {_one_line(error)}"
        return _Answer(name, error=OutputError(text))


class _Farm:
    """The tiles of one map on their way through a cluster.

    As many are under way as workers have threads, so that a death points at the tile it was about. It may still
    point at a neighbour's: the last try of a tile is made with nothing else under way.
    """

    def __init__(self, client: Any, job: _Job) -> None:
        self._client = client
        self._job = job
        self._waiting: deque[int] = deque()
        self._alone: deque[int] = deque()
        self._flight: dict[Any, int] = {}
        self._tries: Counter[int] = Counter()
        self._avoid: dict[int, str] = {}
        self._deaths = 0
        self._seen = time.monotonic()

    def outcomes(self, indices: Sequence[int]) -> Iterator[Outcome]:
        """Make the tiles and yield what became of each, as they come."""
        self._waiting.extend(indices)
        told: list[Outcome] = []
        try:
            with _scheduler_lost():
                self._submit()
            while told or self._flight or self._waiting or self._alone:
                with _scheduler_lost():
                    told = self._collect()
                    self._submit()
                yield from told
        finally:
            with contextlib.suppress(Exception):
                self._client.cancel(list(self._flight), force=True)

    def _submit(self) -> None:
        """Keep every thread of the cluster busy."""
        workers = dict(self._client.nthreads())
        self._check_alive(workers)
        while self._waiting and len(self._flight) < sum(workers.values()):
            self._send(self._waiting.popleft(), workers)
        if self._alone and workers and not self._flight and not self._waiting:
            self._send(self._alone.popleft(), workers)

    def _send(self, index: int, workers: dict[str, int]) -> None:
        others = [name for name in workers if name != self._avoid.get(index)]
        elsewhere = {"workers": others, "allow_other_workers": True} if index in self._avoid and others else {}
        key = f"berunda-tile-{self._job.plan.digest[:12]}-{index}-{self._tries[index]}-{time.monotonic_ns()}"
        future = self._client.submit(_make_tile, self._job, index, key=key, pure=False, retries=0, **elsewhere)
        self._flight[future] = index

    def _collect(self) -> list[Outcome]:
        """Wait for tiles and return what became of those that are settled; others wait for another try."""
        if not self._flight:
            time.sleep(0.2)
            return []
        try:
            with self._client.as_current():
                done = distributed.wait(list(self._flight), timeout=POLL_S, return_when="FIRST_COMPLETED").done
        except TimeoutError:
            return []
        settled = (self._settle(self._flight.pop(future), future) for future in done)
        return [outcome for outcome in settled if outcome is not None]

    def _settle(self, index: int, future: Any) -> Outcome | None:
        """Return what became of a tile, None when it is tried again.

        Raises:
            BerundaError: it is an error that ends the run.
        """
        if future.status == "error":
            answer = self._death(index, future.exception())
        else:
            answer = future.result()
            self._tries[index] += 1
        future.release()
        if answer.receipt is not None:
            self._deaths = 0
            return answer.receipt
        assert answer.error is not None
        if answer.is_final:
            raise answer.error
        if self._tries[index] >= TRIES:
            return SetAside(index, self._tries[index], answer.error)
        self._avoid[index] = answer.worker
        (self._alone if self._tries[index] == TRIES - 1 else self._waiting).append(index)
        return None

    def _death(self, index: int, error: BaseException | None) -> _Answer:
        """Count the tries of a tile whose workers died; a scheduler may count several before it tells."""
        if not isinstance(error, distributed.KilledWorker):
            raise OutputError(
                f"--dask: a worker cannot run Berunda ({type(error).__name__}: {_one_line(error)}); install the "
                "same version of it and of its libraries on all workers, then run the same command again"
            ) from error
        n_died = error.allowed_failures + 1
        self._tries[index] += n_died
        self._deaths += n_died
        if self._deaths >= MAX_DEATHS:
            raise OutputError(
                f"--dask: {self._deaths} workers died in a row without finishing a tile; give them more memory or "
                "smaller tiles (--tile-px), then run the same command again: finished tiles are kept"
            )
        name = str(getattr(error.last_worker, "address", "?"))
        return _Answer(name, error=OutputError(f"the worker died over it ({name}); it may lack memory"))

    def _check_alive(self, workers: dict[str, int]) -> None:
        now = time.monotonic()
        if workers:
            self._seen = now
        elif now - self._seen > PATIENCE_S:
            raise OutputError(
                f"--dask: the cluster has had no worker for {PATIENCE_S:.0f} s; start some with `dask worker`, then "
                "run the same command again: finished tiles are kept"
            )


def _anchored(scene: Scene) -> Scene:
    """Return the scene with absolute paths: workers run in other folders."""

    def moved(file: RasterFile) -> RasterFile:
        return file if is_remote(file.path) else replace(file, path=file.path.absolute())

    def source(band: Band) -> BandSource:
        path = band.source.path
        return band.source if is_remote(path) else replace(band.source, path=path.absolute())

    bands = [replace(band, source=source(band)) for band in scene.bands]
    mask = moved(scene.mask) if scene.mask else None
    handles = Handles(any(is_remote(file.path) for file in (*scene.files, *([mask] if mask else []))))
    return Scene(scene.name, [moved(file) for file in scene.files], bands, mask, handles)


@contextlib.contextmanager
def _scheduler_lost() -> Iterator[None]:
    """Turn what the client raises when its scheduler is gone into one line."""
    try:
        yield
    except (OSError, TimeoutError, asyncio.CancelledError, concurrent.futures.CancelledError) as error:
        raise OutputError(
            f"--dask: the scheduler is gone ({_one_line(error)}); start it again, then run the same command again: "
            "finished tiles are kept"
        ) from error


def _one_line(error: BaseException | None) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__
