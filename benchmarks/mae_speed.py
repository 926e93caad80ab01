"""What hiding patches saves: a training step of SSL-MAE against the same step with all tokens in the encoder.

Usage: python benchmarks/mae_speed.py [--encoders vit_mini_patch16,vit_small_patch16] [--px 128] [--repeats 5]

Each step is that of the loop (views, forward, backward, clipping, update) on made-up images with several labels, as
many labelled as unlabelled: with the visible patches in the encoder, with all tokens in it (mask tokens for the
hidden ones), and the supervised step on as many images. They take turns, repeat after repeat, so that what else the
machine does falls on all of them; a repeat gives each step as a share of the one with all tokens, and the medians
over the repeats count, after one that warms up. A step is timed by the difference of a long and a short training, so
that the set-up of both falls out but for its jitter, which many steps make small. `--clock cpu` counts the seconds
that the process computes instead of those on the wall. Rows go to benchmarks/results/mae_speed.json.
"""

from __future__ import annotations

import argparse
import gc
import shlex
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from berunda._version import __version__
from berunda.api.compare import hardware
from berunda.bench.rows import RowFile
from berunda.data.order import Randomness
from berunda.data.source import RawImages
from berunda.methods import make_method
from berunda.methods.contract import Method, NetSpec
from berunda.train.config import TrainConfig
from berunda.train.loop import train

RESULTS = Path(__file__).resolve().parent / "results" / "mae_speed.json"
N_CLASSES, SET_UP_STEPS = 17, 2
TARGET = 0.45
"""At most this share of the step with all tokens at a mask ratio of .75."""


@dataclass(frozen=True)
class MadeUp:
    """Images of noise that cost what real images cost."""

    px: int
    has_unlabelled: bool = True

    def labelled(self, rng: Randomness, n: int) -> RawImages:
        """Return images with labels."""
        images = self.unlabelled(rng, n)
        labels = (torch.rand(n, N_CLASSES, generator=rng.torch("labels")) > 0.5).float()
        return RawImages(images.pixels, images.valid, labels, images.index)

    def unlabelled(self, rng: Randomness, n: int) -> RawImages:
        """Return images without."""
        pixels = torch.randn(n, 3, self.px, self.px, generator=rng.torch("pixels"))
        return RawImages(pixels, torch.ones(n, self.px, self.px, dtype=torch.bool), None, torch.arange(n))


def main(arguments: list[str]) -> None:
    """Measure every encoder, write the rows and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoders", default="vit_mini_patch16,vit_tiny_patch16,vit_small_patch16")
    parser.add_argument("--ratio", type=float, default=0.75, help="share of the patches that is hidden")
    parser.add_argument("--px", type=int, default=128)
    parser.add_argument("--images", type=int, default=32, help="images a step, half of them labelled")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    for encoder in options.encoders.split(","):
        rows = measure(encoder, options)
        RowFile(options.results).add(rows)
        for row in rows:
            step, share = (row["metrics"][name] for name in ("step", "share_of_all_tokens"))
            print(f"{encoder:<20} {row['variant']:<32} {1e3 * step:7.1f} ms  {share:.1%}")
        share = rows[1]["metrics"]["share_of_all_tokens"]
        print(f"{encoder}: {'reaches' if share <= TARGET else 'misses'} the target of {TARGET:.0%}")


def variants(options: argparse.Namespace) -> dict[str, Method]:
    """Return what is measured; all others are compared with the first."""
    masked = {"mask_ratio": options.ratio}
    return {
        "all tokens": make_method("ssl_mae", masked | {"encoder_sees": "all"}),
        f"visible tokens, ratio {options.ratio:g}": make_method("ssl_mae", masked),
        "supervised, all tokens": make_method("supervised"),
    }


def measure(encoder: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row for each variant."""
    methods = variants(options)
    turns = [
        {name: step_s(method, encoder, options) for name, method in methods.items()} for _ in range(options.repeats + 1)
    ][1:]
    return [_row(name, methods[name], encoder, turns, options) for name in methods]


def step_s(method: Method, encoder: str, options: argparse.Namespace) -> float:
    """Return the seconds of a step: those of a long training less those of a short one."""
    short, long = (_seconds(method, encoder, options, n) for n in (SET_UP_STEPS, SET_UP_STEPS + options.steps))
    return (long - short) / options.steps


def _seconds(method: Method, encoder: str, options: argparse.Namespace, steps: int) -> float:
    n_labelled = round(options.images / (1 + method.needs().unlabelled_ratio))
    spec = NetSpec("multilabel", 3, N_CLASSES, encoder, pretrained=False, crop_px=options.px)
    config = TrainConfig(steps=steps, n_labelled=n_labelled, learning_rate=1e-3, device=options.device)
    gc.collect()
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    start = clock()
    train(method, spec, MadeUp(options.px), config)
    return clock() - start


def _row(
    name: str, method: Method, encoder: str, turns: list[dict[str, float]], options: argparse.Namespace
) -> dict[str, Any]:
    shares = sorted(turn[name] / turn["all tokens"] for turn in turns)
    step = statistics.median(turn[name] for turn in turns)
    return {
        "suite": "mae_speed",
        "dataset": f"made-up images, 3 bands, {options.px} px",
        "task": "multilabel",
        "method": method.name,
        "variant": name,
        "encoder": encoder,
        "labels": "all",
        "labels_unit": "share",
        "seed": 0,
        "metrics": {
            "step": step,
            "share_of_all_tokens": statistics.median(shares),
            "share_of_all_tokens_lowest": shares[0],
            "share_of_all_tokens_highest": shares[-1],
        },
        "unit": f"seconds of {options.clock} clock a step (medians); shares are of the step with all tokens",
        "n_steps": options.steps,
        "repeats": len(turns),
        "images_a_step": options.images,
        "wall_s": step * options.steps,
        "images_per_s": options.images / step,
        "hardware": f"{hardware()}, {torch.get_num_threads()} threads",
        "command": shlex.join(["python", "benchmarks/mae_speed.py", *_told(options)]),
        "version": __version__,
    }


def _told(options: argparse.Namespace) -> list[str]:
    names = ("encoders", "ratio", "px", "images", "steps", "repeats", "clock", "device")
    return [word for name in names for word in (f"--{name}", str(getattr(options, name)))]


if __name__ == "__main__":
    main(sys.argv[1:])
