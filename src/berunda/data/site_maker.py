"""Sites put together: files, windows and blocks are gathered, and those images built that are to be looked at.

A large scene has millions of blocks; which of them are looked at is drawn by number before any becomes an image.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from berunda.data.listing import RASTER_SUFFIXES
from berunda.data.order import Randomness
from berunda.data.sites import Item, Site, SiteSet
from berunda.errors import DataError, GeoError
from berunda.geo.grid import Window
from berunda.geo.raster import Scene, open_scenes

__all__ = ["LARGE_BLOCKS", "Blocks", "Cutting", "Known", "SiteMaker", "drawn", "left_out_note", "thinned"]

LARGE_BLOCKS = 2
"""A raster of at least so many blocks along both sides is cut into them."""


@dataclass(frozen=True)
class Cutting:
    """How large rasters become images.

    Attributes:
        block_px: side of a block.
        site_px: side of a site where one scene is all there is; None cuts it into about four by four.
        max_per_site: images of a site that are kept, drawn by seed; the others are left out and counted.
        seed: of that draw.
        bands: names of bands to use, in order; None for all.
        skip_broken: leave out files that cannot be read, where the whole data set is decoded at once.
        whole_up_to: images of all sites together up to which none is left out, whatever `max_per_site` says.
    """

    block_px: int = 64
    site_px: int | None = None
    max_per_site: int = 2000
    seed: int = 0
    bands: tuple[str, ...] | None = None
    skip_broken: bool = False
    whole_up_to: int = 0


class Known(NamedTuple):
    """What is known of an image beside its pixels: its class, or a raster of classes and the values that are none."""

    label: str = ""
    truth: Path | None = None
    ignored: tuple[int, ...] = ()

    def told(self, item: Item) -> Item:
        """Return an image of which this is known."""
        return replace(item, label=self.label, truth=self.truth, ignored=self.ignored)


NOTHING_KNOWN = Known()


class _Source(Protocol):
    """Some images of one site, numbered from 0, which exist when they are asked for."""

    def __len__(self) -> int: ...

    def item(self, number: int, /) -> Item: ...


class _One(NamedTuple):
    only: Item

    def __len__(self) -> int:
        return 1

    def item(self, number: int, /) -> Item:
        del number
        return self.only


@dataclass(frozen=True)
class Blocks:
    """The whole blocks of a part of a scene, row by row; what is left at its edges belongs to none.

    Attributes:
        name: of the scene, which those of the blocks begin with.
        site: number of the site.
        scene: number of the scene.
        part: pixels of the scene that are cut.
        block_px: side of a block.
        path: file that stands for the scene.
        known: of all blocks.
    """

    name: str
    site: int
    scene: int
    part: Window
    block_px: int
    path: Path
    known: Known = NOTHING_KNOWN

    def __len__(self) -> int:
        return (self.part.n_rows // self.block_px) * (self.part.n_cols // self.block_px)

    def item(self, number: int, /) -> Item:
        """Return a block as an image."""
        row, col = divmod(number, self.part.n_cols // self.block_px)
        window = Window(
            self.part.row + row * self.block_px, self.part.col + col * self.block_px, self.block_px, self.block_px
        )
        return _window_item(self.name, self.site, self.scene, window, (self.path, self.known))


def _window_item(name: str, site: int, scene: int, window: Window, more: tuple[Path, Known]) -> Item:
    path, known = more
    title = f"{name}@{window.row},{window.col}"
    return known.told(Item(title, site, path, scene=scene, window=window))


def drawn(cutting: Cutting, counts: Sequence[int]) -> list[np.ndarray]:
    """Return which images of each site are kept, ascending: all, or `max_per_site` by a draw.

    Args:
        cutting: how many are kept.
        counts: images of each site.
    """
    if sum(counts) <= cutting.whole_up_to:
        return [np.arange(n) for n in counts]
    return [_drawn_of_site(cutting, site, n) for site, n in enumerate(counts)]


def _drawn_of_site(cutting: Cutting, site: int, n: int) -> np.ndarray:
    if n <= cutting.max_per_site:
        return np.arange(n)
    draw = Randomness(cutting.seed).numpy("images of a site", site)
    return np.sort(draw.choice(n, cutting.max_per_site, replace=False))


def thinned(found: SiteSet, cutting: Cutting) -> SiteSet:
    """Return the set with the images that `find_sites` with this cutting would have kept."""
    places = [found.items_of([site]) for site in range(len(found.sites))]
    chosen = drawn(cutting, [len(mine) for mine in places])
    kept = np.concatenate([mine[index] for mine, index in zip(places, chosen, strict=True)])
    if len(kept) == len(found):
        return found
    note = left_out_note(cutting, len(found) - len(kept), len(found))
    return replace(found.subset(kept), notes=(*found.notes, *note))


def left_out_note(cutting: Cutting, n_left_out: int, n_all: int) -> tuple[str, ...]:
    """Return what a reader should know of images that a draw left out."""
    if not n_left_out:
        return ()
    note = (
        f"{n_left_out} of {n_all} images were left out by a draw (seed {cutting.seed}): at most "
        f"{cutting.max_per_site} of each site are looked at, see --max-per-site."
    )
    if cutting.whole_up_to:
        note += f" They stand in no table either, as there are more than {cutting.whole_up_to}."
    return (note,)


class SiteMaker:
    """Gathers sites and images; rasters of several blocks are cut into them.

    Args:
        name: of the data set.
        root: folder that names of images count from; None where they are named otherwise.
        cutting: how large rasters become images.
    """

    def __init__(self, name: str, root: Path | None, cutting: Cutting) -> None:
        self.name, self.root, self.cutting = name, root, cutting
        self.sites: list[Site] = []
        self.scenes: list[Scene] = []
        self.notes: list[str] = []
        self._sources: list[list[_Source]] = []
        self._scene_of: dict[tuple[Path, ...], int] = {}

    def add_site(self, site: Site) -> int:
        """Add a site and return its number."""
        self.sites.append(site)
        self._sources.append([])
        return len(self.sites) - 1

    def add_blocks(self, blocks: Blocks) -> None:
        """Add the blocks of a scene in `scenes`."""
        self._sources[blocks.site].append(blocks)

    def add_file(self, site: int, path: Path, known: Known) -> None:
        """Add an image, or the blocks of a large raster."""
        scene = self._large(path)
        if scene is None:
            self._sources[site].append(_One(known.told(Item(self._name(path), site, path))))
            return
        self.scenes.append(scene)
        whole, number = scene.grid.full_window, len(self.scenes) - 1
        self.add_blocks(Blocks(self._name(path), site, number, whole, self.cutting.block_px, path, known))

    def add_window(self, site: int, files: tuple[Path, ...], window: Window | None, known: Known) -> None:
        """Add a window of a raster, or of several on one ground; None for all of it.

        Raises:
            GeoError: the raster cannot be read.
            DataError: the window does not lie in it.
        """
        path = files[0]
        if files not in self._scene_of:
            self._scene_of[files] = len(self.scenes)
            self.scenes.append(open_scenes(files, bands=self.cutting.bands)[0])
        number = self._scene_of[files]
        whole = self.scenes[number].grid.full_window
        part = window or whole
        if part.intersect(whole) != part:
            raise DataError(
                f"image {self._name(path)}: {part} found, expected a window inside its {whole.n_rows} x "
                f"{whole.n_cols} pixels; correct the table"
            )
        self._sources[site].append(_One(_window_item(self._name(path), site, number, part, (path, known))))

    def _name(self, path: Path) -> str:
        return os.path.relpath(path, self.root).replace(os.sep, "/")

    def _large(self, path: Path) -> Scene | None:
        if path.suffix.lower() not in RASTER_SUFFIXES:
            return None
        try:
            scene = open_scenes([path], bands=self.cutting.bands)[0]
        except GeoError:
            return None  # it is counted among those that cannot be read, when it comes to that
        shape = scene.grid.shape
        is_large = min(shape.rows, shape.cols) >= LARGE_BLOCKS * self.cutting.block_px
        return scene if is_large else None

    def done(self) -> SiteSet:
        """Return the set, with the images of each site that `drawn` keeps.

        Raises:
            DataError: there is no image, or one is there twice.
        """
        items: list[Item] = []
        ends_of = [np.cumsum([len(source) for source in sources], dtype=np.int64) for sources in self._sources]
        counts = [int(ends[-1]) if len(ends) else 0 for ends in ends_of]
        for sources, ends, chosen in zip(self._sources, ends_of, drawn(self.cutting, counts), strict=True):
            items += _built(sources, ends, chosen)
        n_all = sum(counts)
        notes = (*self.notes, *left_out_note(self.cutting, n_all - len(items), n_all))
        return SiteSet(self.name, tuple(self.sites), tuple(items), tuple(self.scenes), root=self.root, notes=notes)


def _built(sources: Sequence[_Source], ends: np.ndarray, chosen: np.ndarray) -> list[Item]:
    """Return images by their numbers over all sources of a site; `ends` says where each source ends."""
    owners = np.searchsorted(ends, chosen, side="right").tolist()
    return [
        sources[owner].item(number - int(ends[owner]) + len(sources[owner]))
        for owner, number in zip(owners, chosen.tolist(), strict=True)
    ]
