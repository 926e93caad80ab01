"""Any folder of images with masks: where they lie, what the masks mean, and which images train and test."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from berunda.data.images import NO_LABEL, TEST, TRAIN, UNLABELLED, VALIDATION
from berunda.data.listing import File, complete_parts, files_of
from berunda.data.masks.files import MaskFiles
from berunda.data.masks.listing import SUFFIXES, MaskListing, MaskSample
from berunda.data.masks.schema import MaskSchema
from berunda.data.tables import PART_WORDS
from berunda.errors import DataError

__all__ = ["SCHEMA_NAME", "Place", "has_masks", "list_folder", "place_of", "read_schema", "schema_of", "split_by_site"]

SCHEMA_NAME = "classes.csv"
IMAGE_FOLDERS = ("images", "image", "img", "imgs")
MASK_FOLDERS = ("masks", "mask", "labels", "label", "annotations", "gt")
IGNORED_INDICES = (0, 255)
"""Values of index masks without a schema that carry no label."""
_LEAST_SITES = 5
_MAX_FOUND = 250
_MAX_BYTES = 1 << 20


class Place(NamedTuple):
    """What a file's path says of it.

    Attributes:
        key: path without the folder of its kind and without suffix: equal for an image and its mask.
        kind: "image" or "mask".
        part: TRAIN, ... where a folder says so; None else.
        site: the other folders above it, joined by "/".
    """

    key: str
    kind: str
    part: int | None
    site: str


def place_of(name: str) -> Place | None:
    """Return what a path says, None where it lies in no folder of images or masks.

    Example:
        >>> place_of("Tile 4/masks/part_1.png")
        Place(key='Tile 4/part_1', kind='mask', part=None, site='Tile 4')
        >>> place_of("train/images/a.jpg").part == TRAIN, place_of("unlabelled/b.jpg").kind
        (True, 'image')
    """
    path = PurePosixPath(name)
    folders = list(path.parts[:-1])
    lower = [folder.lower() for folder in folders]
    kinds = [i for i, folder in enumerate(lower) if folder in (*IMAGE_FOLDERS, *MASK_FOLDERS)]
    words = [i for i, folder in enumerate(lower) if folder in PART_WORDS]
    part = PART_WORDS[lower[words[0]]] if words else None
    if not kinds and part != UNLABELLED:
        return None
    kind = "mask" if kinds and lower[kinds[-1]] in MASK_FOLDERS else "image"
    rest = [folder for i, folder in enumerate(folders) if i not in kinds[-1:]]
    site = "/".join(folder for folder in rest if folder.lower() not in PART_WORDS)
    return Place("/".join([*rest, path.stem]), kind, part, site)


def has_masks(root: Path) -> bool:
    """Say whether a folder or an archive holds a folder of masks."""
    places = map(place_of, files_of(root, SUFFIXES))
    return any(place is not None and place.kind == "mask" for place in places)


def list_folder(
    root: Path, name: str, schema: MaskSchema | None = None, test_sites: Sequence[str] | None = None
) -> MaskListing:
    """Return the images of a folder or archive with their masks.

    Args:
        root: holds folders `images/` and `masks/` side by side at any depth, images and masks of the same name.
        name: of the data set.
        schema: what the masks mean; None for `classes.csv` in the folder, else what is found in index masks.
        test_sites: sites whose images test, all others train; None for what the folders say, else by hash.

    Raises:
        DataError: there are no pairs, a mask has no image, two files claim one place, or the schema cannot be told.
    """
    files = {n: f for n, f in files_of(root, SUFFIXES).items() if place_of(n) is not None}
    images = _by_key(root, files, "image")
    masks = _by_key(root, files, "mask")
    lost = sorted(set(masks) - set(images))
    if lost:
        raise DataError(
            f"{root}: {len(lost)} masks without an image of the same name, the first is {masks[lost[0]]!r}; expected "
            "one in the folder of images beside it"
        )
    if not masks:
        raise DataError(
            f"{root}: no masks found, expected folders images/ and masks/ side by side with files of the same name"
        )
    places = {key: place for key in sorted(images) if (place := place_of(images[key])) is not None}
    mask_files = {masks[key]: files[masks[key]] for key in places if key in masks}
    samples = [
        MaskSample(
            name=images[key],
            images=(files[images[key]],),
            mask=files[masks[key]] if key in masks else None,
            part=part,
            site=place.site,
        )
        for (key, place), part in zip(places.items(), _parts(places, test_sites), strict=True)
    ]
    return MaskListing(
        name=name,
        schema=schema or schema_of(root, mask_files),
        samples=tuple(samples),
        has_part=_declared(root),
    )


def _by_key(root: Path, files: Iterable[str], kind: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in files:
        place = place_of(name)
        if place is None or place.kind != kind:
            continue
        if place.key in found:
            raise DataError(
                f"{root}: {found[place.key]!r} and {name!r} are both the {kind} {place.key!r}, expected one; remove one"
            )
        found[place.key] = name
    return found


def _declared(root: Path) -> tuple[int, ...]:
    """Return the parts for which there is a folder."""
    below = [path for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
    return tuple(sorted({PART_WORDS[path.name.lower()] for path in below if path.name.lower() in PART_WORDS}))


def _parts(places: Mapping[str, Place], test_sites: Sequence[str] | None) -> list[int]:
    """Return the part of each image by its key: as its folders say, by the sites that test, or by hash."""
    keys, sites = list(places), [place.site for place in places.values()]
    is_free = [place.part != UNLABELLED for place in places.values()]
    if test_sites is not None:
        missing = sorted(set(test_sites) - set(sites))
        if missing:
            found = ", ".join(sorted(set(sites)))
            raise DataError(f"test site {missing[0]!r} is not there, expected one of {found or 'none'}")
        tests = [TEST if site in test_sites else TRAIN for site in sites]
        return [part if free else UNLABELLED for part, free in zip(tests, is_free, strict=True)]
    said = [place.part if place.part != UNLABELLED else None for place in places.values()]
    if not any(part is not None for part in said) and len(set(sites)) >= _LEAST_SITES:
        drawn = split_by_site(sites)
        return [part if free else UNLABELLED for part, free in zip(drawn, is_free, strict=True)]
    return complete_parts(keys, [0 if free else NO_LABEL for free in is_free], said)


def split_by_site(sites: Sequence[str]) -> list[int]:
    """Return the part of each image: whole sites train (60%), validate (20%), test (20%), by the hash of their names.

    So neighbours never lie on both sides of the split.

    Args:
        sites: of the images.
    """
    order = sorted(set(sites), key=lambda site: hashlib.sha256(site.encode()).hexdigest())
    n_held = max(1, round(0.2 * len(order)))
    part_of = dict.fromkeys(order, TRAIN)
    part_of |= dict.fromkeys(order[:n_held], TEST) | dict.fromkeys(order[n_held : 2 * n_held], VALIDATION)
    return [part_of[site] for site in sites]


def schema_of(root: Path, masks: Mapping[str, File]) -> MaskSchema:
    """Return what masks mean: as `classes.csv` beside or in `root` says, else what is found in index masks.

    Raises:
        DataError: the table is no such one, or the masks hold colours.
    """
    table = (root if root.is_dir() else root.parent) / SCHEMA_NAME
    return read_schema(table) if table.is_file() else _found_schema(root, masks)


def read_schema(path: Path) -> MaskSchema:
    """Return the schema in a table `value,name[,color]`.

    A value is a number or a colour (#rrggbb), of one kind in all rows; an empty name is ignored. Several values may
    have one name. `color` says how a class of index masks is shown.

    Raises:
        DataError: the table is no such one; the message names the row.
    """
    if path.stat().st_size > _MAX_BYTES:
        raise DataError(f"{path}: {path.stat().st_size} bytes, at most {_MAX_BYTES} expected of a table of classes")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: is no table of text: {error}; save it as CSV in UTF-8") from error
    if not rows or not {"value", "name"} <= set(rows[0]):
        raise DataError(f"{path}: columns value and name not found, expected value,name and perhaps color")
    pairs = [((row["value"] or "").strip(), (row["name"] or "").strip()) for row in rows]
    values = [value.lower() for value, _ in pairs]
    twice = next((value for value in values if values.count(value) > 1), None)
    if twice is not None:
        raise DataError(f"{path}: value {twice} found twice, expected one row for each value")
    if all(value.startswith("#") for value in values):
        ignored = [value for value, name in pairs if not name]
        return MaskSchema.of_colors({value: name for value, name in pairs if name}, ignored)
    for number, (value, _) in enumerate(pairs, start=2):
        if not (value.isascii() and value.isdigit()):
            raise DataError(
                f"{path}: line {number}: value {value!r} found, expected a number from 0, or #rrggbb in all rows"
            )
    named = {int(value): name for value, name in pairs if name}
    color_of = {name: (row.get("color") or "").strip() for row, (_, name) in zip(rows, pairs, strict=True)}
    return MaskSchema.of_indices(
        named,
        [int(value) for value, name in pairs if not name],
        [color_of[name] for name in dict.fromkeys(named.values())],
    )


def _found_schema(root: Path, masks: Mapping[str, File]) -> MaskSchema:
    """Return the schema of index masks without a table: every value is a class, 0 and 255 are ignored."""
    found: set[int] = set()
    told: dict[int, str] = {}
    with MaskFiles() as files:
        for file in {file.path: file for file in masks.values()}.values():
            told = files.class_names(file) | told
        for name, file in masks.items():
            try:
                values, has_value = files.mask(name, file, "index")
            except DataError as error:
                if "colours found" not in str(error):
                    raise
                raise DataError(
                    f"{root}: masks hold colours ({name!r}: {_colors_in(files, name, file)}), and no {SCHEMA_NAME} "
                    "says what they mean; write one with the columns value,name, such as #ff0000,building"
                ) from error
            found.update(int(v) for v in np.unique(values if has_value is None else values[has_value]))
            if len(found) > _MAX_FOUND:
                raise DataError(
                    f"{root}: more than {_MAX_FOUND} values in the masks, expected class numbers; are these masks?"
                )
    named = {value: told.get(value, f"class {value}") for value in sorted(found - set(IGNORED_INDICES))}
    return MaskSchema.of_indices(named, IGNORED_INDICES)


def _colors_in(files: MaskFiles, name: str, file: File) -> str:
    values, _ = files.mask(name, file, "palette")
    unique, counts = np.unique(values, return_counts=True)
    return ", ".join(f"#{int(unique[i]):06x}" for i in np.argsort(-counts)[:8])
