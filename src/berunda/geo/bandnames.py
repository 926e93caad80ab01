"""Names of bands, from descriptions, file names or numbers, and what `--bands` makes of them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from berunda.errors import GeoError
from berunda.geo.source import Band, BandSource, RasterFile

__all__ = ["choose_bands", "file_token", "is_sentinel2", "name_bands", "scene_name"]

TOKEN = re.compile(
    r"(?:^|[_\-. ])(?P<token>(?:SR_|ST_)?B(?:8A|\d{1,2})|TCI|SCL|AOT|WVP|NDVI|NDWI|EVI|DEM|VV|VH|HH|HV"
    r"|pan|coastal|blue|green|red|rededge\d?|nir\d?|swir\d?|tir\d?)(?=$|[_\-. ])",
    re.IGNORECASE,
)
SENTINEL2 = re.compile(r"(?:^|_)T\d\d[A-Z]{3}_.*_B(?:0[1-9]|1[0-2]|8A)(?:_\d\dm)?$")


def file_token(stem: str) -> str | None:
    """Return the band that a file name speaks of (the last such token), None if there is none.

    Example:
        >>> file_token("T33UUU_20170216T102101_B8A"), file_token("scene")
        ('B8A', None)
    """
    tokens = [match["token"] for match in TOKEN.finditer(stem)]
    if not tokens:
        return None
    return tokens[-1].lower() if len(tokens[-1]) > 4 and "_" not in tokens[-1] else tokens[-1]


def is_sentinel2(stem: str) -> bool:
    """Whether a file name is that of a band in a Sentinel-2 product (where 0 means no data)."""
    return SENTINEL2.search(stem) is not None


def name_bands(files: Sequence[RasterFile]) -> tuple[Band, ...]:
    """Return the data bands of the files of one scene, in order, under unique names.

    Raises:
        GeoError: two bands cannot be told apart.
    """
    labels = _labels(files)
    places = [(f, label, i) for f, label in zip(files, labels, strict=True) for i in f.data_indexes]
    names = [_own_name(f, i) for f, _, i in places]
    taken = [n for n in names if n]
    final = []
    for (file, label, index), name in zip(places, names, strict=True):
        if name and taken.count(name) == 1:
            final.append(name)
            continue
        alone = len(file.data_indexes) == 1
        part = "" if alone and (not name or name in label) else f"_{name or f'b{index}'}"
        if len(files) == 1:
            final.append(f"b{index}")
        else:
            final.append(f"{label}{part}")
    _require_unique(final, places)
    return tuple(_band(f, i, n) for (f, _, i), n in zip(places, final, strict=True))


def choose_bands(bands: Sequence[Band], wanted: Sequence[str]) -> tuple[Band, ...]:
    """Select bands by name, or name them when as many names as bands are given and none is known.

    Raises:
        GeoError: a name is unknown, given twice, or the number does not fit.
    """
    doubles = sorted({w for w in wanted if list(wanted).count(w) > 1})
    if doubles or not wanted or not all(w.strip() for w in wanted):
        found = f"'{doubles[0]}' twice" if doubles else "an empty name"
        raise GeoError(f"--bands has {found}: expected different names; the scene has {_listed(bands)}")
    found_bands = [_find(bands, w) for w in wanted]
    if all(found_bands):
        return tuple(b for b in found_bands if b)
    if not any(found_bands) and len(wanted) == len(bands):
        return tuple(Band(w.strip(), b.source, b.dtype, b.nodata) for w, b in zip(wanted, bands, strict=True))
    missing = next(w for w, b in zip(wanted, found_bands, strict=True) if b is None)
    near = difflib.get_close_matches(missing, [b.name for b in bands], 1, 0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"select by name, or name all {len(bands)} bands"
    raise GeoError(f"band '{missing}' is not in {bands[0].source.path}: expected one of {_listed(bands)}; {hint}")


def scene_name(files: Sequence[RasterFile]) -> str:
    """Return a name for the scene: the file's stem, or what the stems of its files have in common."""
    stems = [f.path.stem for f in files]
    if len(stems) == 1:
        return stems[0]
    common = re.sub(r"[_\-. ]+(?:B|SR_B)?0?$", "", _common_start(stems)).strip("_-. ")
    return common if len(common) >= 3 else (files[0].path.parent.name or stems[0])


def _common_start(texts: Sequence[str]) -> str:
    """Return the characters that all texts begin with."""
    first, last = min(texts), max(texts)
    n = next((i for i, c in enumerate(first) if c != last[i : i + 1]), len(first))
    return first[:n]


def _own_name(file: RasterFile, index: int) -> str | None:
    """Return the name that a band brings along."""
    description = " ".join(file.descriptions[index - 1].split())
    if description:
        return description
    return file_token(file.path.stem) if len(file.data_indexes) == 1 else None


def _labels(files: Sequence[RasterFile]) -> list[str]:
    """Return what tells the files' stems apart: the stems without their common beginning and end."""
    stems = [f.path.stem for f in files]
    if len(set(stems)) < len(stems):
        stems = [f"{f.path.parent.name}_{f.path.stem}" for f in files]
    parts = [re.split(r"[_\-. ]+", s) for s in stems]
    if len(files) == 1 or len(set(map(tuple, parts))) < len(parts):
        return stems
    shortest = min(map(len, parts))
    start = next((i for i in range(shortest) if len({p[i] for p in parts}) > 1), shortest - 1)
    end = next((i for i in range(shortest - start) if len({p[-1 - i] for p in parts}) > 1), 0)
    cut = ["_".join(p[start : len(p) - end]) for p in parts]
    return cut if all(cut) and len(set(cut)) == len(cut) else stems


def _band(file: RasterFile, index: int, name: str) -> Band:
    """Return the band under its name."""
    return Band(name, BandSource(file.path, index), file.dtype, file.nodata[index - 1])


def _require_unique(names: Sequence[str], places: Sequence[tuple[RasterFile, str, int]]) -> None:
    """Raise when a name is left twice."""
    for i, name in enumerate(names):
        if name in names[:i]:
            first, second = places[names.index(name)][0].path, places[i][0].path
            raise GeoError(
                f"two bands are both called '{name}' ({first} and {second}): the bands of one scene need different"
                " names; give one of the files, or rename one"
            )


def _find(bands: Sequence[Band], wanted: str) -> Band | None:
    """Return the band of that name: exactly, else without regard to case and leading zeros (b2 is B02)."""
    exact = [b for b in bands if b.name == wanted.strip()]
    if exact:
        return exact[0]
    loose = [b for b in bands if _loose(b.name) == _loose(wanted)]
    return loose[0] if len(loose) == 1 else None


def _loose(name: str) -> str:
    """Return a name for comparison."""
    return re.sub(r"(?<=[a-z_])0+(?=\d)", "", name.strip().lower())


def _listed(bands: Sequence[Band]) -> str:
    """Return the names for a message."""
    names = [b.name for b in bands]
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
