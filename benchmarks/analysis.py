"""Measure the analysis of sites: coverage of known shifts, the proposed split against random ones, and the cost.

Usage: python benchmarks/analysis.py [--part coverage|split|cost] [--again]

The landscapes' settings are in benchmarks/analysis_landscapes.json; rows go to benchmarks/results/analysis.json. A row
that is there is not made again without --again; one made on a busy machine says `measure_again`: its times mean little,
its other figures are those of any machine. Nothing is taken from the cache.
The cost is to be measured on a machine that does nothing else, on two cores:
`taskset -c 0,1 python benchmarks/analysis.py --part cost --again`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from berunda._version import __version__
from berunda.api import map_scene, predict
from berunda.api.analyze_verb import analyze, measure_sites
from berunda.api.compare import hardware
from berunda.api.site_pipeline import Stages, cutting_of, describe_sites
from berunda.api.split_verb import choose_sites
from berunda.bench.rows import RowFile
from berunda.config import MapConfig
from berunda.cores import allowed_cores
from berunda.data.order import Randomness
from berunda.data.site_layouts import find_sites
from berunda.data.synthetic import Landscape, block, write_polygons, write_scene, write_truth
from berunda.geo.grid import Window
from berunda.geo.labelraster import read_label_raster
from berunda.options.analyze import AnalyzeOptions, SplitOptions
from berunda.progress import Silent

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "analysis.json"
SETTINGS = json.loads((HERE / "analysis_landscapes.json").read_text(encoding="utf-8"))
N_IMAGES, SIDE_PX, N_SITES = 10_000, 64, 8
_COVERAGE = "share of a test site's support that the labelled sites' cover, in the plane and in the full space"
_SPLIT = (
    "mean IoU of supervised quick models on the test sites; the proposal knows the appearance and the class shares of "
    "every site, as a coarse survey tells them, the random draws nothing; both are tested on the sites that the "
    "proposal keeps for the test"
)


def main(arguments: list[str]) -> None:
    """Measure the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=("coverage", "split", "cost"))
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--steps", type=int, help="training steps of the split's models instead of the quick effort's")
    options = parser.parse_args(arguments)
    command = shlex.join(["python", "benchmarks/analysis.py", *arguments])
    rows = RowFile(RESULTS)
    # The cost first: the peak of memory is that of the process.
    for part, measure in (("cost", cost), ("coverage", coverage), ("split", compare_splits)):
        if options.part in (None, part):
            with tempfile.TemporaryDirectory() as cache:
                os.environ["BERUNDA_CACHE"] = cache
                measure(rows, command, options)


def coverage(rows: RowFile, command: str, options: argparse.Namespace) -> None:
    """Measure how far the labelled sites cover sites of known shifts, seed by seed."""
    told = SETTINGS["coverage"]
    for seed in told["seeds"]:
        if _has(rows, options, part="coverage", method="one_class_svm", seed=seed):
            continue
        start, load = time.perf_counter(), os.getloadavg()[0]
        # Each shift falls on another site with every seed, so that no figure is that of one place.
        test = list(told["test_sites"])
        shifts = {test[(number + seed) % len(test)]: shift for number, shift in enumerate(told["test_shifts"])}
        with tempfile.TemporaryDirectory() as folder:
            paths = _write_sites(Path(folder), seed, told["labelled"] | shifts, told)
            found = measure_sites(
                AnalyzeOptions(
                    inputs=paths,
                    labelled=tuple(told["labelled"]),
                    test=tuple(shifts),
                    block_px=told["block_px"],
                    image_px=told["image_px"],
                    seed=seed,
                    label_next=0,
                ),
                Silent(),
            )
        plane, full = found.overlaps.unions, found.overlaps.unions_full
        assert plane is not None
        assert full is not None
        metrics = {}
        for name, overlap in (("iot", plane), ("iot_full", full)):
            row = overlap.iot[overlap.rows.index("labelled")]
            metrics |= {f"{name}_shift_{shifts[s]:g}": float(row[overlap.cols.index(s)]) for s in shifts}
        seen = [metrics[f"iot_shift_{shift:g}"] for shift in shifts.values()]
        metrics["is_monotonic"] = float(all(a >= b for a, b in itertools.pairwise(seen)))
        seconds = time.perf_counter() - start
        row = _row("coverage", "one_class_svm", seed, metrics, (seconds, load, len(found.sites)), command)
        rows.add([row | {"shifts": shifts, "protocol": _COVERAGE}])
        print(f"coverage, seed {seed}: " + ", ".join(f"{value:.2f}" for value in seen), flush=True)


def compare_splits(rows: RowFile, command: str, options: argparse.Namespace) -> None:
    """Compare models trained on the proposed sites with those trained on random ones; both are tested on the same."""
    told, trained = SETTINGS["split"], f"{options.steps} steps" if options.steps else ""
    for number, landscape in enumerate(told["landscapes"]):
        with tempfile.TemporaryDirectory() as text:
            folder = Path(text)
            paths = _write_sites(folder, landscape["seed"], landscape["shifts"], told)
            names = list(landscape["shifts"])
            truth = _truth_of(folder, landscape["seed"], landscape["shifts"], told)
            chosen, test = _proposed(paths, truth, told)
            rest = [name for name in names if name not in test]
            cases = [("proposed_split", "", chosen)]
            for draw in range(told["n_random"]):
                rng = Randomness(number).numpy("random split", draw)
                picked = tuple(str(s) for s in rng.choice(rest, told["n_labelled"], replace=False))
                cases.append(("random_split", f"draw {draw}", picked))
            for method, draw, sites in cases:
                variant = ", ".join(word for word in (draw, trained) if word)
                if _has(rows, options, part="split", method=method, variant=variant, seed=number):
                    continue
                start, load = time.perf_counter(), os.getloadavg()[0]
                miou, seconds = _trained(folder, sites, test, options.steps), time.perf_counter() - start
                row = _row("split", method, number, {"miou": miou}, (seconds, load, 1), command, variant)
                rows.add([row | {"labelled_sites": list(sites), "test_sites": list(test), "protocol": _SPLIT}])
                print(f"split, landscape {number}, {method} {draw} {sites}: mIoU {miou:.3f}", flush=True)
        _add_mean_of_draws(rows, number, trained, told["n_random"])


def _add_mean_of_draws(rows: RowFile, landscape: int, trained: str, n_random: int) -> None:
    """Add the mean of a landscape's random splits as a row, with the runs that it is the mean of."""
    draws = [
        row
        for row in rows.rows()
        if (row["method"], row["seed"]) == ("random_split", landscape)
        and row["variant"] in {", ".join(w for w in (f"draw {n}", trained) if w) for n in range(n_random)}
    ]
    each = [row["metrics"]["miou"] for row in draws]
    mean = draws[0] | {
        "variant": ", ".join(word for word in ("mean of the draws", trained) if word),
        "metrics": {"miou": float(np.mean(each))},
        "each": each,
        "labelled_sites": [row["labelled_sites"] for row in draws],
        "wall_s": float(np.sum([row["wall_s"] for row in draws])),
        "measure_again": any(row["measure_again"] for row in draws),
    }
    rows.add([mean])
    print(f"split, landscape {landscape}, mean of {len(each)} random ones: mIoU {np.mean(each):.3f}", flush=True)


def cost(rows: RowFile, command: str, options: argparse.Namespace) -> None:
    """Measure time by stage and memory on 10,000 images of 64 px."""
    if _has(rows, options, part="cost", method="analyze", seed=0):
        return
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        _write_images(folder / "sites")
        start, load = time.perf_counter(), os.getloadavg()[0]
        outcome = analyze(
            AnalyzeOptions(
                inputs=[str(folder / "sites")], labelled=("site0", "site1", "site2"), test=("site5", "site6", "site7")
            ),
            folder / "out",
        )
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    metrics = {"total_s": seconds, "peak_gib": peak}
    metrics |= {f"{name} (s)": value for name, value in outcome.analysis.timing.items()}
    row = _row("cost", "analyze", 0, metrics, (seconds, load, N_IMAGES), command)
    row["protocol"] = "default options, images written before, described anew; imports are not counted"
    row["cores_allowed"] = allowed_cores()
    rows.add([row])
    print(f"{N_IMAGES} images of {SIDE_PX} px: {seconds:.0f} s, {peak:.2f} GiB", flush=True)


def _has(rows: RowFile, options: argparse.Namespace, **key: Any) -> bool:
    return not options.again and rows.has(**key)


def _row(
    part: str,
    method: str,
    seed: int,
    metrics: dict[str, float],
    cost: tuple[float, float, int],
    command: str,
    variant: str = "",
) -> dict[str, Any]:
    """Return a row; `cost` is the seconds taken, the load when they began, and the images they were taken by."""
    import torch

    seconds, load, n_images = cost
    n_cores = allowed_cores()
    return {
        "suite": "analysis",
        "part": part,
        "dataset": "synthetic landscapes, 8 sites" if part != "cost" else "10,000 images of 64 px, 8 sites",
        "task": "segmentation" if part == "split" else "analysis",
        "method": method,
        "variant": variant,
        "encoder": "efficientnet_lite0",
        "labels": SETTINGS["split"]["polygons_per_class"] if part == "split" else 0,
        "labels_unit": "polygons_per_class",
        "seed": seed,
        "metrics": metrics,
        "wall_s": seconds,
        "images_per_s": n_images / seconds,
        "hardware": f"{hardware()}, {torch.get_num_threads()} threads",
        "load_average": round(load, 1),
        "measure_again": load > 0.5 * n_cores,
        "command": command,
        "version": __version__,
    }


def _landscape(seed: int, name: str, shift: float, told: dict[str, Any]) -> Landscape:
    return Landscape(seed=seed, rows=told["rows"], cols=told["cols"], shift=shift, cloud_share=0.0, site=name)


def _write_sites(folder: Path, seed: int, shifts: dict[str, float], told: dict[str, Any]) -> list[str]:
    return [
        str(write_scene(folder / f"{name}.tif", _landscape(seed, name, shift, told))) for name, shift in shifts.items()
    ]


def _truth_of(folder: Path, seed: int, shifts: dict[str, float], told: dict[str, Any]) -> dict[str, Path]:
    """Write truth and polygons of every site; return the rasters."""
    found = {}
    for name, shift in shifts.items():
        spec = _landscape(seed, name, shift, told)
        found[name] = write_truth(folder / f"{name}_truth.tif", spec)
        write_polygons(folder / f"{name}.gpkg", spec, told["polygons_per_class"])
    return found


def _proposed(paths: Sequence[str], truth: dict[str, Path], told: dict[str, Any]) -> tuple[tuple[str, ...], ...]:
    """Return the sites that the split proposes to label and to test on.

    It is told the share of the classes in every site, as a coarse survey would know them.
    """
    table = Path(paths[0]).parent / "sites.csv"
    lines = [f"{Path(p).stem},{Path(p).name},{truth[Path(p).stem].name}" for p in paths]
    table.write_text("site,path,truth\n" + "\n".join(lines) + "\n", encoding="utf-8")
    options = SplitOptions(
        inputs=[str(table)],
        block_px=told["block_px"],
        image_px=told["image_px"],
        n_labelled=told["n_labelled"],
        n_test=told["n_test"],
    )
    sites = find_sites(options.inputs, cutting_of(options))
    choice = choose_sites(describe_sites(sites, options, Stages(), Silent()), options)
    names = sites.site_names
    return tuple(names[i] for i in choice.labelled), tuple(names[i] for i in choice.test)


def _trained(folder: Path, labelled: Sequence[str], test: Sequence[str], steps: int | None) -> float:
    """Return the mean IoU on the test sites of the supervised quick model trained on the labelled ones."""
    import geopandas
    import pandas

    out = folder / "run"
    polygons = folder / "polygons.gpkg"
    joined = pandas.concat([geopandas.read_file(folder / f"{name}.gpkg") for name in labelled])
    joined.to_file(polygons, driver="GPKG")
    more = {} if steps is None else {"steps": steps}
    config = MapConfig(
        scenes=[str(folder / f"{name}.tif") for name in labelled],
        labels=str(polygons),
        field="class",
        method="supervised",
        effort="quick",
        test_share=0.05,
        **more,
    )
    made = map_scene(config, out)
    names = [entry["name"] for entry in json.loads((made.bundle_path / "model.json").read_text())["classes"]]
    predict(made.bundle_path, [str(folder / f"{name}.tif") for name in test], out / "test")
    confusion = np.zeros((6, 6))
    for name in test:
        path = next(p for p in ((out / "test" / name / "map.tif"), out / "test" / "map.tif") if p.is_file())
        answer = read_label_raster(path)
        truth = read_label_raster(folder / f"{name}_truth.tif")
        known = {title: number for number, title in truth.names.items()}
        lookup = np.array([0, *(known.get(title, 0) for title in names)])
        said = lookup[np.maximum(answer.values, 0)]
        np.add.at(confusion, (truth.values.ravel() - 1, np.maximum(said.ravel() - 1, 0)), 1)
    import shutil

    shutil.rmtree(out)
    hit = np.diag(confusion)
    either = confusion.sum(0) + confusion.sum(1) - hit
    return float((hit / np.maximum(either, 1))[confusion.sum(1) > 0].mean())


def _write_images(folder: Path) -> None:
    """Write 10,000 pictures of eight sites whose colours shift from one to the next."""
    from PIL import Image

    per_site = N_IMAGES // N_SITES
    side = int(np.ceil(np.sqrt(per_site)))
    for number in range(N_SITES):
        place = folder / f"site{number}"
        place.mkdir(parents=True)
        size = side * SIDE_PX
        spec = Landscape(seed=0, rows=size, cols=size, shift=0.3 * number, cloud_share=0.0, site=f"cost{number}")
        for k in range(per_site):
            row, col = divmod(k, side)
            values = block(spec, Window(row * SIDE_PX, col * SIDE_PX, SIDE_PX, SIDE_PX))[0][[2, 1, 0]]
            picture = np.clip(values.transpose(1, 2, 0) / 3000.0 * 255, 0, 255).astype(np.uint8)
            Image.fromarray(picture).save(place / f"{k:05d}.png", compress_level=1)


if __name__ == "__main__":
    main(sys.argv[1:])
