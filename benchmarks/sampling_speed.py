"""What a step of JEM costs by variant, and the chains' share of it, against the published setting on the same net.

Usage: python benchmarks/sampling_speed.py [--encoder wide_resnet10_1_no_norm] [--device cpu]

Made-up pixels in memory; a step is the loop's own, gradients and update included. The chains alone are timed on the
same net and batch. The first step of each warms up; medians of at least ten count. Shares of the published setting are
of processor time on a CPU, so that what others do there does not count; images a second are those of the wall clock.
Rows go to benchmarks/results/sampling_speed.json.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from berunda._version import __version__
from berunda.api.compare import hardware
from berunda.bench.rows import RowFile
from berunda.data.order import Randomness
from berunda.methods import make_method
from berunda.methods._energy import VARIANTS, energies_of
from berunda.methods.contract import NetSpec, Step
from berunda.train.config import TrainConfig
from berunda.train.loop import train
from step_throughput import N_CLASSES, made_up

RESULTS = Path(__file__).resolve().parent / "results" / "sampling_speed.json"
PUBLISHED = "jem"
PARTS = ("chains", "step")


def main(arguments: list[str]) -> None:
    """Measure every variant and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default="wide_resnet10_1_no_norm")
    parser.add_argument("--depth", type=int, default=2, help="stages of the encoder in use")
    parser.add_argument("--labelled", type=int, default=32)
    parser.add_argument("--px", type=int, default=32)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    command = shlex.join(["python", "benchmarks/sampling_speed.py", *arguments])
    rows = with_shares([measure(variant, options) | {"command": command} for variant in VARIANTS])
    RowFile(options.results).add(rows)
    print(table(rows))


def measure(variant: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the row of one variant."""
    method = make_method("jem", {"variant": variant, "replay": 1000})
    spec = NetSpec(*("scene", 3, N_CLASSES, options.encoder, options.depth), pretrained=False, crop_px=options.px)
    config = TrainConfig(n_labelled=options.labelled, learning_rate=1e-4, device=options.device)
    times: list[float] = []
    clock: list[float] = []

    class Ticks:
        """Notes when steps end."""

        def advance(self, n: int = 1, **figures: float) -> None:
            del n, figures
            times.append(_now(options.device))
            clock.append(time.perf_counter())

        def start(self, name: str, total: int) -> None:
            del name, total

        def note(self, text: str) -> None:
            del text

        def finish(self) -> None:
            pass

    settings = TrainConfig(**{**vars(config), "steps": options.steps + 1, "check_every": 1})
    trained = train(method, spec, made_up(options.px), settings, progress=Ticks())
    steps, walls = ([after - before for before, after in pairwise(at[1:])] for at in (times, clock))
    n_unlabelled = round(options.labelled * method.needs().unlabelled_ratio)  # what the likelihood is of
    n_images = options.labelled + n_unlabelled
    step, chains = statistics.median(steps), statistics.median(_chains(method, trained, n_unlabelled, options))
    return {
        "suite": "sampling_speed",
        "dataset": f"made-up images, 3 bands, {options.px} px",
        "task": "scene",
        "method": "jem",
        "variant": variant,
        "encoder": options.encoder,
        "labels": "all",
        "labels_unit": "per_class",
        "seed": config.seed,
        "metrics": {
            "step_s": step,
            "chains_s": chains,
            "gradients": VARIANTS[variant].n_steps,
            "images_per_s": n_images / statistics.median(walls),
        },
        "unit": "seconds (medians; on a CPU of processor time)",
        "n_images": n_images,
        "n_steps": options.steps,
        "wall_s": trained.seconds,
        "images_per_s": n_images / statistics.median(walls),
        "hardware": f"{hardware()}, {torch.get_num_threads()} threads",
        "version": __version__,
    }


def _chains(method: Any, trained: Any, n_images: int, options: argparse.Namespace) -> list[float]:
    """Return the seconds that the chains of a step take, again and again."""
    device = next(trained.net.parameters()).device
    valid = torch.ones(n_images, options.px, options.px, dtype=torch.bool, device=device)
    pixels = torch.zeros(n_images, 3, options.px, options.px, device=device)
    energies, seconds = energies_of(method, (trained.net, trained.extra)), []
    for turn in range(options.steps + 1):
        begin = _now(options.device)
        method.chains.draw(energies, trained.extra, (pixels, valid), Step(turn, 10), Randomness(turn))
        seconds.append(_now(options.device) - begin)
    return seconds[1:]


def _now(device: str) -> float:
    """Return seconds, on a CPU those of this process: what others do on the machine does not count."""
    if not device.startswith("cuda"):
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def with_shares(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows with what chains and step cost of those of the published setting."""
    base = next(row["metrics"] for row in rows if row["variant"] == PUBLISHED)
    shares = [{f"{part}_share": row["metrics"][f"{part}_s"] / base[f"{part}_s"] for part in PARTS} for row in rows]
    return [{**row, "metrics": {**row["metrics"], **own}} for row, own in zip(rows, shares, strict=True)]


def table(rows: list[dict[str, Any]]) -> str:
    """Return the table, with shares of the published setting, as Markdown."""
    lines = [
        "| variant | gradients a step | chains, ms | of the published | whole step, ms | of the published | images/s |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        m = row["metrics"]
        lines.append(
            f"| {row['variant']} | {m['gradients']} | {1e3 * m['chains_s']:.0f} | {m['chains_share']:.0%} "
            f"| {1e3 * m['step_s']:.0f} | {m['step_share']:.0%} | {m['images_per_s']:.1f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
