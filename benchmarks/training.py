"""What a training step costs and where its time goes: data and views must take at most a fifth.

Usage: python benchmarks/training.py [--steps 60] [--repeats 3]

Trains on a synthetic scene in memory, with the settings of `berunda map --effort quick`, and reads the loop's own
clock. The first repeat warms up and is not counted; each row holds the medians of the others. Rows go to
benchmarks/results/training.json.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
import tempfile
from pathlib import Path

import torch

from berunda._version import __version__
from berunda.api.compare import hardware
from berunda.api.demo_verb import synthetic_config
from berunda.api.fit import N_LABELLED, spec_of, train_config
from berunda.api.prepare import prepare
from berunda.bench.rows import RowFile
from berunda.config import MapConfig
from berunda.data.scene_source import build_source
from berunda.methods import make_method
from berunda.train.loop import Trained, train
from berunda.train.passes import passes_per_step

RESULTS = Path(__file__).resolve().parent / "results" / "training.json"
RUNS = {
    ("supervised", "slim"): {},
    ("cotrain", "slim"): {},
    ("fixmatch", "slim"): {"mu": 2.0},
    ("berunda", "slim"): {"mu": 2.0},
    ("cotrain", "unet"): {},
    ("fixmatch", "unet"): {"mu": 2.0},
}


def main(arguments: list[str]) -> None:
    """Time every method."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(arguments)
    command = shlex.join(["python", "benchmarks/training.py", *arguments])
    rows = RowFile(RESULTS)
    with tempfile.TemporaryDirectory() as folder:
        config = synthetic_config(Path(folder), MapConfig(synthetic=True, polygons_per_class=5, test_share=0.5))
        config = config.replaced(steps=options.steps)
        prepared = prepare(config)
        source = build_source(prepared.scenes, prepared.labels, prepared.split, prepared.scaling, config.crop_px)
        for (name, decoder), chosen in RUNS.items():
            method = make_method(name, chosen)
            spec = spec_of(method, prepared, config.replaced(decoder=decoder))
            runs = [train(method, spec, source, train_config(config)) for _ in range(options.repeats + 1)][1:]
            passes = passes_per_step(method, N_LABELLED)
            metrics = {part: _median(runs, part, options.steps) for part in runs[0].timing}
            step = sum(metrics.values())
            metrics |= {"step": step, "share_data_and_views": (metrics["data"] + metrics["views"]) / step}
            rows.add(
                [
                    {
                        "suite": "training",
                        "dataset": "synthetic landscape, 6 bands",
                        "task": "segmentation",
                        "method": name,
                        "variant": decoder,
                        "encoder": f"{config.encoder} (depth {config.encoder_depth}, {decoder})",
                        "labels": 5,
                        "labels_unit": "polygons_per_class",
                        "seed": config.seed,
                        "metrics": metrics,
                        "unit": "seconds a step (medians), share as a fraction of 1",
                        "n_steps": options.steps,
                        "image_passes_a_step": passes,
                        "wall_s": statistics.median(run.seconds for run in runs),
                        "images_per_s": passes / step,
                        "hardware": f"{hardware()}, {torch.get_num_threads()} threads",
                        "command": command,
                        "version": __version__,
                    }
                ]
            )
            print(f"{name:<12} {decoder:<6} {step * 1e3:.0f} ms, data and views {metrics['share_data_and_views']:.1%}")


def _median(runs: list[Trained], part: str, n_steps: int) -> float:
    return statistics.median(run.timing[part] / n_steps for run in runs)


if __name__ == "__main__":
    main(sys.argv[1:])
