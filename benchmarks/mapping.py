"""How fast a scene is mapped, in how much memory, and what windows, margins and nets cost and bring.

Usage: python benchmarks/mapping.py [--parts throughput,memory,trade] [--size 4096] [--workers 1,2]

- throughput: scene megapixels a second of `map_scenes`, everything written, against the bare forward pass over as many
  windows (margins included, same batch, precision and threads), timed before and after in the same run; and against
  torchgeo's loop, where torchgeo is installed. "model" is the forward pass of all that predicts (encoder, decoder and
  the method's classifiers), "net" that of encoder, decoder and one classifier. Shares by processor time stand beside
  those by wall time: they hold on a busy machine too. "In a window" is the model's share of what turns a window into
  class, confidence, distance and energy, before anything is read or written.
- memory: peak resident memory of a process that maps 4,000 x 4,000 px, and of one that maps a part of a sparse file of
  40,000 x 40,000 px.
- trade: megapixels a second of one thread against mIoU on the demo scene, by window, margin, encoder depth and decoder;
  one training for each net.

Rows go to benchmarks/results/mapping.json, one a finished run; runs that are there already are not repeated.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from berunda._version import __version__
from berunda.api.compare import comparison_row, hardware, net_result
from berunda.api.demo_verb import synthetic_config
from berunda.api.evaluate import gather_pixels
from berunda.api.fit import fit, method_of, train_config
from berunda.api.prepare import prepare
from berunda.bench.rows import RowFile
from berunda.config import MapConfig
from berunda.data.scene_source import build_source
from berunda.data.spectra import band_names
from berunda.data.splits import TEST
from berunda.data.synthetic import Landscape, block, write_scene
from berunda.geo.grid import Window
from berunda.geo.raster import open_scenes
from berunda.mapping.bundle import Bundle, load_bundle, save_bundle
from berunda.mapping.predictor import Predictor
from berunda.mapping.run import map_scenes
from berunda.memory import keep_freed_memory
from berunda.progress import Silent
from torchgeo_loop import torchgeo_mpx_per_s, torchgeo_version

RESULTS = Path(__file__).resolve().parent / "results" / "mapping.json"
SUITE = "mapping"
SMALL_PX, LARGE_PX = 4_000, 40_000
MEMORY_MPX = 100
"""So much of the large file is mapped; its first 4,000 rows and columns hold data."""
N_BARE = 128
"""Windows of the bare forward pass, before and after the map each."""
NETS = ((3, "slim"), (3, "slim4"), (2, "slim"), (3, "unet"))
WINDOWS = ((256, 16), (256, 32), (448, 8), (448, 16), (448, 32), (640, 16))


@dataclass(frozen=True)
class Bench:
    """Where rows go and what every one of them says."""

    rows: RowFile
    command: str
    folder: Path

    def has(self, part: str, variant: str, seed: int = 0) -> bool:
        """Say whether this run is there already."""
        return self.rows.has(suite=SUITE, part=part, variant=variant, seed=seed)

    def add(self, part: str, variant: str, metrics: Mapping[str, Any], seconds: float, **more: Any) -> None:
        """Add a finished run and print it."""
        row = {
            "suite": SUITE,
            "part": part,
            "dataset": "synthetic landscape, 6 bands",
            "task": "segmentation",
            "method": "cotrain",
            "variant": variant,
            "encoder": "efficientnet_lite0",
            "labels": 5,
            "labels_unit": "polygons_per_class",
            "seed": 0,
            "wall_s": round(seconds, 2),
            "images_per_s": 0.0,
            "hardware": f"{hardware()}, {torch.get_num_threads()} threads",
            "command": self.command,
            "version": __version__,
        }
        self.rows.add([{**row, **more, "metrics": metrics}])
        print(f"{part} {variant}: " + ", ".join(f"{k} {_short(v)}" for k, v in metrics.items()), flush=True)


def synthetic_bundle(folder: Path, steps: int = 100) -> Bundle:
    """Return a net that was trained for a moment on a synthetic landscape; it is kept in `folder`."""
    if (folder / "model").is_dir():
        return load_bundle(folder / "model")
    config = synthetic_config(folder, MapConfig(synthetic=True, polygons_per_class=5, test_share=0.5))
    config = config.replaced(steps=steps)
    prepared = prepare(config)
    source = build_source(prepared.scenes, prepared.labels, prepared.split, prepared.scaling, config.crop_px)
    fitted = fit(method_of(config), prepared, source, gather_pixels(prepared), config, train_config(config))
    save_bundle(folder / "model", fitted.bundle)
    return fitted.bundle


def with_windows(bundle: Bundle, window_px: int, margin_px: int) -> Bundle:
    """Return the bundle with other windows."""
    return replace(bundle, manifest=bundle.manifest.model_copy(update={"window_px": window_px, "margin_px": margin_px}))


def throughput(bench: Bench, size: int, workers: int) -> None:
    """Time a map between two halves of the bare forward pass, and torchgeo's loop beside it."""
    keep_freed_memory()
    bundle = synthetic_bundle(bench.folder)
    manifest = bundle.manifest
    variant = f"{size} px, window {manifest.window_px}, margin {manifest.margin_px}, workers {workers}"
    if bench.has("throughput", variant):
        return
    path = _scene_file(bench.folder, size)
    predictor = Predictor(bundle)
    n_threads = max(workers, torch.get_num_threads())
    torchgeo = [_torchgeo(path, manifest)]
    before = _bare(predictor, n_threads)
    start, start_cpu = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory(dir=bench.folder) as out:
        (result,) = map_scenes(bundle, open_scenes([path]), out, workers=workers)
    wall, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    after = _bare(predictor, n_threads)
    torchgeo.append(_torchgeo(path, manifest))
    n_windows = (-(-size // manifest.stride_px)) ** 2
    metrics: dict[str, Any] = {"mpx_per_s": result.mpx_per_s, "mpx_per_cpu_s": size**2 / 1e6 / cpu}
    per_window = {name: before[name][1] + after[name][1] for name in before}
    metrics["share_of_model_in_a_window_cpu"] = per_window["model"] / per_window.pop("planes")
    for name in per_window:
        bare = [(a + b) / 2 * n_windows for a, b in zip(before[name], after[name], strict=True)]
        metrics[f"bare_{name}_mpx_per_s"] = size**2 / 1e6 / bare[0]
        metrics[f"share_of_{name}"], metrics[f"share_of_{name}_cpu"] = bare[0] / wall, bare[1] / cpu
    if torchgeo[0] is not None and torchgeo[1] is not None:
        metrics["torchgeo_mpx_per_s"] = statistics.mean((torchgeo[0], torchgeo[1]))
        metrics["times_torchgeo"] = metrics["mpx_per_s"] / metrics["torchgeo_mpx_per_s"]
    more = {"torchgeo": torchgeo_version(), "precision": predictor.precision, "n_threads": n_threads}
    bench.add("throughput", variant, metrics, wall, **more)


def _bare(predictor: Predictor, n_threads: int) -> dict[str, list[float]]:
    """Return wall and processor seconds a window of the model, of its net alone, and of all that is predicted."""
    m = predictor.manifest
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randn(predictor.batch, len(m.bands), m.window_px, m.window_px, generator=draw).clamp(-3, 3)
    given = pixels.to(predictor.dtype, memory_format=torch.channels_last)

    def net(_: int) -> None:
        with torch.inference_mode():
            predictor._net(given)

    def model(_: int) -> None:
        predictor.forward(pixels)

    windows, valid = pixels.numpy(), np.ones((predictor.batch, m.window_px, m.window_px), bool)

    def planes(_: int) -> None:
        predictor.predict(windows, valid)

    jobs = {"model": model, "net": net, "planes": planes}
    return {name: _pace(job, n_threads, predictor.batch) for name, job in jobs.items()}


def _pace(job: Callable[[int], None], n_threads: int, batch: int) -> list[float]:
    """Return wall and processor seconds a window; each thread computes alone, as in mapping."""
    kept = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(n_threads) as pool:
            list(pool.map(job, range(4 * n_threads)))
            start, start_cpu = time.perf_counter(), time.process_time()
            list(pool.map(job, range(N_BARE // batch)))
            n = N_BARE // batch * batch
            return [(time.perf_counter() - start) / n, (time.process_time() - start_cpu) / n]
    finally:
        torch.set_num_threads(kept)


def _torchgeo(path: Path, manifest: Any) -> float | None:
    """Return the pace of torchgeo's loop in a process of its own, whose memory is managed as usual."""
    if torchgeo_version() is None:
        print("torchgeo is not installed: its loop is left out (pip install torchgeo==0.8.1)", flush=True)
        return None
    told = json.dumps({"path": str(path), "n_bands": len(manifest.bands), "n_classes": len(manifest.classes)})
    done = subprocess.run([sys.executable, __file__, "--torchgeo", told], check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def _scene_file(folder: Path, size: int) -> Path:
    """Return a synthetic scene, written once."""
    path = folder / f"scene{size}" / "scene.tif"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_scene(path, Landscape(seed=0, rows=size, cols=size))
    return path


def memory(bench: Bench, workers: int) -> None:
    """Compare the peak memory of a small and of a large scene, each mapped by a process of its own."""
    variant = f"{SMALL_PX} px and {MEMORY_MPX} Mpx of {LARGE_PX} px, workers {workers}"
    if bench.has("memory", variant):
        return
    synthetic_bundle(bench.folder)
    start = time.perf_counter()
    small = _probe(bench.folder, _scene_file(bench.folder, SMALL_PX), workers, 0)
    large = _probe(bench.folder, _sparse_file(bench.folder), workers, MEMORY_MPX)
    metrics = {"peak_small_gib": small, "peak_large_gib": large, "large_over_small": large / small}
    bench.add("memory", variant, metrics, time.perf_counter() - start)


def _probe(folder: Path, scene: Path, workers: int, stop_mpx: int) -> float:
    told = json.dumps({"folder": str(folder), "scene": str(scene), "workers": workers, "stop_mpx": stop_mpx})
    done = subprocess.run([sys.executable, __file__, "--probe", told], check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


class _Enough(Exception):
    """The part of the scene that was wanted is mapped."""


class _Until(Silent):
    """Ends a map after some megapixels; 0 lets it go to its end."""

    def __init__(self, stop_mpx: int) -> None:
        self.left = stop_mpx * 1e6 if stop_mpx else float("inf")

    def advance(self, n: int = 1, **figures: float) -> None:
        """Count."""
        self.left -= n
        if self.left <= 0:
            raise _Enough


def probe(told: str) -> None:
    """Map in this process and print its peak resident memory in GiB."""
    wanted = json.loads(told)
    bundle = load_bundle(Path(wanted["folder"]) / "model")
    scenes = open_scenes([wanted["scene"]])
    with tempfile.TemporaryDirectory(dir=wanted["folder"]) as out, contextlib.suppress(_Enough):
        map_scenes(bundle, scenes, out, workers=wanted["workers"], progress=_Until(wanted["stop_mpx"]))
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak_kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    print(int(peak_kib) / 2**20)


def _sparse_file(folder: Path) -> Path:
    """Return a sparse file whose first corner holds what the small scene holds."""
    import rasterio

    path = folder / f"scene{LARGE_PX}" / "scene.tif"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = Landscape(seed=0, rows=LARGE_PX, cols=LARGE_PX)
    profile = {"driver": "GTiff", "count": 6, "height": LARGE_PX, "width": LARGE_PX, "dtype": "uint16", "nodata": 0}
    layout = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "sparse_ok": True}
    place = {"crs": whole.grid.crs, "transform": whole.grid.transform, "bigtiff": "YES"}
    partial = path.with_suffix(".part")
    with rasterio.open(partial, "w", **profile, **layout, **place) as file:
        file.descriptions = band_names(6)
        for row in range(0, SMALL_PX, 1000):
            values, _, _ = block(Landscape(seed=0, rows=SMALL_PX, cols=SMALL_PX), Window(row, 0, 1000, SMALL_PX))
            file.write(values, window=rasterio.windows.Window(0, row, SMALL_PX, 1000))
    partial.rename(path)
    return path


def trade(bench: Bench, nets: int, seed: int) -> None:
    """Train each net once on the demo scene, and map with every window and margin."""
    from demo import Ground  # the demo's benchmark: same splits, labels and test pixels

    ground: Ground | None = None
    for depth, decoder in NETS[:nets]:
        names = {(w, m): f"{decoder}, depth {depth}, window {w}, margin {m}" for w, m in WINDOWS}
        if all(bench.has("trade", name, seed) for name in names.values()):
            continue
        ground = ground or Ground.of(seed)
        config = ground.config.replaced(encoder_depth=depth, decoder=decoder)
        fitted = fit(method_of(config), ground.prepared, ground.source, ground.table, config, train_config(config))
        for (window, margin), name in names.items():
            other = with_windows(fitted.bundle, window, margin)
            asked = replace(fitted, bundle=other, predictor=Predictor(other))
            result = net_result(asked, ground.prepared, ground.table.of(TEST), "cotrain", 0.0)
            scores = comparison_row(result, ground.prepared, config)["metrics"]
            metrics = {"mpx_per_s": _one_thread(asked.predictor), "miou": scores["miou"], "oa": scores["oa"]}
            facts = {"dataset": "demo (Sentinel-2 T33UUU, 2017-02-16)", "seed": seed}
            bench.add("trade", name, metrics, fitted.trained.seconds, **facts)


def _one_thread(predictor: Predictor) -> float:
    """Return scene megapixels a processor second of one thread, from window to planes: the best of 9."""
    m = predictor.manifest
    shape = (predictor.batch, len(m.bands), m.window_px, m.window_px)
    pixels = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    valid = np.ones((shape[0], *shape[2:]), bool)
    return predictor.batch * m.stride_px**2 / 1e6 / min(_times(lambda: predictor.predict(pixels, valid)))


def _times(job: Callable[[], Any], n: int = 9) -> Iterator[float]:
    kept = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        job()
        for _ in range(n):
            start = time.process_time()
            job()
            yield time.process_time() - start
    finally:
        torch.set_num_threads(kept)


def _short(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def main(arguments: list[str]) -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default="throughput,memory,trade")
    parser.add_argument("--size", type=int, default=4096, help="side of the scene of throughput, px")
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each net of trade")
    parser.add_argument("--nets", type=int, default=len(NETS), help="how many nets of trade")
    parser.add_argument("--folder", type=Path, help="where scenes and the model are kept between runs")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--probe", help=argparse.SUPPRESS)
    parser.add_argument("--torchgeo", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.probe:
        probe(options.probe)
        return
    if options.torchgeo:
        print(torchgeo_mpx_per_s(**options.torchgeo, max_batches=16))
        return
    parts = options.parts.split(",")
    with tempfile.TemporaryDirectory() as temporary:
        command = shlex.join(["python", "benchmarks/mapping.py", *arguments])
        bench = Bench(RowFile(options.results), command, options.folder or Path(temporary))
        for workers in map(int, options.workers.split(",")):
            if "throughput" in parts:
                throughput(bench, options.size, workers)
            if "memory" in parts:
                memory(bench, workers)
        for seed in range(options.seeds if "trade" in parts else 0):
            trade(bench, options.nets, seed)


if __name__ == "__main__":
    main(sys.argv[1:])
