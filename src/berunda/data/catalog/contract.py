"""The contract of a data set in the catalogue: facts about it, and how its published layout is read.

A file of this folder defines one class that derives from `Entry` and whose `name` is the file's. Nothing else has to
be told of it.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from berunda.cache import cache_folder
from berunda.data.images import TEST, UNLABELLED
from berunda.data.listing import PHOTO_SUFFIXES, File, Listing, Sample, files_of, labels_of, split_by_name
from berunda.data.masks.listing import MaskListing, MaskPlace, MaskSample, archives_and_files
from berunda.data.masks.schema import MaskSchema
from berunda.errors import ConfigError, DataError
from berunda.models.spec import Task

__all__ = ["ClassFolders", "Download", "Entry", "MaskEntry"]


@dataclass(frozen=True)
class Download:
    """A file as it is published.

    Attributes:
        file: its name on disk.
        url: where it can be had; a page when there is no direct address.
        checksum: "md5:..." or "sha256:..."; None where none is known for certain: such a file is never fetched, but may
            be put in place by hand.
    """

    file: str
    url: str
    checksum: str | None = None


class Entry(ABC):
    """One data set. The facts are class attributes; the two methods read its layout.

    Attributes:
        name: as `--data-set` takes it; the name of the file.
        title: one line for people.
        tasks: the tasks it has labels for; the first one where none is asked for and the data does not tell.
        folders: usual names of its folder below `BERUNDA_DATA`, first one preferred.
        about: size and number of its images, in words.
        licence: what is known of it, and what to cite.
        downloads: where its files can be had.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    tasks: ClassVar[tuple[Task, ...]] = ("scene",)
    folders: ClassVar[tuple[str, ...]] = ()
    about: ClassVar[str] = ""
    licence: ClassVar[str] = ""
    downloads: ClassVar[tuple[Download, ...]] = ()

    @abstractmethod
    def is_here(self, root: Path) -> bool:
        """Say whether `root` (a folder, or an archive or table) looks as if it held the data set; reads no image."""

    @abstractmethod
    def list_samples(self, root: Path, task: Task) -> Listing:
        """Return the images below `root`, where `is_here`, with the labels for `task`, one of `tasks`.

        Raises:
            DataError, SecurityError: the layout is not as published, or refused.
        """

    def list_masks(self, root: Path) -> MaskListing:
        """Return the images below `root`, where `is_here`, with their masks; for data sets that serve segmentation.

        Raises:
            DataError, SecurityError: the layout is not as published, or refused.
        """
        raise ConfigError(f"data set {self.name}: serves {', '.join(self.tasks)}, expected one with masks; {root}")

    def task_of(self, root: Path) -> Task:
        """Return the task that the data below `root` has labels for, where none is asked for."""
        del root
        return self.tasks[0]

    def mask_listing(self, root: Path) -> MaskListing:
        """Return the images below `root` with their masks.

        Raises:
            ConfigError: the data set has no masks.
            DataError, SecurityError: the layout is not as published, or refused.
        """
        if "segmentation" not in self.tasks:
            raise ConfigError(
                f"data set {self.name}: task 'segmentation' found, expected one of {', '.join(self.tasks)}; it has no "
                "masks"
            )
        return self.list_masks(root)

    def listing(self, root: Path, task: Task | None = None) -> Listing:
        """Return the images below `root` with the labels for `task`, the first of `tasks` where None.

        Raises:
            ConfigError: the data set has no labels for this task.
            DataError, SecurityError: the layout is not as published, or refused.
        """
        if task is not None and task not in self.tasks:
            raise ConfigError(f"data set {self.name}: task {task!r} found, expected one of {', '.join(self.tasks)}")
        wanted = task or self.tasks[0]
        if wanted == "segmentation":
            raise ConfigError(
                f"data set {self.name}: has one class a pixel, expected labels of whole images; to compare its sites, "
                f"give instead of its name the folder with one sub-directory a site ({root}, or below it)"
            )
        return self.list_samples(root, wanted)

    def places(self) -> tuple[Path, ...]:
        """Return the folders where the data set is looked for when none is named."""
        above = [Path(text).expanduser()] if (text := os.environ.get("BERUNDA_DATA", "").strip()) else []
        return tuple(place / folder for place in (*above, cache_folder() / "datasets") for folder in self.folders)

    def locate(self, folder: Path | None = None) -> Path | None:
        """Return where the data set lies: `folder`, else the first of `places` that holds it; None if nowhere."""
        looked = self.places() if folder is None else (folder,)
        return next((place for place in looked if place.exists() and self.is_here(place)), None)

    def is_present(self, folder: Path | None = None) -> bool:
        """Say whether the data set can be opened from `folder`, or from where it is looked for."""
        return self.locate(folder) is not None

    def missing(self, folder: Path | None = None) -> DataError:
        """Return the error that says what to fetch, from where, into which folder."""
        places = self.places() if folder is None else (folder,)
        wanted = "; ".join(
            f"{item.file} from {item.url} ({item.checksum or 'no checksum known'})" for item in self.downloads
        )
        looked = " nor in ".join(str(place) for place in places) or "a folder (none was named)"
        into = f"put into {places[0]}: {wanted}" if wanted and places else "name the folder that holds it with --data"
        return DataError(f"data set {self.name}: not found in {looked}; {into}")


class ClassFolders(Entry):
    """A data set of images in one folder a class, as a folder at any depth or as archives.

    Attributes:
        classes: names of the folders, in the order of the class numbers.
        archives: names that the archive has been published under.
        suffixes: of its images.
        bands: names of the bands.
        side_px: resample all images to this side, where the published ones differ; None where they do not.
    """

    classes: ClassVar[tuple[str, ...]]
    archives: ClassVar[tuple[str, ...]] = ()
    suffixes: ClassVar[tuple[str, ...]] = PHOTO_SUFFIXES
    bands: ClassVar[tuple[str, ...]] = ("red", "green", "blue")
    side_px: ClassVar[int | None] = None

    def is_here(self, root: Path) -> bool:
        """Say whether there is one of the archives, or a class folder with an image."""
        if root.is_file():
            return root.suffix.lower() == ".zip"
        return self._archive(root) is not None or any(self._is_image(path.parts) for path in _some_files(root))

    def _is_image(self, parts: Sequence[str]) -> bool:
        return len(parts) > 1 and parts[-2] in self.classes and os.path.splitext(parts[-1])[1].lower() in self.suffixes

    def _archive(self, root: Path) -> Path | None:
        if root.is_file():
            return root
        return next((root / name for name in self.archives if (root / name).is_file()), None)

    def files(self, root: Path) -> dict[str, File]:
        """Return the images by "class/name".

        Raises:
            DataError: two images have the same class and name.
        """
        found: dict[str, File] = {}
        for name, file in files_of(self._archive(root) or root, self.suffixes).items():
            parts = name.split("/")
            if not self._is_image(parts):
                continue
            short = "/".join(parts[-2:])
            if short in found:
                raise DataError(
                    f"data set {self.name}: image {short!r} is in {root} twice, the second time as {name!r}; "
                    "expected one copy of the data set"
                )
            found[short] = file
        if not found:
            raise DataError(
                f"data set {self.name}: no image {' or '.join(self.suffixes)} in a folder named like a class found in "
                f"{root}, expected folders {', '.join(self.classes[:3])}, ..."
            )
        return found

    def parts(self, root: Path, names: Sequence[str], labels: Sequence[int]) -> Sequence[int]:
        """Return the part of each image: 60/20/20 of each class by the sha256 of the file's name."""
        del root
        return split_by_name(names, labels).tolist()

    def list_samples(self, root: Path, task: Task) -> Listing:
        """Return the images with their folders as labels."""
        files = self.files(root)
        names = list(files)
        labels = labels_of(names, [name.split("/")[0] for name in names], self.classes, f"data set {self.name}")
        parts = self.parts(root, names, labels)
        samples = map(Sample, names, files.values(), labels, parts)
        return Listing(self.name, task, self.classes, tuple(samples), self.bands, self.side_px)


class MaskEntry(Entry):
    """A published data set of images with masks, as folders, or as archives in one folder.

    Attributes:
        schema: what the values or colours of its masks mean.
        archives: names that its archives are published under.
        above: folder that the members of an archive belong below, by the archive's name; "" where they bring their own.
        bands: names of the bands; empty where the files tell.
    """

    tasks: ClassVar[tuple[Task, ...]] = ("segmentation",)
    schema: ClassVar[MaskSchema]
    archives: ClassVar[tuple[str, ...]] = ()
    above: ClassVar[Mapping[str, str]] = {}
    bands: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def place_of(self, name: str) -> MaskPlace | None:
        """Return what the path of a file says by the published layout; None for a file that is of no use."""

    def is_here(self, root: Path) -> bool:
        """Say whether there is one of the archives, or a file in its published place."""
        if root.is_file():
            return root.name in self.archives
        if any((root / name).is_file() for name in self.archives):
            return True
        some = (path.relative_to(root).as_posix() for path in _some_files(root))
        return any(self.place_of(name) is not None for name in some)

    def list_samples(self, root: Path, task: Task) -> Listing:
        """Refuse: there are no labels of whole images."""
        raise ConfigError(f"data set {self.name}: task {task!r} found, expected segmentation; {root}")

    def schema_of(self, root: Path) -> MaskSchema:
        """Return what the masks below `root` mean."""
        del root
        return self.schema

    def list_masks(self, root: Path) -> MaskListing:
        """Return the images in their published places with their masks."""
        groups: dict[str, dict[str, tuple[str, File, MaskPlace]]] = {}
        for name, file in archives_and_files(root, self.archives, above=self.above).items():
            place = self.place_of(name)
            if place is None:
                continue
            group = groups.setdefault(place.key, {})
            if place.kind in group:
                raise DataError(
                    f"data set {self.name}: {group[place.kind][0]!r} and {name!r} are both the {place.kind} of "
                    f"{place.key!r}, expected one; remove one of them"
                )
            group[place.kind] = (name, file, place)
        samples = tuple(self._sample(key, group) for key, group in sorted(groups.items()))
        if not samples:
            raise DataError(f"data set {self.name}: no image in its published place found in {root}; {self.about}")
        return MaskListing(self.name, self.schema_of(root), self.kept(samples), self.bands)

    def kept(self, samples: tuple[MaskSample, ...]) -> tuple[MaskSample, ...]:
        """Return the images that serve: test images whose masks are not published cannot."""
        return tuple(s for s in samples if s.mask is not None or s.part != TEST)

    def _sample(self, key: str, group: Mapping[str, tuple[str, File, MaskPlace]]) -> MaskSample:
        parts = [group[kind] for kind in ("image", "elevation") if kind in group]
        if "image" not in group:
            name = next(iter(group.values()))[0]
            raise DataError(
                f"data set {self.name}: {name!r} has no image beside it, expected one as published ({key!r}); fetch "
                "the data set again"
            )
        name, _, place = group["image"]
        found = group.get("mask") or group.get("some_mask")
        mask = found[1] if found is not None and place.part != UNLABELLED else None
        return MaskSample(name, tuple(file for _, file, _ in parts), mask, place.part, place.site)


def _some_files(root: Path, depth: int = 8) -> Iterator[Path]:
    """Yield a few files of every folder below `root`: enough to recognise a layout by."""
    for folder, below, names in os.walk(root):
        below[:] = sorted(name for name in below if not name.startswith("."))
        if len(Path(folder).relative_to(root).parts) >= depth:
            below.clear()
        yield from (Path(folder, name) for name in sorted(names)[:20])
