"""How much of a FixMatch step on images is the net itself: the loop's step against bare forward and backward.

Usage: python benchmarks/step_throughput.py [--steps 10] [--repeats 3]

Wide-ResNet-28-2, 64 px, 16 labelled and 48 unlabelled images a step, made-up pixels in memory. A repeat measures the
bare step (the net forward and backward on the trained images, the teacher forward on its own, nothing else), then
trains; the medians over the repeats count, after one that warms up. Rows go to benchmarks/results/step_throughput.json.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from berunda._version import __version__
from berunda.api.compare import hardware
from berunda.bench.bound import Bound, images_per_step, measure_bound
from berunda.bench.rows import RowFile
from berunda.data.image_source import ImageSource
from berunda.data.images import TRAIN, ImageSet
from berunda.methods import make_method
from berunda.methods.contract import NetSpec
from berunda.train.config import TrainConfig
from berunda.train.loop import ACTIVITIES, Trained, train

RESULTS = Path(__file__).resolve().parent / "results" / "step_throughput.json"
N_CLASSES, N_IMAGES = 10, 2000


def main(arguments: list[str]) -> None:
    """Measure every method asked for and print where its time goes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", default="fixmatch")
    parser.add_argument("--encoder", default="wide_resnet28_2")
    parser.add_argument("--depth", type=int, default=2, help="stages of the encoder in use")
    parser.add_argument("--labelled", type=int, default=16)
    parser.add_argument("--mu", type=float, default=3.0, help="unlabelled images for each labelled one")
    parser.add_argument("--px", type=int, default=64)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    command = shlex.join(["python", "benchmarks/step_throughput.py", *arguments])
    for name in options.methods.split(","):
        row = measure(name, options) | {"command": command}
        RowFile(options.results).add([row])
        print(table(row))


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the row of one method."""
    method = make_method(name, {} if name == "supervised" else {"mu": options.mu})
    spec = NetSpec(*("scene", 3, N_CLASSES, options.encoder, options.depth), pretrained=False, crop_px=options.px)
    config = TrainConfig(
        steps=options.steps, n_labelled=options.labelled, optimizer="sgd", learning_rate=0.03, device=options.device
    )
    source = made_up(options.px)
    bounds: list[Bound] = []
    runs: list[Trained] = []
    for _ in range(options.repeats + 1):
        bounds.append(measure_bound(method, spec, config, repeats=max(1, options.steps // 5)))
        runs.append(train(method, spec, source, config))
    bounds, runs = bounds[1:] or bounds, runs[1:] or runs
    seconds = {part: statistics.median(run.timing[part] / options.steps for run in runs) for part in ACTIVITIES}
    step = statistics.median(run.seconds / options.steps for run in runs)
    bare = statistics.median(bound.step_s for bound in bounds)
    trained = statistics.median(bound.trained_s for bound in bounds)
    images = images_per_step(method, options.labelled)
    return {
        "suite": "step_throughput",
        "dataset": f"made-up images, 3 bands, {options.px} px",
        "task": "scene",
        "method": name,
        "variant": f"{images.trained} trained, {images.forward} forward images a step",
        "encoder": options.encoder,
        "labels": "all",
        "labels_unit": "per_class",
        "seed": config.seed,
        "metrics": {
            **seconds,
            "step": step,
            "bare": bare,
            "bare_trained": trained,
            "share_of_bare": bare / step,
            "share_of_bare_trained": trained / step,
        },
        "unit": "seconds a step (medians); shares are of the step",
        "n_steps": options.steps,
        "repeats": len(runs),
        "wall_s": statistics.median(run.seconds for run in runs),
        "images_per_s": images.passes / step,
        "hardware": f"{hardware()}, {torch.get_num_threads()} threads",
        "version": __version__,
    }


def made_up(px: int) -> ImageSource:
    """Return a source of noise that costs what real images cost."""
    rng = np.random.default_rng(0)
    labels = np.arange(N_IMAGES) % N_CLASSES
    images = ImageSet(
        name="made-up images",
        task="scene",
        pixels=rng.integers(0, 256, (N_IMAGES, 3, px, px), dtype=np.uint8),
        labels=labels,
        classes=tuple(map(str, range(N_CLASSES))),
        bands=("red", "green", "blue"),
        parts=np.full(N_IMAGES, TRAIN, np.int8),
        names=tuple(map(str, range(N_IMAGES))),
        fingerprint="made up",
    )
    return ImageSource(images, np.arange(50), np.arange(N_IMAGES), images.scaling())


def table(row: dict[str, Any]) -> str:
    """Return where the time of a step goes, as Markdown."""
    metrics = row["metrics"]
    lines = [
        f"{row['method']}, {row['encoder']}: {row['variant']}",
        "",
        "| part | ms a step | share |",
        "| --- | --- | --- |",
    ]
    named = {name: metrics[name] for name in ACTIVITIES} | {"**step**": metrics["step"]}
    named |= {"bare forward + backward": metrics["bare_trained"], "with the teacher's forward": metrics["bare"]}
    lines += [f"| {n.replace('_', ' ')} | {1e3 * s:.1f} | {s / metrics['step']:.1%} |" for n, s in named.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
