"""UC Merced with 17 labels an image on one GPU: a vision transformer at 224 px, from 1 to 25% of the labels, in pieces.

Usage:
  python benchmarks/gpu_ssl_mae.py --pack DIR [--archive UCMerced_LandUse.zip]    data in parts below 60 MB
  PYTHONPATH=src python benchmarks/gpu_ssl_mae.py --parts DIR,... --minutes 9 --before OUT1 --out OUT2

The archive is the one published or `images_128.zip`, its table of labels beside it. The second line needs torch, timm,
numpy, pillow and scipy with what they bring along, and this checkout. What it does, what it leaves and how it goes on
is as in `gpu_eurosat.py`; the rows are in `OUT2/ssl_mae_gpu.json`. Arms: `supervised`; `fixed`, SSL-MAE at each weight
of --w, among which "validation" in the rows chooses; `learned`, with a learned weight, also `normalised` and
`uncertainty`; `labelled_only`, both losses on the labelled images alone; `fixmatch` for several labels. The bare step
is forward and backward of the net on as many images, of SSL-MAE on their visible patches, the decoder included.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from berunda.bench.bound import BareLoss, Bound, measure_bound
from berunda.bench.experiment import Experiment
from berunda.bench.piece_options import (
    add_options,
    chosen_arms,
    data_file,
    data_parts,
    loop_of,
    named_arms,
    run_script,
    several,
)
from berunda.bench.pieces import joined_data
from berunda.bench.suite import Arm
from berunda.data.catalog.ucmerced import TABLES
from berunda.data.images import open_images
from berunda.methods.contract import Method, NetSpec
from berunda.methods.ssl_mae import SslMae
from berunda.train.config import TrainConfig

RECIPE: dict[str, Any] = {"optimizer": "adamw", "learning_rate": 1e-3, "weight_decay": 0.05, "ema_decay": 0.995}
"""How the transformer is trained. Source: He et al. 2022 (masked autoencoders), table 8, for rate and decay."""
ARMS = ("supervised", "fixed", "learned", "labelled_only", "fixmatch")
"""What is compared unless told otherwise."""
LEARNED = {"learned": "raw", "normalised": "normalised", "uncertainty": "uncertainty"}


def arms_of(weights: list[float]) -> dict[str, list[Arm]]:
    """Return what can be compared, by name; SSL-MAE with fixed weights at each of `weights`."""
    return {
        "supervised": [Arm("supervised")],
        "fixed": [Arm("ssl_mae", {"weighting": "fixed", "w": w}) for w in weights],
        **{name: [Arm("ssl_mae", {"weighting": form})] for name, form in LEARNED.items()},
        "labelled_only": [Arm("ssl_mae", {"mu": 0.0, "weighting": "fixed"})],
        "fixmatch": [Arm("fixmatch")],
    }


def experiment(options: argparse.Namespace) -> Experiment:
    """Return what is compared."""
    arms = chosen_arms(named_arms(options.arms, arms_of(options.w)), options.option)
    folder = joined_data(options.parts, options.state)
    cache = None if folder is None else options.state / "cache"
    images = open_images("ucmerced", task="multilabel", folder=folder, cache=cache)
    net = NetSpec(
        *("multilabel", len(images.bands), len(images.classes), options.encoder, 1),
        pretrained=False,
        crop_px=options.image_px,
    )
    return Experiment(
        suite="ssl_mae_gpu",
        images=images,
        labels_unit="fraction",
        arms=arms,
        labels=tuple(options.labels),
        n_seeds=options.seeds,
        net=net,
        base=loop_of(options, RECIPE),
        told=f"images of {images.size[0]} px, 70/10/20 stratified",
        bound=bare_bound,
    )


def bare_bound(method: Method, spec: NetSpec, config: TrainConfig, repeats: int = 4) -> Bound:
    """Return the bare cost of a step; SSL-MAE puts the visible patches alone through its encoder."""
    bare_loss = visible_loss(method, config.n_labelled) if isinstance(method, SslMae) else None
    return measure_bound(method, spec, config, repeats=repeats, bare_loss=bare_loss)


def visible_loss(method: SslMae, n_labelled: int) -> BareLoss:
    """Return what classifies the first `n_labelled` images from visible patches and guesses the hidden ones of all."""

    def loss(net: nn.Module, extra: nn.Module, pixels: Tensor) -> Tensor:
        parts, encoder = cast(Any, net), cast(Any, net).encoder
        rows, cols = encoder.grid_of(*pixels.shape[2:])
        n_hidden = min(max(1, round(method.mask_ratio * rows * cols)), rows * cols - 1)
        order = torch.rand(len(pixels), rows * cols, device=pixels.device).argsort(1)
        tokens, guess = cast(Any, extra).decoder(encoder, pixels, order[:, n_hidden:], order[:, :n_hidden])
        logits = parts.classify(tokens[:n_labelled].mean(1))
        total: Tensor = logits.float().square().mean() + guess.float().abs().mean()
        return total

    return loss


def pack(options: argparse.Namespace) -> None:
    """Write the data set's archive with its table of labels in parts."""
    beside = [options.archive.parent / name for name in TABLES]
    table = next((path for path in beside if path.is_file()), beside[0])
    data_parts(options.pack, {path.name: path for path in (options.archive, table)})


def parsed(arguments: list[str]) -> argparse.Namespace:
    """Return the options, lists taken apart."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(
        parser,
        archive=data_file("ucmerced_multilabel_128", "images_128.zip"),
        out=Path(__file__).resolve().parent / "results",
        encoder="vit_small_patch16",
        labels=[0.05, 0.1, 0.01, 0.25],
        seeds=2,
        steps=1000,
        labelled=16,
    )
    parser.add_argument("--image-px", type=int, default=224)
    parser.add_argument("--arms", type=several(str), default=list(ARMS), metavar="ARM,...")
    parser.add_argument("--w", type=several(float), default=[0.5], help="weights of the supervised loss for `fixed`")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Pack, or train what is missing; return the exit code."""
    return run_script(["python", "benchmarks/gpu_ssl_mae.py", *arguments], parsed(arguments), pack, experiment)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
