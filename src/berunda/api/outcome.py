"""What the verbs return: small typed results that print themselves in a few lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from berunda.mapping.result import MapResult

__all__ = ["MapOutcome", "PredictOutcome"]


@dataclass(frozen=True)
class MapOutcome:
    """A finished map run.

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


def _line(result: MapResult) -> str:
    speed = "was there already" if result.mpx_per_s is None else f"{result.mpx_per_s:.2f} Mpx/s"
    return f"map: {result.files.map} ({result.grid.shape.cols} x {result.grid.shape.rows} px, {speed})"
