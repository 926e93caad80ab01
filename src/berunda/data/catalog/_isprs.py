"""What the two data sets of the ISPRS share: the classes, their colours, and where to ask for them."""

from __future__ import annotations

from berunda.data.masks.schema import MaskSchema

__all__ = ["LICENCE", "PAGE", "SCHEMA"]

SCHEMA = MaskSchema.of_colors(
    {
        "#ffffff": "impervious surfaces",
        "#0000ff": "building",
        "#00ffff": "low vegetation",
        "#00ff00": "tree",
        "#ffff00": "car",
        "#ff0000": "clutter",
    },
    ("#000000",),
)
"""Source: ISPRS 2D semantic labelling contest; black marks the borders in the masks without boundaries."""
LICENCE = "for research, on request to the ISPRS. Cite Rottensteiner et al. 2012, doi:10.5194/isprsannals-I-3-293-2012"
PAGE = "https://www.isprs.org/education/benchmarks/UrbanSemLab/default.aspx"
