"""HVAE beside the same net supervised: Dubai and synthetic landscapes, 4 and 16 labelled images; five seeds of one.

Usage: python benchmarks/hvae.py [--datasets dubai,landscapes] [--seeds 3] [--stable-seeds 5] [--steps 300]

The runs are those of `berunda bench hvae`, three seeds of each; hvae at 4 labelled images gets five on each data set,
to count collapsed ones. The landscapes are made once, below the cache: images of 256 px and six bands with true masks,
each another landscape. Rows go to benchmarks/results/hvae.json, tables and pictures beside them; what is there is not
made again, and a run that was stopped goes on from its checkpoint.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from berunda.api.bench_verb import bench
from berunda.cache import cache_folder
from berunda.cli.progress import make_progress
from berunda.data.synthetic import Landscape, write_scene, write_truth
from berunda.errors import BerundaError
from berunda.options.bench import BenchOptions

RESULTS = Path(__file__).resolve().parent / "results"
LANDSCAPES = "landscapes"
COUNTS = {"train": 40, "val": 8, "test": 12}
SIDE_PX = 256
STABLE_LABELS = "4"
"""Labelled images of the runs that are counted: the fewest, where collapsing is nearest."""


def main(arguments: list[str]) -> int:
    """Do the missing runs and write the tables; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", default=f"dubai,{LANDSCAPES}", type=lambda text: text.split(","))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--stable-seeds", type=int, default=5, help="of hvae at 4 labelled images; 0 for none")
    parser.add_argument("--steps", type=int, help="of the reference method; default is the suite's")
    parser.add_argument("--crop-px", type=int, help="side of a training crop; default is the recipe's")
    parser.add_argument("--made", type=Path, help="folder of the landscapes; default is below the cache")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    failed, progress = 0, make_progress(quiet=False)
    try:
        for given in calls(options):
            failed += len(bench(BenchOptions(**given), options.out, progress=progress).failed)
    except BerundaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        progress.close()
    return int(failed > 0)


def calls(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the options of each call of the benchmark, its data set made where it has to be."""
    common = {name: getattr(options, name) for name in ("steps", "crop_px") if getattr(options, name)}
    for name in options.datasets:
        data = name
        if name == LANDSCAPES:
            data = str(write_landscapes(options.made or cache_folder() / "benchmarks" / LANDSCAPES))
        one = {"suite": "hvae", "data": data, **common}
        yield {**one, "seeds": options.seeds}
        if options.stable_seeds:
            yield {**one, "methods": "hvae", "labels": STABLE_LABELS, "seeds": options.stable_seeds}


def write_landscapes(folder: Path) -> Path:
    """Write images and masks of synthetic landscapes, once, and return their folder, whose name names the data set."""
    if folder.is_dir():
        return folder
    draft = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    seed = 0
    for part, n in COUNTS.items():
        for kind in ("images", "masks"):
            (draft / part / kind).mkdir(parents=True)
        for _ in range(n):
            spec = Landscape(seed, SIDE_PX, SIDE_PX, cloud_share=0.0)
            write_scene(draft / part / "images" / f"{seed:03d}.tif", spec)
            write_truth(draft / part / "masks" / f"{seed:03d}.tif", spec)
            seed += 1
    draft.rename(folder)
    return folder


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
