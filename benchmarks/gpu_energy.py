"""EuroSAT on one GPU with nets that say how likely an image is: JEM and its kin beside others, in pieces.

Usage:
  python benchmarks/gpu_energy.py --pack DIR [--outside images_128.zip]    data in parts below 60 MB
  PYTHONPATH=src python benchmarks/gpu_energy.py --parts DIR,... --minutes 9 --before OUT1 --out OUT2

The second line needs torch, timm, numpy, pillow and scipy with what they bring along, and this checkout. What it does,
what it leaves and how it goes on is as in `gpu_eurosat.py`; the rows are in `OUT2/energy_gpu.json`, and a picture of
what each generative run draws beside them. Arms: `supervised`, `fixmatch`; `jem`, the published setting of 20 steps a
chain, `jem++` and `sada`, the fast ones; `joint` and `pipeline`, FixMatch with JEM. With an archive of UC Merced as
--outside, its images, averaged to the side of EuroSAT's, are told from the test images by the energy. The parts hold
the packaged encoder, on whose features the samples' distances to the test images are.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor, nn

from berunda.assess.classify import named_ood, ood_figures
from berunda.assess.generation import described_by, feature_distances
from berunda.bench.experiment import Experiment, Finished
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
from berunda.data.images import TEST, ImageSet, open_images
from berunda.data.resampling import averaged_images
from berunda.files import write_atomic
from berunda.methods.contract import Method, NetSpec
from berunda.models.device import resolve_device
from berunda.models.encoders import DEFAULT_ENCODER, packaged_pyramid, packaged_weights

RECIPE: dict[str, Any] = {"optimizer": "adamw", "learning_rate": 1e-4, "weight_decay": 0.0, "ema_decay": 0.999}
"""How every arm is trained. Source: Grathwohl et al. 2020 (JEM), appendix A, for optimizer and rate."""
ARMS = {
    "supervised": [Arm("supervised")],
    "fixmatch": [Arm("fixmatch")],
    **{name: [Arm("jem", {"variant": name})] for name in ("jem", "jem++", "sada")},
    **{form: [Arm("fixmatch_jem", {"form": form})] for form in ("joint", "pipeline")},
}
OUTSIDE = "outside"
JUDGING_S = 60.0
"""Kept for drawing samples after a training: with 20 steps in training, a chain follows 100 gradients to each."""
_COLUMNS = 8


@dataclass(frozen=True)
class Judge:
    """Figures of a run beside those of a classifier: unlike images told by the energy, and what is drawn.

    Attributes:
        images: the data set.
        outside: images unlike its own, of the same side; None for none.
        weights: of the packaged encoder, on whose features distances rest; None for no distances.
        n_samples: drawn of each class; 0 for none.
        out: where pictures go.
        device: where the encoder is asked.
    """

    images: ImageSet
    outside: ImageSet | None
    weights: Mapping[str, Tensor] | None
    n_samples: int
    out: Path
    device: str

    def __call__(self, finished: Finished) -> dict[str, Any]:
        """Return the figures, and write the picture of the samples."""
        returned = {"returned": len(finished.trained.returned)}
        return returned | self._unlike(finished) | self._samples(finished)

    def _unlike(self, finished: Finished) -> dict[str, Any]:
        """Return how well scores of the logits tell the images outside from the test images."""
        if self.outside is None:
            return {}
        others = finished.asked.classified(self.outside, np.arange(len(self.outside)))
        inside, strange = (replace(found, features=None) for found in (finished.test, others))
        found = {"UC Merced": ood_figures(inside, inside, strange)}
        return {"ood": found} | named_ood(found)

    def _samples(self, finished: Finished) -> dict[str, Any]:
        """Draw images of each class, show some, and return how far all are from the test images."""
        if not self.n_samples or not generates(finished.trained.method):
            return {}
        labels = np.repeat(np.arange(len(self.images.classes)), self.n_samples)
        drawn = finished.asked.generated(labels, finished.job.seed)
        shown = drawn.reshape(len(self.images.classes), self.n_samples, *drawn.shape[1:])
        self.out.mkdir(parents=True, exist_ok=True)
        write_atomic(self.out / f"samples-{finished.name}.png", [grid_png(shown[:, :_COLUMNS])])
        if self._encoder is None:
            return {}
        features = described_by(self._encoder, drawn)
        return feature_distances(features, self._real, DEFAULT_ENCODER, finished.job.seed).as_metrics()

    @cached_property
    def _encoder(self) -> nn.Module | None:
        if self.weights is None:
            return None
        return packaged_pyramid(self.weights, len(self.images.bands)).to(resolve_device(self.device))

    @cached_property
    def _real(self) -> np.ndarray:
        assert self._encoder is not None
        return described_by(self._encoder, self.images.scaled(self.images.of(TEST)))


def generates(method: Method) -> bool:
    """Say whether the method draws images."""
    return type(method).generate is not Method.generate


def grid_png(images: np.ndarray) -> bytes:
    """Return a picture of scaled images (rows, columns, B, side, side), in the colours of the first bands."""
    bands = [0, 1, 2] if images.shape[2] >= 3 else [0, 0, 0]
    shown = ((images[:, :, bands] + 1) * 127.5).clip(0, 255).round().astype(np.uint8)
    rows, cols, _, side, _ = shown.shape
    content = io.BytesIO()
    Image.fromarray(shown.transpose(0, 3, 1, 4, 2).reshape(rows * side, cols * side, 3)).save(content, "PNG")
    return content.getvalue()


def experiment(options: argparse.Namespace) -> Experiment:
    """Return what is compared."""
    arms = chosen_arms(named_arms(options.arms, ARMS), options.option)
    folder = joined_data(options.parts, options.state)
    cache = None if folder is None else options.state / "cache"
    images = open_images("eurosat", folder=folder, cache=cache)
    judge = judge_of(options, images, folder)
    return Experiment(
        suite="energy_gpu",
        images=images,
        labels_unit="per_class",
        arms=arms,
        labels=tuple(options.labels),
        n_seeds=options.seeds,
        net=NetSpec(
            *("scene", len(images.bands), len(images.classes), options.encoder, options.depth),
            pretrained=False,
            crop_px=images.size[0],
        ),
        base=loop_of(options, RECIPE),
        told="split of index.csv",
        more=judge,
        setting={
            "outside": judge.outside.fingerprint[:16] if judge.outside else "",
            "samples": options.samples,
            "distances_on": DEFAULT_ENCODER if judge.weights else "",
        },
        judging_s=JUDGING_S if options.samples else 0.0,
    )


def judge_of(options: argparse.Namespace, images: ImageSet, folder: Path | None) -> Judge:
    """Return what judges the runs, with what the parts hold of it, or `--outside` names."""
    beside = options.outside and (options.outside if options.outside.is_dir() else options.outside.parent)
    place = beside if folder is None else folder / OUTSIDE
    outside = None
    if place is not None and place.is_dir():
        cache = None if folder is None else options.state / "cache"
        outside = averaged_images(open_images("ucmerced", task="scene", folder=place, cache=cache), images.size[0])
    return Judge(images, outside, _stored(folder), options.samples, options.out, options.device)


def _stored(folder: Path | None) -> Mapping[str, Tensor] | None:
    """Return the weights of the packaged encoder, of its package or of the parts, None where they hold none."""
    from safetensors.torch import load_file

    if folder is None:
        return packaged_weights()
    path = folder / "weights" / f"{DEFAULT_ENCODER}.safetensors"
    return load_file(path) if path.is_file() else None


def pack(options: argparse.Namespace) -> None:
    """Write the data set's archive with its split, images outside, and the encoder of the distances, in parts."""
    files = {path.name: path for path in (options.archive, options.archive.parent / "index.csv")}
    if options.outside is not None:
        files[f"{OUTSIDE}/{options.outside.name}"] = options.outside
    data_parts(options.pack, files, encoder=DEFAULT_ENCODER)


def parsed(arguments: list[str]) -> argparse.Namespace:
    """Return the options, lists taken apart."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(
        parser,
        archive=data_file("eurosat_rgb", "EuroSAT_RGB.zip"),
        out=Path(__file__).resolve().parent / "results",
        encoder="wide_resnet28_10_no_norm",
        labels=[10, 100],
        seeds=2,
        steps=1000,
        labelled=32,
    )
    parser.add_argument("--depth", type=int, default=2, help="stages of the net")
    parser.add_argument("--arms", type=several(str), default=list(ARMS))
    parser.add_argument("--outside", type=Path, help="archive of UC Merced, to pack; without parts, to open")
    parser.add_argument("--samples", type=int, default=64, help="images drawn of each class")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Pack, or train what is missing; return the exit code."""
    return run_script(["python", "benchmarks/gpu_energy.py", *arguments], parsed(arguments), pack, experiment)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
