"""How well gaps in the demo scene are filled: an SSL-MAE net against the local mean, on the scene's clear part.

Usage: python benchmarks/inpaint.py [--steps 1500] [--seeds 0,1]

The net learns on windows of the western half of the scene, without a label (w = 0). Discs of random size are then
hidden in the eastern half, clouds are hidden everywhere, and `berunda inpaint` fills both. What counts is the error
at pixels that were hidden and are clear. The local mean of what is known, in a square around each pixel, is given the
side that makes its own error smallest. Rows go to benchmarks/results/inpaint.json.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from torch.nn.functional import avg_pool2d

from berunda._version import __version__
from berunda.api.compare import hardware
from berunda.api.inpaint_verb import inpaint
from berunda.bench.rows import RowFile
from berunda.data.demo_scene import BANDS, demo_scene
from berunda.data.order import Randomness
from berunda.data.scaling import Scaling, measure_scaling, scale_pixels
from berunda.data.source import RawImages
from berunda.geo.raster import Scene, open_scenes
from berunda.geo.write import BLOCK_PX, create_tiled, finish_tiled
from berunda.mapping.bundle import Bundle, current_versions, make_tensors, save_bundle
from berunda.mapping.manifest import BandScale, ClassEntry, Manifest, NetSettings
from berunda.methods import make_method
from berunda.methods.contract import Method, NetSpec
from berunda.progress import Silent
from berunda.train.config import TrainConfig
from berunda.train.loop import train

RESULTS = Path(__file__).resolve().parent / "results" / "inpaint.json"
CLOUD_B02 = 1800.0
"""A pixel above it in the blue band is cloudy, as in the demo."""
N_DISCS, RADII_PX = 150, (4, 20)
MEAN_SIDES_PX = (9, 17, 33, 65, 129)
CLASS = "none"


@dataclass(frozen=True)
class Ground:
    """The scene in memory: pixels (B, H, W) scaled, and which are clear (H, W)."""

    scene: Scene
    scaling: Scaling
    pixels: np.ndarray
    clear: np.ndarray

    @classmethod
    def read(cls) -> Ground:
        """Read the demo scene; it is fetched if it is not here yet."""
        (scene,) = open_scenes(list(demo_scene(Silent()).bands))
        scene = scene.select(BANDS)
        block, scaling = scene.read(scene.grid.full_window), measure_scaling(scene)
        clear = block.valid & (block.values[BANDS.index("B02")] <= CLOUD_B02)
        return cls(scene, scaling, scale_pixels(block.values, block.valid, *scaling), clear)

    @property
    def middle(self) -> int:
        """The column at which the eastern half begins."""
        return self.clear.shape[1] // 2


@dataclass(frozen=True)
class Windows:
    """Windows of the western half at random places; clouds in them are no data, and no class is known."""

    ground: Ground
    side_px: int
    has_unlabelled: bool = False

    def labelled(self, rng: Randomness, n: int) -> RawImages:
        """Return `n` windows."""
        draw, side = rng.numpy("windows"), self.side_px
        rows = draw.integers(self.ground.clear.shape[0] - side, size=n)
        cols = draw.integers(self.ground.middle - side, size=n)
        cut = [(slice(r, r + side), slice(c, c + side)) for r, c in zip(rows, cols, strict=True)]
        valid = torch.from_numpy(np.stack([self.ground.clear[place] for place in cut]))
        pixels = torch.from_numpy(np.stack([self.ground.pixels[:, *place] for place in cut]))
        labels = torch.full((n, 1), torch.nan)
        return RawImages(pixels * valid[:, None], valid, labels, torch.arange(n))

    def unlabelled(self, rng: Randomness, n: int) -> RawImages:
        """Return the same; never asked for."""
        return self.labelled(rng, n)


def main(arguments: list[str]) -> None:
    """Train, fill and compare for every seed; write the rows and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default="vit_mini_patch8")
    parser.add_argument("--px", type=int, default=64, help="side of the windows")
    parser.add_argument("--ratio", type=float, default=0.6, help="share of the patches hidden in training")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--images", type=int, default=32, help="windows a step")
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    ground = Ground.read()
    for seed in map(int, options.seeds.split(",")):
        rows = measure(ground, seed, options)
        RowFile(options.results).add(rows)
        for row in rows:
            print(f"seed {seed}  {row['method']:<11} {row['variant']:<28} error {row['metrics']['hidden_mae']:.4f}")


def measure(ground: Ground, seed: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the rows of the net and of the local mean."""
    method = make_method("ssl_mae", {"w": 0.0, "mu": 0.0, "mask_ratio": options.ratio})
    start = time.perf_counter()
    bundle = trained_bundle(ground, method, seed, options)
    trained_s = time.perf_counter() - start
    holes = draw_discs(ground, seed)
    hidden, asked = holes | ~ground.clear, holes & ground.clear
    with tempfile.TemporaryDirectory() as folder:
        filled = fill(Path(folder), ground, bundle, hidden, options.device)
    start = time.perf_counter()
    sides = {side: error_of(local_mean(ground, ~hidden, side), ground, asked) for side in MEAN_SIDES_PX}
    best = min(sides, key=lambda side: sides[side])
    net = error_of(filled, ground, asked)
    of_mean = _row("local_mean", f"square of {best} px, the best", seed, options)
    of_mean |= {"wall_s": time.perf_counter() - start, "images_per_s": None}
    of_net = _row(method.name, f"{options.px} px, {options.steps} steps", seed, options)
    of_mean["metrics"] = {"hidden_mae": sides[best], "times_local_mean": 1.0}
    of_net["metrics"] = {"hidden_mae": net, "times_local_mean": net / sides[best]}
    of_net |= {"encoder": options.encoder, "wall_s": trained_s, "n_hidden_px": int(asked.sum())}
    of_net["images_per_s"] = options.steps * options.images / trained_s
    return [of_mean, of_net]


def trained_bundle(ground: Ground, method: Method, seed: int, options: argparse.Namespace) -> Bundle:
    """Return a model of windows of the western half."""
    spec = NetSpec("multilabel", len(BANDS), 1, options.encoder, pretrained=False, crop_px=options.px)
    config = TrainConfig(
        steps=options.steps,
        n_labelled=options.images,
        learning_rate=options.rate,
        weight_decay=0.05,
        warmup_steps=100,
        seed=seed,
        device=options.device,
    )
    trained = train(method, spec, Windows(ground, options.px), config)
    scales = zip(BANDS, *ground.scaling, strict=True)
    manifest = Manifest(
        task="multilabel",
        method=method.name,
        method_options={"w": 0.0, "mu": 0.0, "mask_ratio": options.ratio},
        encoder=options.encoder,
        net=NetSettings(encoder_depth=1, crop_px=options.px),
        bands=tuple(BandScale(name=name, low=float(low), high=float(high)) for name, low, high in scales),
        classes=(ClassEntry(id=1, name=CLASS, color="#808080"),),
        window_px=options.px,
        margin_px=0,
        versions=current_versions(),
    )
    return Bundle(manifest, make_tensors(method, trained.model.net, trained.model.extra))


def draw_discs(ground: Ground, seed: int) -> np.ndarray:
    """Return (H, W) bool: discs in the eastern half."""
    draw, (rows, cols) = Randomness(seed).numpy("discs"), ground.clear.shape
    row, col = np.ogrid[:rows, :cols]
    discs = np.zeros((rows, cols), bool)
    for _ in range(N_DISCS):
        radius = draw.integers(RADII_PX[0], RADII_PX[1] + 1)
        at = draw.integers(rows), draw.integers(ground.middle, cols)
        discs |= (row - at[0]) ** 2 + (col - at[1]) ** 2 <= radius**2
    discs[:, : ground.middle] = False
    return discs


def fill(folder: Path, ground: Ground, bundle: Bundle, hidden: np.ndarray, device: str) -> np.ndarray:
    """Return scaled pixels (B, H, W) as `berunda inpaint` fills what is `hidden`."""
    mask, grid = folder / "mask.tif", ground.scene.grid
    with create_tiled(folder / "mask.tmp", grid, 1, "uint8", None) as writer:
        for tile in grid.tiles(BLOCK_PX):
            writer.write(hidden[None, *tile.slices].astype(np.uint8), tile)
    finish_tiled(folder / "mask.tmp", mask)
    save_bundle(folder / "model", bundle)
    out = inpaint(folder / "model", list(ground.scene.paths), mask=mask, out=folder / "filled.tif", device=device).path
    with rasterio.open(out) as dataset:
        values = dataset.read()
    return scale_pixels(values, np.isfinite(values).all(0), *ground.scaling)


def local_mean(ground: Ground, known: np.ndarray, side: int) -> np.ndarray:
    """Return (B, H, W): the mean of the known pixels in a square around each; of all where there is none."""
    weight = torch.from_numpy(known.astype(np.float64))[None]
    pixels = torch.from_numpy(ground.pixels.astype(np.float64)) * weight
    sums, share = (_pooled(x[:, None], side)[:, 0] for x in (pixels, weight))
    overall = pixels.sum((1, 2)) / weight.sum()
    mean: np.ndarray = torch.where(share > 0, sums / share.clamp(min=1e-9), overall[:, None, None]).numpy()
    return mean


def _pooled(x: torch.Tensor, side: int) -> torch.Tensor:
    """Return the means over squares, first along columns and then along rows; what lies outside counts as 0."""
    return avg_pool2d(avg_pool2d(x, (side, 1), 1, (side // 2, 0)), (1, side), 1, (0, side // 2))


def error_of(filled: np.ndarray, ground: Ground, asked: np.ndarray) -> float:
    """Return the mean absolute error over the pixels asked for and all bands, in scaled units (about -1 to 1)."""
    return float(np.abs(filled - ground.pixels)[:, asked].mean())


def _row(method: str, variant: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    names = ("encoder", "px", "ratio", "steps", "images", "rate", "seeds", "device")
    told = [word for name in names for word in (f"--{name}", str(getattr(options, name)))]
    return {
        "suite": "inpaint",
        "dataset": "demo scene, clear part of the eastern half",
        "task": "inpainting",
        "method": method,
        "variant": variant,
        "encoder": "",
        "labels": "none",
        "labels_unit": "share",
        "seed": seed,
        "unit": "mean absolute error at hidden pixels, bands scaled to about -1..1",
        "hardware": f"{hardware()}, {torch.get_num_threads()} threads",
        "command": shlex.join(["python", "benchmarks/inpaint.py", *told]),
        "version": __version__,
    }


if __name__ == "__main__":
    main(sys.argv[1:])
