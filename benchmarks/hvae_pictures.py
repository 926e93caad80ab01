"""What an HVAE makes of test images: image, reconstruction from z_0, predicted and true segmentation side by side.

Usage: python benchmarks/hvae_pictures.py BUNDLE DATASET --out pictures.png [--n 4]

The middle crop of each of the first test images, as large as those of the training.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from berunda.assess.pictures import color_classes
from berunda.assess.plots import figure_png, new_figure, styled
from berunda.data.images import TEST
from berunda.data.masks.images import MaskSet, labels_of, open_masks
from berunda.data.scaling import Scaling
from berunda.errors import ConfigError
from berunda.files import write_atomic
from berunda.geo.grid import Window
from berunda.mapping.bundle import Bundle, load_bundle

TITLES = ("image", "reconstruction from z_0", "predicted", "true")


def main(arguments: list[str]) -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("dataset")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--n", type=int, default=4)
    options = parser.parse_args(arguments)
    bundle, masks = load_bundle(options.bundle), open_masks(options.dataset, folder=options.data)
    if bundle.manifest.method != "hvae":
        raise ConfigError(f"{options.bundle}: method {bundle.manifest.method!r} found, expected 'hvae'")
    shown = rows_of(bundle, masks, masks.of(TEST, labelled=True)[: options.n])
    write_atomic(options.out, [picture(shown, [entry.color for entry in bundle.manifest.classes])])
    print(options.out)


def rows_of(bundle: Bundle, masks: MaskSet, index: np.ndarray) -> list[tuple[np.ndarray, ...]]:
    """Return for each image its pixels, their reconstruction, the predicted and the true classes (1..C, 0 for none)."""
    model, bands, side = bundle.build(), bundle.manifest.bands, bundle.manifest.net.crop_px
    scaling = Scaling(np.array([band.low for band in bands]), np.array([band.high for band in bands]))
    method: Any = model.method
    rows = []
    for i in index:
        n_rows, n_cols = (int(n) for n in masks.sizes[i])
        pixels, _, codes = masks.crop(int(i), Window((n_rows - side) // 2, (n_cols - side) // 2, side, side), scaling)
        batch = torch.from_numpy(pixels)[None]
        with torch.no_grad():
            rebuilt = method.rebuilt(model.net, model.extra, batch)[0].numpy()
            found = method.predict(model.net, model.extra, batch)[0].argmax(0).numpy()
        rows.append((pixels, rebuilt, (found + 1).astype(np.uint8), (labels_of(codes) + 1).astype(np.uint8)))
    return rows


@styled
def picture(rows: list[tuple[np.ndarray, ...]], colors: list[str]) -> bytes:
    """Return the PNG."""
    figure, axes = new_figure(8, 2.1 * len(rows), nrows=len(rows), ncols=len(TITLES))
    for row, line in zip(rows, axes, strict=True):
        shown = [_rgb(row[0]), _rgb(row[1]), color_classes(row[2], colors), color_classes(row[3], colors)]
        for axis, image in zip(line, shown, strict=True):
            axis.imshow(image, interpolation="nearest")
            axis.set_axis_off()
    for axis, title in zip(axes[0], TITLES, strict=True):
        axis.set_title(title, fontsize=8)
    return figure_png(figure)


def _rgb(pixels: np.ndarray) -> np.ndarray:
    bands = [0, 1, 2] if len(pixels) >= 3 else [0, 0, 0]
    return ((pixels[bands] + 1) / 2).clip(0, 1).transpose(1, 2, 0)


if __name__ == "__main__":
    main(sys.argv[1:])
