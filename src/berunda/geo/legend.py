"""Legends as texts: colours, QGIS styles and GDAL's category names. Writes no file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

from berunda.errors import GeoError

__all__ = ["aux_xml", "qml", "rgb"]

NOT_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]")


def rgb(color: str | tuple[int, int, int]) -> tuple[int, int, int]:
    """Return red, green and blue, 0..255, of "#rrggbb" or a triple.

    Example:
        >>> rgb("#1b9e77")
        (27, 158, 119)

    Raises:
        GeoError: the text is no colour.
    """
    if isinstance(color, str):
        if not re.fullmatch(r"#[0-9a-fA-F]{6}", color):
            raise GeoError(f"'{color}' is no colour: expected #rrggbb")
        return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)
    red, green, blue = (int(c) for c in color)
    if not all(0 <= c <= 255 for c in (red, green, blue)):
        raise GeoError(f"{color} is no colour: expected red, green and blue of 0 to 255")
    return red, green, blue


def qml(classes: Sequence[tuple[int, str, str | tuple[int, int, int]]]) -> str:
    """Return a QGIS style with one entry per class: (value, name, colour)."""
    entries = "\n".join(
        f'        <paletteEntry value="{int(value)}" label={quoteattr(_clean(name))}'
        f' color="{"#{:02x}{:02x}{:02x}".format(*rgb(color))}" alpha="255"/>'
        for value, name, color in classes
    )
    return f"""<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<qgis version="3.28.0" styleCategories="Symbology" hasScaleBasedVisibilityFlag="0">
  <pipe>
    <rasterrenderer type="paletted" band="1" opacity="1" alphaBand="-1" nodataColor="">
      <rasterTransparency/>
      <colorPalette>
{entries}
      </colorPalette>
    </rasterrenderer>
    <brightnesscontrast brightness="0" contrast="0" gamma="1"/>
    <huesaturation saturation="0" grayscaleMode="0"/>
    <rasterresampler maxOversampling="2"/>
  </pipe>
  <blendMode>0</blendMode>
</qgis>
"""


def aux_xml(categories: Sequence[str], n_bands: int = 1) -> str:
    """Return GDAL's side file with the category names of all bands, which have the same, from value 0 on."""
    names = "\n".join(f"      <Category>{escape(_clean(name))}</Category>" for name in categories)
    bands = "\n".join(
        f"""  <PAMRasterBand band="{band}">
    <CategoryNames>
{names}
    </CategoryNames>
  </PAMRasterBand>"""
        for band in range(1, n_bands + 1)
    )
    return f"<PAMDataset>\n{bands}\n</PAMDataset>\n"


def _clean(text: str) -> str:
    """Leave out characters that XML cannot hold."""
    return NOT_XML.sub("", text)
