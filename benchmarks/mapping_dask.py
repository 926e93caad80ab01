"""How much faster two Dask workers of one core each map than one: at least 1.8 times.

Usage: python benchmarks/mapping_dask.py [--side 3072] [--repeats 3] [--tile-px 512]

Makes the tiles of a synthetic scene on local clusters of one and of two worker processes, with a net of the default
shape and random weights. Workers have imported and loaded everything before the clock starts; the assembly of the
map, which one process does whatever the backend, is not in it. Runs of one and of two workers alternate; each row
holds the best of its repeats, and that of two workers the ratio. Rows go to benchmarks/results/mapping_dask.json.
Run it on a quiet machine with two free cores.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from berunda._version import __version__
from berunda.api.compare import hardware
from berunda.api.fit import MARGIN_PX, WINDOW_PX
from berunda.bench.rows import RowFile
from berunda.config import MapConfig
from berunda.data.synthetic import Landscape, write_scene
from berunda.geo.raster import Scene, open_scenes
from berunda.mapping.backends.dask import dask_tiles
from berunda.mapping.bundle import Bundle, current_versions, make_tensors
from berunda.mapping.journal import Receipt
from berunda.mapping.manifest import BandScale, ClassEntry, Manifest, NetSettings
from berunda.mapping.plan import make_plan
from berunda.mapping.predictor import Predictor
from berunda.mapping.tiles import TileStore, TileWork
from berunda.methods import make_method
from berunda.models.build import build_net
from berunda.models.spec import NetSpec

RESULTS = Path(__file__).resolve().parent / "results" / "mapping_dask.json"
WORKERS = (1, 2)
COLORS = ("#1b9e77", "#d95f02", "#7570b3", "#e7298a", "#66a61e")


def main(arguments: list[str]) -> None:
    """Measure and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=3072, help="side of the scene in pixels")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tile-px", type=int, default=512)
    parser.add_argument("--dry", action="store_true", help="print only")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = write_scene(folder / "scene.tif", Landscape(0, options.side, options.side, cloud_share=0.0))
        scene = open_scenes([path])[0]
        bundle = _bundle(scene)
        seconds = {n: float("inf") for n in WORKERS}
        for _ in range(options.repeats):
            for n in WORKERS:
                seconds[n] = min(seconds[n], measure(bundle, scene, folder, n, options.tile_px))
                print(f"{n} workers: best {seconds[n]:.2f} s", flush=True)
    print(f"two workers are {seconds[1] / seconds[2]:.2f} times as fast as one")
    if not options.dry:
        command = shlex.join(["python", "benchmarks/mapping_dask.py", *arguments])
        RowFile(RESULTS).add([_row(n, seconds, options, bundle.manifest, command) for n in WORKERS])


def measure(bundle: Bundle, scene: Scene, folder: Path, n_workers: int, tile_px: int) -> float:
    """Return the seconds that `n_workers` processes need for all tiles of the scene, once they are warm."""
    work = folder / ".work"
    shutil.rmtree(work, ignore_errors=True)
    predictor = Predictor(bundle, "cpu")
    plan = make_plan(bundle, scene, predictor, tile_px)
    tiles = TileWork(plan, scene, predictor, TileStore(work / "tiles"))
    tiles.store.folder.mkdir(parents=True)
    with dask_tiles(f"local:{n_workers}", bundle, work) as make:
        _all_made(make(tiles, range(min(4 * n_workers, plan.n_tiles))))  # every worker has loaded the model after these
        start = time.perf_counter()
        _all_made(make(tiles, range(plan.n_tiles)))
        return time.perf_counter() - start


def _all_made(outcomes: object) -> None:
    for outcome in outcomes:  # type: ignore[attr-defined]
        assert isinstance(outcome, Receipt), outcome


def _bundle(scene: Scene) -> Bundle:
    """Return a model of the default shape with random weights: what it costs does not depend on them."""
    config = MapConfig(synthetic=True)
    names: Sequence[str] = scene.band_names
    spec = NetSpec(
        "segmentation",
        len(names),
        len(COLORS),
        encoder=config.encoder,
        encoder_depth=config.encoder_depth,
        decoder=config.decoder or "slim",
        pretrained=False,
        pixel_path=True,
    )
    torch.manual_seed(0)
    net = build_net(spec).eval()
    manifest = Manifest(
        method="supervised",
        encoder=spec.encoder,
        net=NetSettings(encoder_depth=spec.encoder_depth, decoder=spec.decoder, pixel_path=True),
        bands=tuple(BandScale(name=name, low=0.0, high=4000.0) for name in names),
        classes=tuple(ClassEntry(id=i, name=f"class {i}", color=color) for i, color in enumerate(COLORS, 1)),
        window_px=WINDOW_PX,
        margin_px=MARGIN_PX,
        versions=current_versions(),
    )
    return Bundle(manifest, make_tensors(make_method("supervised", {}), net, torch.nn.Module()))


def _row(
    n: int, seconds: dict[int, float], options: argparse.Namespace, manifest: Manifest, command: str
) -> dict[str, object]:
    mpx = options.side**2 / 1e6
    metrics = {"tiles_s": seconds[n], "mpx_per_s": mpx / seconds[n], "times_one_worker": seconds[1] / seconds[n]}
    return {
        "suite": "mapping",
        "dataset": f"synthetic landscape, {len(manifest.bands)} bands, {options.side} px square",
        "task": "segmentation",
        "method": "none",
        "variant": f"dask-{n}",
        "encoder": f"{manifest.encoder} (depth {manifest.net.encoder_depth}, {manifest.net.decoder})",
        "labels": 0,
        "labels_unit": "none",
        "seed": 0,
        "metrics": metrics,
        "unit": "seconds for all tiles, scene megapixels a second, ratio (best of the repeats)",
        "window_px": manifest.window_px,
        "margin_px": manifest.margin_px,
        "tile_px": options.tile_px,
        "n_repeats": options.repeats,
        "wall_s": seconds[n],
        "images_per_s": options.side**2 / manifest.stride_px**2 / seconds[n],
        "hardware": hardware(),
        "command": command,
        "version": __version__,
    }


if __name__ == "__main__":
    main(sys.argv[1:])
