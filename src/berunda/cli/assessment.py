"""An assessment as lines of text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from berunda.assess.run import AssessResult

__all__ = ["assessment_lines"]


def assessment_lines(result: AssessResult) -> Iterator[str]:
    """Yield what the figures mean, the figures, the warnings, and where the report is."""
    yield result.statement
    if result.scores is not None:
        yield f"overall accuracy {_share(result.scores.oa)}, mean IoU {_share(result.scores.miou)}"
    if result.area is not None:
        oa = result.area.oa
        yield f"overall accuracy {oa.value:.3f} ± {oa.half_width:.3f} (95% interval)"
        for name, area in zip(result.area.class_names, result.area.area_ha, strict=True):
            yield f"{name}: {area.value:.1f} ± {area.half_width:.1f} {result.area_unit}"
    yield from (f"warning: {warning}" for warning in result.warnings)
    yield f"report: {result.page}"


def _share(value: float | None) -> str:
    return "absent" if value is None else f"{value:.3f}"
