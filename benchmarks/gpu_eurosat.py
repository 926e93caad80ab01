"""EuroSAT on one GPU: Wide-ResNet-28-2 from scratch or a pretrained encoder, at 1 to 100 labels a class, in pieces.

Usage:
  python benchmarks/gpu_eurosat.py --pack DIR [--encoder NAME --weights FILE]    data (and weights) in parts below 60 MB
  PYTHONPATH=src python benchmarks/gpu_eurosat.py --parts DIR,... --minutes 9 --before OUT1 --out OUT2

The second line needs torch, timm, numpy and pillow with what they bring along, scipy, scikit-learn (for the graphs of
`propagate`), and this checkout. It does what is missing in `OUT2/eurosat_gpu.json`, and stops after --minutes: a run
under way is left as parts below 16 MB in `OUT2/resume`, from which the next call, with --before OUT2, goes on and ends
with the same weights. A run that diverges is noted in `OUT2/eurosat_gpu_diverged.json`; it is not tried again with the
same settings. Without --parts the data set is looked for where the package looks for it. Without a GPU nothing is done,
unless --device cpu asks for it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from berunda.bench.bound import measure_bound
from berunda.bench.experiment import Experiment
from berunda.bench.piece_options import (
    add_options,
    chosen_arms,
    data_file,
    data_parts,
    loop_of,
    run_script,
    several,
)
from berunda.bench.pieces import joined_data
from berunda.bench.suite import Arm
from berunda.data.images import open_images
from berunda.methods.contract import NetSpec

SCRATCH: dict[str, Any] = {
    "optimizer": "sgd",
    "learning_rate": 0.03,
    "weight_decay": 5e-4,
    "clip_norm": 0.0,
    "ema_decay": 0.999,
}
"""How a net from scratch is trained. Source: Sohn et al. 2020 (FixMatch), table 4."""
PRETRAINED: dict[str, Any] = {"optimizer": "adamw", "learning_rate": 5e-4, "weight_decay": 1e-2, "ema_decay": 0.999}


def experiment(options: argparse.Namespace) -> Experiment:
    """Return what is compared."""
    arms = chosen_arms(map(Arm, options.methods), options.option)
    folder = joined_data(options.parts, options.state)
    weights = options.weights if folder is None else folder / "weights" / f"{options.encoder}.safetensors"
    is_pretrained = weights is not None and weights.is_file()
    images = open_images("eurosat", folder=folder, cache=None if folder is None else options.state / "cache")
    net = NetSpec(
        *("scene", len(images.bands), len(images.classes), options.encoder, options.depth),
        pretrained=is_pretrained,
        crop_px=images.size[0],
    )
    return Experiment(
        suite="eurosat_gpu",
        images=images,
        labels_unit="per_class",
        arms=arms,
        labels=tuple(options.labels),
        n_seeds=options.seeds,
        net=net,
        base=loop_of(options, PRETRAINED if is_pretrained else SCRATCH),
        told="split of index.csv",
        weights=weights if is_pretrained else None,
        bound=measure_bound,
    )


def pack(options: argparse.Namespace) -> None:
    """Write the data set's archive with its split, and pretrained weights, in parts."""
    files = {path.name: path for path in (options.archive, options.archive.parent / "index.csv")}
    data_parts(options.pack, files, encoder=options.encoder, weights=options.weights)


def parsed(arguments: list[str]) -> argparse.Namespace:
    """Return the options, lists taken apart."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(
        parser,
        archive=data_file("eurosat_rgb", "EuroSAT_RGB.zip"),
        out=Path(__file__).resolve().parent / "results",
        encoder="wide_resnet28_2",
        labels=[5, 1, 10, 20, 100],
        steps=8000,
        labelled=64,
    )
    parser.add_argument("--depth", type=int, default=2, help="stages of a net from scratch")
    parser.add_argument("--weights", type=Path, help="safetensors file of a timm encoder")
    parser.add_argument("--methods", type=several(str), default=["fixmatch"])
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Pack, or train what is missing; return the exit code."""
    return run_script(["python", "benchmarks/gpu_eurosat.py", *arguments], parsed(arguments), pack, experiment)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
