"""Drawing images of a class from a generative model."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from affine import Affine

from berunda.api.out_folder import check_no_run
from berunda.assess.plots import figure_png, new_figure, styled
from berunda.data.order import Randomness
from berunda.errors import ConfigError
from berunda.files import write_atomic
from berunda.geo.grid import Grid, Shape
from berunda.geo.write import create_tiled, finish_tiled
from berunda.mapping.bundle import Bundle, load_bundle
from berunda.mapping.manifest import BandScale
from berunda.methods import load_method, method_names
from berunda.methods.contract import Method
from berunda.models.device import resolve_device
from berunda.progress import Progress, Silent

__all__ = ["GenerateOutcome", "drawn_images", "generate", "generative_methods"]

_COLUMNS = 8


@dataclass(frozen=True)
class GenerateOutcome:
    """What was drawn.

    Attributes:
        picture: all images in a grid, a class in rows of its own.
        chips: a GeoTIFF an image, in the units of the training's images.
        warnings: none so far.
    """

    picture: Path
    chips: tuple[Path, ...]
    warnings: tuple[str, ...] = ()

    def summary_lines(self) -> list[str]:
        """Return where the images are."""
        return [f"{len(self.chips)} images: {self.picture}", f"  each as a GeoTIFF in {self.chips[0].parent}"]


def generate(
    bundle: Path | str,
    out: Path | str,
    *,
    class_name: str | None = None,
    n: int = 16,
    seed: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
) -> GenerateOutcome:
    """Draw images of a class, or of each, from the model of a bundle.

    Args:
        bundle: folder of the model.
        out: folder for `samples.png` and `chips/`.
        class_name: the class; None for every class.
        n: images of each class, from 1.
        seed: of the draws; the same seed gives the same images on the same machine.
        device: as in `TrainConfig`.
        progress: told of every class.

    Raises:
        ConfigError: the model generates nothing (the methods that do are named), or has no such class.
        CheckpointError: the bundle is damaged.
        OutputError: the images cannot be written.
    """
    folder, progress = Path(out), progress or Silent()
    check_no_run(folder)
    found = load_bundle(bundle)
    names = found.manifest.class_names
    _check(found.manifest.method, str(bundle), class_name, names)
    wanted = names if class_name is None else (class_name,)
    model = found.build(resolve_device(device))
    progress.start("drawing", len(wanted) * n)
    images: dict[str, np.ndarray] = {}
    for name in wanted:
        labels = torch.full((n,), names.index(name))
        images[name] = drawn_images(found, labels, Randomness(seed).at(names.index(name)), model=model)
        progress.advance(n)
    progress.finish()
    chips = tuple(path for name, drawn in images.items() for path in _write_chips(folder / "chips", name, drawn, found))
    picture = folder / "samples.png"
    write_atomic(picture, [_grid_picture(images, found.manifest.bands)])
    return GenerateOutcome(picture, chips)


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
    scaled = built.method.generate(built.net, built.extra, labels.to(device), rng).detach().cpu().numpy()
    low, high = (np.array([getattr(b, end) for b in bundle.manifest.bands]) for end in ("low", "high"))
    raw = (scaled + 1) / 2 * (high - low)[:, None, None] + low[:, None, None]
    return raw.astype(np.float32)


def generative_methods() -> tuple[str, ...]:
    """Return the names of the methods whose models generate images."""
    return tuple(name for name in method_names() if load_method(name).generate is not Method.generate)


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


def _write_chips(folder: Path, name: str, images: np.ndarray, bundle: Bundle) -> list[Path]:
    """Write each image as a GeoTIFF without a place on the ground; return the paths."""
    bands = [band.name for band in bundle.manifest.bands]
    rows, cols = images.shape[2:]
    grid = Grid(Shape(rows, cols), Affine(1, 0, 0, 0, -1, rows), "")
    stem = "".join(c if c.isalnum() or c in "-_" else "_" for c in name)
    paths = [folder / f"{stem}_{number:04d}.tif" for number in range(1, len(images) + 1)]
    for path, image in zip(paths, images, strict=True):
        temporary = path.with_name(f".{path.name}.part")
        with create_tiled(temporary, grid, len(bands), "float32", None, bands) as writer:
            writer.write(np.ascontiguousarray(image), grid.full_window)
        finish_tiled(temporary, path)
    return paths


@styled
def _grid_picture(images: dict[str, np.ndarray], bands: Sequence[BandScale]) -> bytes:
    """Return a PNG of all images, in colours between the bands' low and high."""
    n = max(len(drawn) for drawn in images.values())
    n_cols, per_class = min(n, _COLUMNS), -(-n // _COLUMNS)
    figure, axes = new_figure(
        n_cols * 0.9 + 1, len(images) * per_class * 0.95, nrows=len(images) * per_class, ncols=n_cols
    )
    shown = [0, 1, 2] if len(bands) >= 3 else [0, 0, 0]
    low = np.array([bands[i].low for i in shown])[:, None, None]
    high = np.array([bands[i].high for i in shown])[:, None, None]
    for axis in axes.flat:
        axis.set_axis_off()
    for at, (name, drawn) in enumerate(images.items()):
        for number, image in enumerate(drawn):
            axis = axes[at * per_class + number // n_cols, number % n_cols]
            axis.imshow(((image[shown] - low) / (high - low)).clip(0, 1).transpose(1, 2, 0), interpolation="nearest")
            if number == 0:
                axis.set_title(name, loc="left", fontsize=7)
    return figure_png(figure)
