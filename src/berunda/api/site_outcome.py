"""What `analyze` and `split` return: small typed results that print themselves in a few lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from berunda.assess.leakage import Leak
    from berunda.assess.site_analysis import SiteAnalysis

__all__ = ["AnalyzeOutcome", "AuditOutcome", "SplitOutcome"]

_SHOWN = 20


@dataclass(frozen=True)
class AnalyzeOutcome:
    """A finished analysis.

    Attributes:
        out: the folder.
        report_path: the report to open.
        analysis: all figures, as arrays.
        findings: what they mean, in plain sentences.
        warnings: what limits them.
    """

    out: Path
    report_path: Path
    analysis: SiteAnalysis
    findings: tuple[str, ...]
    warnings: tuple[str, ...]

    def summary_lines(self) -> list[str]:
        """Return what a reader wants to know first."""
        return [*self.findings, f"report: {self.report_path}"]


@dataclass(frozen=True)
class SplitOutcome:
    """A proposed split.

    Attributes:
        table: the table, which `train` and `bench` read where its images have labels.
        outlines: the images as polygons, None where they have no place.
        roles: site -> role.
        counts: images by role, "left out" included.
        figures: of the choice, fractions of 1.
        reasons: why, in plain sentences.
        warnings: what a reader should know.
    """

    table: Path
    outlines: Path | None
    roles: Mapping[str, str]
    counts: Mapping[str, int]
    figures: Mapping[str, float]
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]

    def summary_lines(self) -> list[str]:
        """Return the choice, its reasons and where it is written."""
        counts = ", ".join(f"{n} {role}" for role, n in self.counts.items() if n)
        lines = [*self.reasons, f"split: {self.table} (images: {counts})"]
        return lines if self.outlines is None else [*lines, f"outlines: {self.outlines}"]


@dataclass(frozen=True)
class AuditOutcome:
    """An audited split.

    Attributes:
        n_images: images looked at.
        n_placed: those whose place is known.
        leaks: pairs of a labelled and a test image that share something.
        transductive: pairs of an unlabelled and a test image that do: no leak, but methods that learn from them have
            seen test images.
        warnings: what could not be checked.
    """

    n_images: int
    n_placed: int
    leaks: tuple[Leak, ...]
    transductive: tuple[Leak, ...]
    warnings: tuple[str, ...]

    @property
    def is_clean(self) -> bool:
        """Whether there is no leak."""
        return not self.leaks

    def summary_lines(self) -> list[str]:
        """Return the verdict and the first leaks."""
        lines = [f"{leak.kind}: {leak.first} and {leak.second}: {leak.detail}" for leak in self.leaks[:_SHOWN]]
        if len(self.leaks) > _SHOWN:
            lines.append(f"and {len(self.leaks) - _SHOWN} more")
        if self.transductive:
            lines.append(
                f"transductive: {len(self.transductive)} pairs of unlabelled and test images share ground or pictures; "
                "say so beside figures of methods that learn from unlabelled images"
            )
        verdict = f"{len(self.leaks)} leaks" if self.leaks else "no leak"
        counted = f"{self.n_images} images, {self.n_placed} with a known place"
        return [*lines, f"{counted}: {verdict} between labels and test"]
