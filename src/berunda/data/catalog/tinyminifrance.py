"""tinyMiniFrance: 3,500 sub-tiles of 1,000x1,000 px cut from MiniFrance."""

from __future__ import annotations

from berunda.data.catalog._france import CITE
from berunda.data.catalog.contract import Download
from berunda.data.catalog.minifrance import MiniFrance

__all__ = ["TinyMiniFrance"]


class TinyMiniFrance(MiniFrance):
    """tinyMiniFrance: `BDORTHO/<conurbation>/<tile>_<row>_<column>.tif` and masks of the same name in `UA/`.

    It is built from MiniFrance: `berunda.data.masks.tiny.build_tiny(minifrance, folder, seed)`.
    """

    name = "tinyminifrance"
    title = "tinyMiniFrance"
    folders = ("tinyminifrance", "tmFrance")
    about = "3,500 aerial images in colour of 16 conurbations, 0.5 m, 1,000x1,000 px, 14 classes"
    licence = f"as MiniFrance. {CITE}; J. Castillo-Navarro, PhD thesis, 2022"
    downloads = (
        Download("MiniFrance, from which build_tiny makes it", "https://ieee-dataport.org/open-access/minifrance"),
    )
