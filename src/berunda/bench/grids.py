"""Figure grids of a benchmark on images with masks: image, truth, the supervised net, and each other method.

The predicted classes of a few test images are kept beside the rows, as small pictures with a palette, so that the
grids can be drawn anew at any time without a net.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from berunda.assess.page import json_text
from berunda.assess.pictures import shrink_step
from berunda.assess.plots import figure_png, new_figure, styled
from berunda.bench.cells import file_name, labels_order
from berunda.errors import DataError
from berunda.files import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from berunda.data.masks.images import MaskSet

__all__ = ["Shown", "grid_picture", "shown_folder", "write_grids"]

ABOUT = "about.json"
SIDE_PX = 480
"""Longest side of a kept picture."""
_NO_DATA, _NO_LABEL = (255, 255, 255), (40, 40, 40)
_FIRST = ("random_forest", "supervised")


def shown_folder(rows_path: Path, dataset: str) -> Path:
    """Return the folder of the kept pictures of a data set, beside the file of rows."""
    return rows_path.with_name(f"{rows_path.stem}_shown") / file_name(dataset)


@dataclass(frozen=True)
class Shown:
    """The folder of the kept pictures.

    Attributes:
        folder: `images/`, `truth/` and one folder a run, with a picture for each image, named by its number.
        classes: names of the classes.
        colors: "#rrggbb" of each.
    """

    folder: Path
    classes: tuple[str, ...]
    colors: tuple[str, ...]

    def begin(self, masks: MaskSet, index: Sequence[int]) -> None:
        """Write images and truth, and what the colours mean; those that are there stay."""
        self.folder.mkdir(parents=True, exist_ok=True)
        about = {"classes": self.classes, "colors": self.colors, "images": {str(i): masks.names[i] for i in index}}
        write_text(self.folder / ABOUT, json_text(about))
        low, high = masks.scaling()
        bands = [0, 1, 2] if len(masks.bands) >= 3 else [0, 0, 0]
        for i in index:
            self._save(self._path("truth", i), masks.labels(i) + 1)
            raw = masks.pixels(i)[bands].astype(np.float32)
            gain = (high[bands] - low[bands]).reshape(3, 1, 1)
            picture = np.nan_to_num(255 * (raw - low[bands].reshape(3, 1, 1)) / gain).clip(0, 255).astype(np.uint8)
            self._save_rgb(self._path("images", i), picture.transpose(1, 2, 0))

    def keep(self, run: str, shown: Mapping[int, np.ndarray]) -> None:
        """Write the classes (rows, columns), 1..C or 0, that a run gives the images."""
        for i, classes in shown.items():
            self._save(self._path(run, i), classes)

    def _path(self, run: str, index: int) -> Path:
        (self.folder / run).mkdir(exist_ok=True)
        return self.folder / run / f"{index}.png"

    def _save(self, path: Path, classes: np.ndarray) -> None:
        from PIL import Image

        step = shrink_step(classes.shape, SIDE_PX)
        picture = Image.fromarray(np.ascontiguousarray(classes[::step, ::step]).astype(np.uint8), "P")
        picture.putpalette([*_NO_LABEL, *(part for color in self.colors for part in _rgb(color))])
        picture.save(path, optimize=True)

    def _save_rgb(self, path: Path, rgb: np.ndarray) -> None:
        from PIL import Image

        step = shrink_step(rgb.shape, SIDE_PX)
        Image.fromarray(np.ascontiguousarray(rgb[::step, ::step])).save(path, optimize=True)


def write_grids(rows: Sequence[Mapping[str, Any]], rows_path: Path, folder: Path) -> list[Path]:
    """Draw a grid for each data set and number of labels, from the first seed of each method, and return the files.

    Args:
        rows: of the benchmark; those without kept pictures are left out.
        rows_path: their file, beside which the pictures lie.
        folder: for the grids.
    """
    with_pictures = [row for row in rows if row.get("shown")]
    datasets = sorted({str(row["dataset"]) for row in with_pictures})
    written = []
    for dataset in datasets:
        kept = shown_folder(rows_path, dataset)
        if not (kept / ABOUT).is_file():
            continue
        own = [row for row in with_pictures if str(row["dataset"]) == dataset]
        for labels in sorted({str(row["labels"]) for row in own}, key=labels_order):
            runs = list(_runs([row for row in own if str(row["labels"]) == labels], kept))
            if runs:
                words = [rows_path.stem, *([file_name(dataset)] if len(datasets) > 1 else []), "grid", labels]
                written.append(folder / f"{'_'.join(words)}.png")
                written[-1].write_bytes(grid_picture(kept, runs))
    return written


def grid_picture(kept: Path, runs: Sequence[tuple[str, str, float]]) -> bytes:
    """Return a grid as PNG.

    Args:
        kept: the folder that `Shown` wrote.
        runs: (title, folder, mean IoU) of each.
    """
    return figure_png(_grid(_about(kept / ABOUT), kept, runs), dpi=130)


def _about(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if {"classes", "colors", "images"} <= set(found):
            return dict(found)
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: not readable ({error}); move the folder away to have it made anew") from error
    raise DataError(f"{path}: classes, colors or images are lacking; move the folder away to have it made anew")


def _runs(rows: Sequence[Mapping[str, Any]], kept: Path) -> Iterator[tuple[str, str, float]]:
    """Yield (title, folder, mean IoU) of the first seed of each method and net: floor and supervised net first."""
    first: dict[tuple[str, ...], Mapping[str, Any]] = {}
    encoders = {str(row["encoder"]) for row in rows if row["encoder"]}
    for row in sorted(rows, key=lambda row: int(row["seed"])):
        if (kept / str(row["shown"])).is_dir():
            encoder = str(row["encoder"]) if len(encoders) > 1 else ""
            first.setdefault((str(row["method"]), str(row.get("variant") or ""), encoder), row)
    order = sorted(first, key=lambda key: (_FIRST.index(key[0]) if key[0] in _FIRST else len(_FIRST), key))
    for key in order:
        method, *rest = key
        title = "\n".join(text for text in (method.replace("_", " "), *rest) if text)
        yield title, str(first[key]["shown"]), float(first[key]["metrics"]["miou"])


@styled
def _grid(about: Mapping[str, Any], kept: Path, runs: Sequence[tuple[str, str, float]]) -> Figure:
    """Draw images in rows; image, truth and methods in columns."""
    from PIL import Image

    images = [name for name in about["images"] if (kept / "images" / f"{name}.png").is_file()]
    columns = [("image", "images"), ("truth", "truth")]
    columns += [(f"{title}\nmIoU {100 * miou:.1f}%", folder) for title, folder, miou in runs]
    figure, axes = new_figure(
        1.45 * len(columns) + 0.2, 1.45 * len(images) + 1.0, nrows=len(images), ncols=len(columns)
    )
    for row, name in enumerate(images):
        for col, (title, folder) in enumerate(columns):
            ax, path = axes[row, col], kept / folder / f"{name}.png"
            ax.set_axis_off()
            if path.is_file():
                with Image.open(path) as opened:
                    ax.imshow(np.asarray(opened.convert("RGB")), interpolation="nearest")
            if row == 0:
                ax.set_title(title, fontsize=7.5, loc="center")
    _legend(figure, about, len(columns))
    return figure


def _legend(figure: Figure, about: Mapping[str, Any], n_columns: int) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=color, label=name) for name, color in zip(about["classes"], about["colors"], strict=True)]
    handles.append(Patch(color="#282828", label="not labelled"))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), max(2, n_columns)), fontsize=7.5)


def _rgb(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)
