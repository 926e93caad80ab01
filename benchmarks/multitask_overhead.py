"""What an auxiliary task adds to a training step: BerundaNet and W-Net against the supervised net on the same images.

Usage: python benchmarks/multitask_overhead.py [--steps 20] [--repeats 5] [--clock wall|cpu] [--variants "late l1"]

Every net sees 16 crops of 64 px of a synthetic scene a step: the supervised one 16 labelled ones, the others 8 labelled
and 8 unlabelled. The variants take turns, repeat after repeat, so that what else the machine does falls on all of them;
a repeat gives each variant's step as a multiple of the supervised step of the same repeat, and the medians over the
repeats count, after one that warms up. `--clock cpu` counts the seconds that the process computes instead of those on
the wall, for a machine that is not quiet. Rows go to benchmarks/results/multitask_overhead.json.
"""

from __future__ import annotations

import argparse
import gc
import shlex
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from berunda._version import __version__
from berunda.api.compare import hardware
from berunda.api.demo_verb import synthetic_config
from berunda.api.fit import spec_of, train_config
from berunda.api.prepare import Prepared, prepare
from berunda.bench.rows import RowFile
from berunda.config import MapConfig
from berunda.data.scene_source import SceneSource, build_source
from berunda.methods import make_method
from berunda.methods.contract import Method
from berunda.models.spec import Decoder
from berunda.train.loop import train
from berunda.train.passes import passes_per_step

RESULTS = Path(__file__).resolve().parent / "results" / "multitask_overhead.json"
N_IMAGES, SET_UP_STEPS = 16, 2
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "": ("supervised", {}),
    **{f"late {aux}": ("berunda", {"aux": aux}) for aux in ("l1", "l2", "kmeans", "mumford_shah")},
    **{f"late {aux}": ("berunda", {"aux": aux}) for aux in ("jigsaw", "inpainting")},
    **{f"early {aux}": ("berunda", {"aux": aux, "split": "early"}) for aux in ("l1", "kmeans")},
    **{f"second half {aux}": ("wnet", {"aux": aux}) for aux in ("l1", "kmeans")},
}


class Stand:
    """The scene, and a clock for steps on it."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        config = synthetic_config(folder, MapConfig(synthetic=True, polygons_per_class=5, test_share=0.5))
        self.config, self.clock, self.steps = config, options.clock, options.steps
        self.prepared: Prepared = prepare(config)
        parts = (self.prepared.scenes, self.prepared.labels, self.prepared.split, self.prepared.scaling)
        self.source: SceneSource = build_source(*parts, config.crop_px)

    def step_s(self, method: Method, decoder: Decoder) -> float:
        """Return the seconds of a step: those of a long training less those of one of two steps."""
        short, long = (self._seconds(method, decoder, n) for n in (SET_UP_STEPS, SET_UP_STEPS + self.steps))
        return (long - short) / self.steps

    def _seconds(self, method: Method, decoder: Decoder, steps: int) -> float:
        n_labelled = round(N_IMAGES / (1 + method.needs().unlabelled_ratio))
        config = self.config.replaced(steps=steps, decoder=decoder, device="cpu")
        spec = spec_of(method, self.prepared, config)
        gc.collect()
        start = time.process_time()
        trained = train(method, spec, self.source, train_config(config, n_labelled=n_labelled))
        return time.process_time() - start if self.clock == "cpu" else sum(trained.timing.values())


def main(arguments: list[str]) -> None:
    """Measure every variant with every decoder, write the rows and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--decoders", default="slim,unet")
    parser.add_argument("--variants", default=",".join(filter(None, VARIANTS)))
    parser.add_argument("--note", default="", help="something to know about the machine, kept in the rows")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        stand = Stand(Path(folder), options)
        for decoder in options.decoders.split(","):
            rows = measure(stand, decoder, options)
            RowFile(options.results).add(rows)
            for row in rows:
                step, times = (row["metrics"][name] for name in ("step", "times_supervised"))
                print(f"{decoder:<5} {row['variant']:<32} {1e3 * step:6.0f} ms  {times:.2f}")


def measure(stand: Stand, decoder: Decoder, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row for each variant."""
    methods = {variant: make_method(*VARIANTS[variant]) for variant in ("", *options.variants.split(","))}
    turns = [
        {variant: stand.step_s(method, decoder) for variant, method in methods.items()}
        for _ in range(options.repeats + 1)
    ][1:]
    return [_row(variant, methods[variant], turns, stand, decoder, options) for variant in methods]


def _row(
    variant: str,
    method: Method,
    turns: list[dict[str, float]],
    stand: Stand,
    decoder: Decoder,
    options: argparse.Namespace,
) -> dict[str, Any]:
    ratios = sorted(turn[variant] / turn[""] for turn in turns)
    step = statistics.median(turn[variant] for turn in turns)
    n_labelled = round(N_IMAGES / (1 + method.needs().unlabelled_ratio))
    note = {"note": options.note} if options.note else {}
    return {
        "suite": "multitask_overhead",
        "dataset": "synthetic landscape, 6 bands",
        "task": "segmentation",
        "method": method.name,
        "variant": f"{variant} {decoder}".strip(),
        "encoder": f"{stand.config.encoder} (depth {stand.config.encoder_depth}, {decoder})",
        "labels": 5,
        "labels_unit": "polygons_per_class",
        "seed": stand.config.seed,
        "metrics": {
            "step": step,
            "times_supervised": statistics.median(ratios),
            "times_supervised_lowest": ratios[0],
            "times_supervised_highest": ratios[-1],
        },
        "unit": f"seconds of {options.clock} clock a step (medians); supervised steps on as many images",
        "n_steps": options.steps,
        "repeats": len(turns),
        "images_a_step": N_IMAGES,
        "image_passes_a_step": passes_per_step(method, n_labelled),
        "wall_s": step * options.steps,
        "images_per_s": N_IMAGES / step,
        "hardware": f"{hardware()}, {torch.get_num_threads()} threads",
        "command": shlex.join(["python", "benchmarks/multitask_overhead.py", *_told(options)]),
        "version": __version__,
        **note,
    }


def _told(options: argparse.Namespace) -> list[str]:
    return [
        *("--steps", str(options.steps), "--repeats", str(options.repeats)),
        *("--clock", options.clock, "--decoders", options.decoders, "--variants", options.variants),
    ]


if __name__ == "__main__":
    main(sys.argv[1:])
