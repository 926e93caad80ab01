"""What models make of log p(x): its histogram over several sets of images, and whether few labels change it.

Usage: python benchmarks/densities.py all=DIR few=DIR [--dataset eurosat --outside ucmerced,FOLDER --n 2000]

Each bundle has a name and is of a method with log p(x) (jem, fixmatch_jem). Sets are the training and the test images
of the data set, and all images of the others, at most N of each, drawn by seed 0 and brought to the side that the
model is shown, without mirrored views. Of each model: KL divergence of the histogram of each set to that of the
training images (64 bins over the joint range of both, 1e-6 added to each share). Of each model but the first, how it
agrees with the first: rank correlation over the same images, and the divergence of its histogram to the first's,
where both know log p(x) up to a constant, which the median of the training images takes. Rows go to
benchmarks/results/densities.json, the picture beside it.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from berunda._version import __version__
from berunda.api.compare import hardware
from berunda.assess.generation import density_agreement, density_histograms, histogram_divergence
from berunda.assess.plots import ACCENT, INK, SECOND, figure_png, new_figure, styled
from berunda.bench.rows import RowFile
from berunda.data.images import TEST, TRAIN, UNLABELLED, ImageSet, open_images
from berunda.data.order import Randomness
from berunda.errors import BerundaError, ConfigError
from berunda.files import write_atomic
from berunda.mapping.bundle import Bundle, load_bundle
from berunda.mapping.patches import ScenePredictor
from berunda.methods import describe_method, make_method, method_names

RESULTS = Path(__file__).resolve().parent / "results" / "densities.json"
SUITE, TRAINING = "densities", "training"
COLORS = (INK, ACCENT, SECOND, "#7a5195", "#b8a12f", "#5f8fc0")
CHUNK = 512

Sets = dict[str, tuple[ImageSet, np.ndarray]]
"""By name: images, and which of them."""


def main(arguments: list[str]) -> int:
    """Measure, write rows and picture; return the exit code."""
    options = _parsed(arguments)
    try:
        bundles = {name: opened(folder) for name, folder in (_named(text) for text in options.bundles)}
        sets = sets_of(options)
        start = time.perf_counter()
        found = {name: densities(bundle, sets, options.device) for name, bundle in bundles.items()}
        seconds = time.perf_counter() - start
        command = shlex.join(["python", "benchmarks/densities.py", *arguments])
        told = {"command": command, "dataset": options.dataset, "n_most": options.n, "wall_s": round(seconds, 2)}
        RowFile(options.results).add(rows_of(bundles, found, told))
        write_atomic(options.results.with_suffix(".png"), [picture(found)])
    except BerundaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for name, by_set in found.items():
        print(f"{name}: KL to the training images " + ", ".join(f"{k} {v:.3g}" for k, v in divergences(by_set).items()))
    return 0


def opened(folder: Path) -> Bundle:
    """Return a bundle whose logits tell log p(x) of whole images.

    Raises:
        ConfigError: its logits tell no such thing.
    """
    bundle, able = load_bundle(folder), [m for m in method_names() if describe_method(m)["abilities"]["density"]]
    manifest = bundle.manifest
    if manifest.task == "segmentation" or not make_method(manifest.method, manifest.method_options).has_density():
        raise ConfigError(
            f"{folder}: a bundle of {manifest.method!r} for {manifest.task!r} found, expected one for whole images "
            f"of a method with log p(x): {', '.join(able)}"
        )
    return bundle


def sets_of(options: argparse.Namespace) -> Sets:
    """Return the sets of images by name."""
    own = open_images(options.dataset, folder=options.data)
    sets = {
        TRAINING: (own, _some(np.flatnonzero((own.parts == TRAIN) | (own.parts == UNLABELLED)), options.n)),
        "test": (own, _some(np.flatnonzero(own.parts == TEST), options.n)),
    }
    for name in filter(None, options.outside.split(",")):
        other = open_images(name, task="scene", folder=options.merced if name == "ucmerced" else None)
        sets[other.name] = (other, _some(np.arange(len(other)), options.n))
    return sets


def densities(bundle: Bundle, sets: Sets, device: str) -> dict[str, np.ndarray]:
    """Return log p(x), up to a constant, of each set of images."""
    predictor = ScenePredictor(bundle, device, n_symmetries=1)

    def of(images: ImageSet, index: np.ndarray) -> np.ndarray:
        parts = [index[start : start + CHUNK] for start in range(0, len(index), CHUNK)]
        scaled = (images.scaled(part, predictor.scaling) for part in parts)
        return np.concatenate([-predictor.predict(pixels).energy for pixels in scaled])

    return {name: of(images, index) for name, (images, index) in sets.items()}


def divergences(found: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return the divergence of each set from the training images."""
    return {name: histogram_divergence(x, found[TRAINING]) for name, x in found.items() if name != TRAINING}


def rows_of(
    bundles: Mapping[str, Bundle], found: Mapping[str, dict[str, np.ndarray]], told: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return a row of each model."""
    first = next(iter(found))
    return [_row(k, bundles[k], own, None if k == first else found[first], told) for k, own in found.items()]


def _row(
    name: str,
    bundle: Bundle,
    own: dict[str, np.ndarray],
    other: dict[str, np.ndarray] | None,
    told: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the row of a model, of which `own` are the densities and `other` those of the first, if it is another."""
    manifest, n = bundle.manifest, sum(map(len, own.values()))
    metrics: dict[str, Any] = {f"kl_{_key(k)}": v for k, v in divergences(own).items()}
    if other is not None:
        metrics |= {f"rank_agreement_{_key(k)}": density_agreement(own[k], other[k]) for k in own}
        metrics |= {f"kl_to_first_{_key(k)}": histogram_divergence(centred(own)[k], centred(other)[k]) for k in own}
    metrics |= {f"n_{_key(k)}": len(v) for k, v in own.items()}
    return {
        **told,
        "suite": SUITE,
        "task": "log p(x)",
        "method": manifest.method,
        "variant": name,
        "encoder": manifest.encoder,
        "labels": manifest.training.labels[0].name if manifest.training.labels else "unknown",
        "labels_unit": "images",
        "seed": manifest.training.seed or 0,
        "metrics": metrics,
        "unit": "nats; 64 bins over the joint range, 1e-6 added to each share",
        "bundle": bundle.fingerprint[:16],
        "images_per_s": round(n / max(told["wall_s"], 1e-9), 1),
        "hardware": hardware(),
        "version": __version__,
    }


def centred(found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the densities less the median of the training images: log p(x) is known up to a constant only."""
    middle = np.median(found[TRAINING])
    return {name: values - middle for name, values in found.items()}


@styled
def picture(found: Mapping[str, Mapping[str, np.ndarray]]) -> bytes:
    """Return a PNG: a panel for each model, in it the histogram of each set, on one axis for all."""
    figure, axes = new_figure(5.2, 0.6 + 1.7 * len(found), nrows=len(found), sharex=True)
    for axis, (name, own) in zip(axes[:, 0], found.items(), strict=True):
        edges, shares = density_histograms(centred(own))
        told = divergences(own)
        for color, (label, share) in zip(COLORS * len(shares), shares.items(), strict=False):
            said = label if label == TRAINING else f"{label}, KL {told[label]:.2g}"
            is_filled = label == TRAINING
            axis.stairs(share, edges, color=color, label=said, fill=is_filled, alpha=0.35 if is_filled else 1)
        axis.set_title(name, fontsize=8)
        axis.set_ylabel("share")
        axis.legend(fontsize=7)
    axes[-1, 0].set_xlabel("log p(x), less the median of the training images")
    return figure_png(figure)


def _key(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name.lower())


def _some(index: np.ndarray, n: int) -> np.ndarray:
    return np.sort(Randomness(0).numpy("densities").permutation(index)[:n])


def _named(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not equals or not name:
        raise ConfigError(f"bundle {text!r}: expected NAME=DIR, such as all=trained/model")
    return name, Path(folder)


def _parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", nargs="+", metavar="NAME=DIR")
    parser.add_argument("--dataset", default="eurosat")
    parser.add_argument("--data", type=Path, help="folder of the data set")
    parser.add_argument("--outside", default="ucmerced", help="further data sets, or folders of images")
    parser.add_argument("--merced", type=Path, help="folder of UC Merced")
    parser.add_argument("--n", type=int, default=2000, help="images of each set, at most")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
