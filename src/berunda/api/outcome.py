"""What the verbs return: small typed results that print themselves in a few lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from berunda.mapping.result import MapResult

__all__ = [
    "BenchOutcome",
    "InpaintOutcome",
    "MapOutcome",
    "MaskOutcome",
    "PatchOutcome",
    "PredictOutcome",
    "TrainOutcome",
]


@dataclass(frozen=True)
class MapOutcome:
    """A finished map run; on a rank other than the first, which only trained along, without results and figures.

    Attributes:
        out: the folder.
        report_path: the report to open.
        bundle_path: the folder of the model.
        results: one for each scene.
        metrics: the scores on held-out blocks, fractions of 1; empty when nothing was held out.
        comparison: rows in the form of the benchmark protocol.
        warnings: in plain words.
    """

    out: Path
    report_path: Path
    bundle_path: Path
    results: tuple[MapResult, ...]
    metrics: Mapping[str, Any]
    comparison: tuple[Mapping[str, Any], ...]
    warnings: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        """Whether every tile of every map was made."""
        return all(r.is_complete for r in self.results)

    def summary_lines(self) -> list[str]:
        """Return what a reader wants to know first."""
        lines = [f"map: {r.files.map}" for r in self.results]
        if self.metrics.get("oa") is not None:
            lines.append(
                f"on held-out blocks: overall accuracy {self.metrics['oa']:.3f}, mean IoU {self.metrics['miou']:.3f}"
            )
        for row in self.comparison if len(self.comparison) > 1 else ():
            figures = row["metrics"]
            lines.append(f"  {row['method']:<16} accuracy {figures['oa']:.3f}, mean IoU {figures['miou']:.3f}")
        lines.append(f"model: {self.bundle_path}")
        lines.append(f"report: {self.report_path}")
        return lines


@dataclass(frozen=True)
class PredictOutcome:
    """Maps made with a bundle.

    Attributes:
        results: one for each scene.
        warnings: in plain words.
    """

    results: tuple[MapResult, ...]
    warnings: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        """Whether every tile of every map was made."""
        return all(r.is_complete for r in self.results)

    def summary_lines(self) -> list[str]:
        """Return one line for each map."""
        return [_line(r) for r in self.results]


@dataclass(frozen=True)
class InpaintOutcome:
    """A scene with its gaps filled.

    Attributes:
        path: the GeoTIFF.
        n_filled: pixels that were filled.
        n_left: pixels under the mask that could not be.
        warnings: in plain words.
    """

    path: Path
    n_filled: int
    n_left: int
    warnings: tuple[str, ...]

    def summary_lines(self) -> list[str]:
        """Return where it is and how much was filled."""
        return [f"filled {self.n_filled} pixels: {self.path}"]


@dataclass(frozen=True)
class PatchOutcome:
    """Images classified with a bundle.

    Attributes:
        table: predictions.csv, one line an image.
        n_images: images in it.
        class_counts: images by class; one with several labels counts for each.
        n_flagged: images unlike the labelled training images; None without a threshold.
        warnings: in plain words.
    """

    table: Path
    n_images: int
    class_counts: Mapping[str, int]
    n_flagged: int | None
    warnings: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        """Always: the table is written whole or not at all."""
        return True

    def summary_lines(self) -> list[str]:
        """Return what was found, in a few lines."""
        lines = [f"predictions: {self.table} ({self.n_images} images)"]
        lines += [f"  {name or '(no label)'}: {n}" for name, n in self.class_counts.items()]
        if self.n_flagged is not None:
            lines.append(f"unlike the labelled training images: {self.n_flagged}")
        return lines


@dataclass(frozen=True)
class MaskOutcome:
    """Images masked with a bundle.

    Attributes:
        out: folder of the masks and of `classes.csv`.
        n_images: images with a mask.
        class_pixels: pixels by class.
        warnings: in plain words.
    """

    out: Path
    n_images: int
    class_pixels: Mapping[str, int]
    warnings: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        """Always: a run that cannot write a mask fails."""
        return True

    def summary_lines(self) -> list[str]:
        """Return what was found, in a few lines."""
        total = max(1, sum(self.class_pixels.values()))
        lines = [f"masks: {self.out} ({self.n_images} images)"]
        return lines + [f"  {name}: {100 * n / total:.1f}%" for name, n in self.class_pixels.items()]


@dataclass(frozen=True)
class TrainOutcome:
    """A finished training on a data set; on a rank other than the first, which only trained along, without figures.

    Attributes:
        out: the folder.
        report_path: the report to open.
        bundle_path: the folder of the model.
        metrics: figures on the test images, fractions of 1.
        comparison: rows in the form of the benchmark protocol.
        counts: images by use.
        warnings: in plain words.
    """

    out: Path
    report_path: Path
    bundle_path: Path
    metrics: Mapping[str, Any]
    comparison: tuple[Mapping[str, Any], ...]
    counts: Mapping[str, int]
    warnings: tuple[str, ...]

    def summary_lines(self) -> list[str]:
        """Return what a reader wants to know first."""
        lines = [f"images, {use}: {n}" for use, n in self.counts.items()]
        if self.metrics.get("miou") is not None:
            lines.append(
                f"on {self.metrics['n_test']} test images: mean IoU {self.metrics['miou']:.4f}, overall accuracy "
                f"{self.metrics['oa']:.4f}, calibration error {self.metrics['ece']:.4f}"
            )
        elif self.metrics.get("macro_auprc") is not None:
            lines.append(
                f"on {self.metrics['n_test']} test images: macro AUPRC {self.metrics['macro_auprc']:.4f}, macro F1 "
                f"{self.metrics['macro_f1']:.4f} at 0.5 and {self.metrics['macro_f1_tuned']:.4f} at tuned thresholds, "
                f"calibration error {self.metrics['ece']:.4f}"
            )
        elif self.metrics:
            lines.append(
                f"on {self.metrics['n_test']} test images: overall accuracy {self.metrics['oa']:.4f}, macro F1 "
                f"{self.metrics['macro_f1']:.4f}, calibration error {self.metrics['ece']:.4f}"
            )
        for row in self.comparison if len(self.comparison) > 1 else ():
            name = ", ".join(text for text in (row["method"], row.get("variant")) if text)
            key, title = ("oa", "accuracy") if "oa" in row["metrics"] else ("macro_auprc", "macro AUPRC")
            lines.append(f"  {name:<23} {title} {row['metrics'][key]:.4f}, {row['wall_s']:.0f} s")
        return [*lines, f"model: {self.bundle_path}", f"report: {self.report_path}"]


@dataclass(frozen=True)
class BenchOutcome:
    """A benchmark, with nothing missing but what failed.

    Attributes:
        rows_path: the rows, one a finished run.
        files: tables and pictures.
        n_runs: runs of this benchmark.
        n_new: those of them that were missing and are done now.
        failed: runs that failed, and why, in plain words.
        notes: what else there is to know, such as images that were left out.
    """

    rows_path: Path
    files: tuple[Path, ...]
    n_runs: int
    n_new: int
    failed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """All of it, in plain words."""
        return (*self.notes, *self.failed)

    @property
    def is_complete(self) -> bool:
        """Whether no run failed."""
        return not self.failed

    def summary_lines(self) -> list[str]:
        """Return where the results are."""
        lines = [f"{self.n_new} of {self.n_runs} runs are new: {self.rows_path}"]
        return lines + [f"  {path}" for path in self.files]


def _line(result: MapResult) -> str:
    speed = "was there already" if result.mpx_per_s is None else f"{result.mpx_per_s:.2f} Mpx/s"
    return f"map: {result.files.map} ({result.grid.shape.cols} x {result.grid.shape.rows} px, {speed})"
