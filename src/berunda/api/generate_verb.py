"""Drawing images of a class from a generative model."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from affine import Affine

from berunda.api.out_folder import check_no_run
from berunda.api.sample_comparison import COMPARISON_NAME, Comparison, distance_lines, distance_warnings
from berunda.assess.generation import INCEPTION, SampleDistances
from berunda.assess.plots import figure_png, new_figure, styled
from berunda.data.order import Randomness
from berunda.errors import ConfigError
from berunda.files import write_atomic
from berunda.geo.grid import Grid, Shape
from berunda.geo.write import create_tiled, finish_tiled
from berunda.mapping.bundle import Bundle, load_bundle
from berunda.mapping.manifest import BandScale
from berunda.methods import describe_method, method_names
from berunda.models.device import resolve_device
from berunda.progress import Progress, Silent

__all__ = ["GenerateOutcome", "drawn_images", "generate", "generative_methods"]

_COLUMNS, _ROWS, _MOST_ROWS = 8, 4, 200
"""Of the picture: images side by side, most rows of a class, and of all classes together (images of more than 65,535
pixels a side cannot be written)."""


@dataclass(frozen=True)
class GenerateOutcome:
    """What was drawn.

    Attributes:
        picture: the first images of each class in a grid, at most four rows of eight.
        chips: a GeoTIFF an image, in the units of the training's images.
        warnings: in plain words.
        distances: from the real images that were asked for; None without.
    """

    picture: Path
    chips: tuple[Path, ...]
    warnings: tuple[str, ...] = ()
    distances: SampleDistances | None = None

    def summary_lines(self) -> list[str]:
        """Return where the images are, and how far from real ones."""
        lines = [f"{len(self.chips)} images: {self.picture}", f"  each as a GeoTIFF in {self.chips[0].parent}"]
        return lines if self.distances is None else [*lines, *distance_lines(self.distances)]


def generate(
    bundle: Path | str,
    out: Path | str,
    *,
    class_name: str | None = None,
    n: int = 16,
    seed: int = 0,
    device: str = "auto",
    compare: Path | str | None = None,
    features: str = INCEPTION,
    progress: Progress | None = None,
) -> GenerateOutcome:
    """Draw images of a class, or of each, from the model of a bundle.

    Args:
        bundle: folder of the model.
        out: folder for `samples.png` and `chips/`; chips that an earlier call left of the same classes go.
        class_name: the class; None for every class.
        n: images of each class, from 1.
        seed: of the draws; the same seed gives the same images on the same machine.
        device: as in `TrainConfig`.
        compare: folder of real images, at any depth; the distances of all that is drawn from all of them go into
            `comparison.json`. Of one class, give the folder of that class.
        features: the encoder whose features distances are of; "inception" gives FID and KID.
        progress: told of every class.

    Raises:
        ConfigError: the model generates nothing (the methods that do are named), or has no such class; `n` is below 1.
        DataError: an image to compare with cannot be read.
        FetchError: the weights of the encoder cannot be fetched; others can be named.
        CheckpointError: the bundle is damaged.
        OutputError: the images cannot be written.
    """
    folder, progress = Path(out), progress or Silent()
    if n < 1:
        raise ConfigError(f"-n {n}: found {n} images of each class, expected 1 or more")
    check_no_run(folder)
    found = load_bundle(bundle)
    names = found.manifest.class_names
    _check(found.manifest.method, str(bundle), class_name, names)
    wanted = names if class_name is None else (class_name,)
    if compare is not None and n * len(wanted) < 2:
        raise ConfigError("--compare: a single image to draw found, expected two or more: give a larger -n")
    comparison = None if compare is None else Comparison.of(found.manifest, compare, features)
    model = found.build(resolve_device(device))
    progress.start("drawing", len(wanted) * n)
    chips: list[Path] = []
    shown, compared = dict[str, np.ndarray](), list[np.ndarray]()
    for name in wanted:
        labels = torch.full((n,), names.index(name))
        images = drawn_images(found, labels, Randomness(seed).at(names.index(name)), model=model)
        chips += _write_chips(folder / "chips", _stems(names)[name], images, found)
        shown[name] = images[: _COLUMNS * _ROWS].copy()
        compared += [] if comparison is None else [images]
        progress.advance(n)
    progress.finish()
    picture = folder / "samples.png"
    write_atomic(picture, [_grid_picture(shown, found.manifest.bands)])
    if comparison is None:
        return GenerateOutcome(picture, tuple(chips))
    apart = comparison.distances(np.concatenate(compared), seed, progress)
    comparison.write(folder / COMPARISON_NAME, apart)
    return GenerateOutcome(picture, tuple(chips), distance_warnings(apart), apart)


def drawn_images(bundle: Bundle, labels: torch.Tensor, rng: Randomness, *, model: object = None) -> np.ndarray:
    """Return images (N, B, side, side) float32 of the classes `labels` (N,), in the units of the training's images.

    Args:
        bundle: of a method that generates.
        labels: numbers of classes, from 0.
        rng: of the draws.
        model: what `bundle.build` returned; None builds it.
    """
    from berunda.mapping.bundle import Model

    built = model if isinstance(model, Model) else bundle.build()
    device = next(built.net.parameters()).device
    scaled = built.method.generate(built.net, built.extra, labels.to(device), rng).cpu().numpy()
    low, high = (np.array([getattr(b, end) for b in bundle.manifest.bands]) for end in ("low", "high"))
    raw = (scaled + 1) / 2 * (high - low)[:, None, None] + low[:, None, None]
    return raw.astype(np.float32)


def generative_methods() -> tuple[str, ...]:
    """Return the names of the methods whose models generate images."""
    return tuple(name for name in method_names() if describe_method(name)["abilities"]["generates"])


def _check(method: str, bundle: str, class_name: str | None, names: Sequence[str]) -> None:
    able = generative_methods()
    if method not in able:
        raise ConfigError(
            f"{bundle}: a model of method {method!r} found, which generates no images; expected one of "
            f"{', '.join(able)}: train with --method {able[0]}, for example"
        )
    if class_name is not None and class_name not in names:
        near = difflib.get_close_matches(class_name, names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"--class {class_name!r}: the model knows {', '.join(names)}{hint}")


def _stems(names: Sequence[str]) -> dict[str, str]:
    """Return how the files of each class begin; names that differ in other signs or in case alone get a number."""
    stems = dict[str, str]()
    for number, name in enumerate(names, start=1):
        stem = "".join(c if c.isalnum() or c in "-_" else "_" for c in name)
        while stem.lower() in {other.lower() for other in stems.values()}:
            stem = f"{stem}-{number}"
        stems[name] = stem
    return stems


def _write_chips(folder: Path, stem: str, images: np.ndarray, bundle: Bundle) -> list[Path]:
    """Write each image as a GeoTIFF without a place on the ground; return the paths.

    Further ones of the same class, of an earlier call that drew more, are removed.
    """
    bands = [band.name for band in bundle.manifest.bands]
    rows, cols = images.shape[2:]
    grid = Grid(Shape(rows, cols), Affine(1, 0, 0, 0, -1, rows), "")
    paths = [folder / f"{stem}_{number:04d}.tif" for number in range(1, len(images) + 1)]
    for path, image in zip(paths, images, strict=True):
        temporary = path.with_name(f".{path.name}.part")
        with create_tiled(temporary, grid, len(bands), "float32", None, bands) as writer:
            writer.write(np.ascontiguousarray(image), grid.full_window)
        finish_tiled(temporary, path)
    own = re.compile(re.escape(stem) + r"_\d{4,}\.tif")
    for stale in {path for path in folder.iterdir() if own.fullmatch(path.name)} - set(paths):
        stale.unlink(missing_ok=True)
    return paths


@styled
def _grid_picture(images: dict[str, np.ndarray], bands: Sequence[BandScale]) -> bytes:
    """Return a PNG of images by class, in colours between the bands' low and high, as one mosaic."""
    per_class = max(1, min(_ROWS, _MOST_ROWS // len(images)))
    n_cols = min(_COLUMNS, max(len(drawn) for drawn in images.values()))
    strips = [_mosaic(drawn[: n_cols * per_class], n_cols, bands) for drawn in images.values()]
    middles = np.cumsum([0, *(len(strip) for strip in strips[:-1])]) + np.array([len(strip) for strip in strips]) / 2
    whole = np.concatenate(strips)
    n_rows = len(whole) / whole.shape[1] * n_cols
    figure, axes = new_figure(n_cols * 0.9 + 2, 0.5 + n_rows * min(0.95, 1.5 * _MOST_ROWS / n_rows))
    axis = axes[0, 0]
    axis.imshow(whole, interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks(middles, list(images), fontsize=7)
    axis.tick_params(length=0)
    for side in axis.spines.values():
        side.set_visible(False)
    return figure_png(figure)


def _mosaic(images: np.ndarray, n_cols: int, bands: Sequence[BandScale]) -> np.ndarray:
    """Return images (N, B, side, side) side by side, (rows, cols, 3) from 0 to 1, a white line after each."""
    shown = [0, 1, 2] if len(bands) >= 3 else [0, 0, 0]
    low = np.array([bands[i].low for i in shown])[:, None, None]
    high = np.array([bands[i].high for i in shown])[:, None, None]
    line = max(1, images.shape[-1] // 20)
    tiles = np.ones((-(-len(images) // n_cols) * n_cols, 3, *(side + line for side in images.shape[2:])))
    tiles[: len(images), :, :-line, :-line] = ((images[:, shown] - low) / (high - low)).clip(0, 1)
    rows, cols = tiles.shape[2:]
    grid = tiles.reshape(-1, n_cols, 3, rows, cols).transpose(0, 3, 1, 4, 2)
    return grid.reshape(-1, n_cols * cols, 3)
