"""Sites: named places with their images, each image a file of its own, a window of a scene or a row of an array."""

from __future__ import annotations

import difflib
import fnmatch
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from berunda.data.images import ImageSet
from berunda.errors import ConfigError, DataError
from berunda.geo.grid import Window
from berunda.geo.raster import Scene

__all__ = ["NO_ROLE", "ROLES", "Item", "Site", "SiteSet", "role_of"]

ROLES = ("labelled", "unlabelled", "test")
"""What a site is for: its labels train, only its images do, or it is kept for the test."""

NO_ROLE = ""

_WORDS = {
    "labelled": (
        "labelled",
        "labeled",
        "train",
        "training",
        "labelled_train",
        "labeled_train",
        "val",
        "valid",
        "validation",
    ),
    "unlabelled": ("unlabelled", "unlabeled", "unlabelled_train", "unlabeled_train"),
    "test": ("test", "testing"),
}


@dataclass(frozen=True)
class Site:
    """A place.

    Attributes:
        name: unique within the set.
        role: one of `ROLES`, or "" where none was said.
        group: the data set it comes from, where two are compared; "" else.
        resolution_m: side of a pixel of images without georeference, in metres; None where it is not known.
    """

    name: str
    role: str = NO_ROLE
    group: str = ""
    resolution_m: float | None = None


@dataclass(frozen=True)
class Item:
    """One image of a site.

    Attributes:
        name: unique within the set.
        site: index of its site.
        path: the file; of an image that is a row of an array or a window of a scene, what stands for it.
        scene: index of the scene that `window` lies in, or of the array that `row` lies in; -1 for an image file.
        window: pixels of the scene; None for an image file.
        row: row of the array of images; -1 where it lies in none.
        label: name of the class of the whole image, "" where it has none.
        truth: raster of classes on the image's grid; None where there is none.
        ignored: values of that raster which are no class.
    """

    name: str
    site: int
    path: Path
    scene: int = -1
    window: Window | None = None
    row: int = -1
    label: str = ""
    truth: Path | None = None
    ignored: tuple[int, ...] = ()


@dataclass(frozen=True)
class SiteSet:
    """All sites of a data set, and their images.

    Attributes:
        name: of the data set.
        sites: in order.
        items: all images, those of one site behind one another.
        scenes: the scenes that windows refer to.
        arrays: the decoded images that rows refer to.
        root: the folder that names count from; None for scenes.
        notes: what a reader should know of how the images were found.
    """

    name: str
    sites: tuple[Site, ...]
    items: tuple[Item, ...]
    scenes: tuple[Scene, ...] = ()
    arrays: tuple[ImageSet, ...] = ()
    root: Path | None = None
    notes: tuple[str, ...] = ()
    _site_of: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check that there is something, and that no name is there twice.

        Raises:
            DataError: there is no image, or a site or an image is named twice.
        """
        if not self.items:
            raise DataError(f"data set {self.name}: no image found, expected some; check the folder or the table")
        for what, names in (("site", [s.name for s in self.sites]), ("image", [i.name for i in self.items])):
            name, n = Counter(names).most_common(1)[0]
            if n > 1:
                raise DataError(f"data set {self.name}: {what} {name!r} is there {n} times, expected once; rename one")
        of = np.array([item.site for item in self.items], np.int64)
        of.flags.writeable = False
        object.__setattr__(self, "_site_of", of)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.items)

    @property
    def site_of(self) -> np.ndarray:
        """Index of the site of each image, (N,) int64."""
        return self._site_of

    @property
    def site_names(self) -> tuple[str, ...]:
        """Names of the sites, in order."""
        return tuple(site.name for site in self.sites)

    @property
    def counts(self) -> np.ndarray:
        """Images of each site, (S,)."""
        return np.bincount(self._site_of, minlength=len(self.sites))

    def of_role(self, role: str) -> np.ndarray:
        """Return the indices of the sites with this role, ascending."""
        return np.array([i for i, site in enumerate(self.sites) if site.role == role], np.int64)

    def items_of(self, sites: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the indices of the images of some sites, ascending."""
        return np.flatnonzero(np.isin(self._site_of, np.asarray(sites, np.int64)))

    def subset(self, index: np.ndarray) -> SiteSet:
        """Return the set with some images only; sites that lose all of theirs stay, empty.

        Args:
            index: (n,) indices of images, ascending.
        """
        return replace(self, items=tuple(self.items[int(i)] for i in index))

    def with_roles(
        self, roles: Mapping[str, Sequence[str]], option: str = "--", *, others: str = "unlabelled"
    ) -> SiteSet:
        """Return the set with sites assigned to roles.

        Args:
            roles: role -> names of sites, or patterns with * and ?. Of two data sets, a name that no site has stands
                for the sites that had it before they were joined.
            option: how the reader gives them, for messages.
            others: role of sites that none names and that have none, in data sets of which a site is named.

        Raises:
            ConfigError: a name is that of no site, or a site is named in two roles.
        """
        wanted: dict[int, str] = {}
        for role, names in roles.items():
            for name in names:
                for index in self._named(name, f"{option}{role}"):
                    if wanted.setdefault(index, role) != role:
                        raise ConfigError(
                            f"site {self.sites[index].name!r} is named by {option}{wanted[index]} and {option}{role}; "
                            "expected one role of each site"
                        )
        if not wanted:
            return self
        groups = {self.sites[i].group for i in wanted}
        sites = []
        for index, site in enumerate(self.sites):
            default = site.role or (others if site.group in groups else NO_ROLE)
            sites.append(replace(site, role=wanted.get(index, default)))
        return replace(self, sites=tuple(sites))

    def joined(self, other: SiteSet) -> SiteSet:
        """Return this set and another as one; names that both have are told apart by the sets' names."""
        names, taken = {self.name, other.name}, {*self.site_names} & {*other.site_names}
        titles = (self.name, other.name) if len(names) == 2 else (f"{self.name} (1)", f"{other.name} (2)")
        sites: list[Site] = []
        items: list[Item] = []
        for title, part, n_scenes, n_arrays in (
            (titles[0], self, 0, 0),
            (titles[1], other, len(self.scenes), len(self.arrays)),
        ):
            first = len(sites)
            sites += [
                replace(s, group=title, name=f"{title}/{s.name}" if s.name in taken else s.name) for s in part.sites
            ]
            items += [
                replace(
                    item,
                    name=f"{title}/{item.name}",
                    site=item.site + first,
                    scene=item.scene if item.scene < 0 else item.scene + (n_arrays if item.row >= 0 else n_scenes),
                )
                for item in part.items
            ]
        return SiteSet(
            f"{titles[0]} and {titles[1]}",
            tuple(sites),
            tuple(items),
            (*self.scenes, *other.scenes),
            (*self.arrays, *other.arrays),
            notes=(*self.notes, *other.notes),
        )

    def _named(self, name: str, option: str) -> list[int]:
        own = [site.name.removeprefix(f"{site.group}/") for site in self.sites]
        found = [i for i, site in enumerate(self.site_names) if fnmatch.fnmatchcase(site, name)]
        found = found or [i for i, site in enumerate(own) if fnmatch.fnmatchcase(site, name)]
        if not found:
            near = difflib.get_close_matches(name, self.site_names, n=1, cutoff=0.4)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            shown = ", ".join(self.site_names[:8]) + (", ..." if len(self.sites) > 8 else "")
            raise ConfigError(f"{option}: found {name!r}, expected the name of a site: {shown}{hint}")
        return found


def role_of(word: str, where: str) -> str:
    """Return the role that a word of a table or a folder's name means; "" for the empty word.

    Raises:
        DataError: it means none.

    Example:
        >>> role_of("train", "sites.csv row 2")
        'labelled'
    """
    text = word.strip().lower()
    if not text:
        return NO_ROLE
    for role, words in _WORDS.items():
        if text in words:
            return role
    expected = ", ".join(ROLES)
    raise DataError(f"{where}: role {word.strip()!r} found, expected one of {expected} (train counts as labelled)")
