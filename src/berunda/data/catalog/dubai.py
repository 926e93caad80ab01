"""Semantic segmentation of aerial imagery of Dubai: 72 images in colour with masks, 8 tiles, 5 classes."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from berunda.data.catalog.contract import Download, Entry
from berunda.data.listing import Listing
from berunda.data.masks.folder import list_folder, place_of
from berunda.data.masks.listing import MaskListing
from berunda.data.masks.schema import MaskSchema
from berunda.errors import ConfigError, DataError
from berunda.models.spec import Task

__all__ = ["Dubai"]

TEST_TILES = ("Tile 3", "Tile 6")


class Dubai(Entry):
    """Dubai, masks by Humans in the Loop, 2020: `Tile N/images/` and `Tile N/masks/`.

    The colours are those found in the masks; the data set's own `classes.json` gives others. "Unlabeled" and black are
    ignored. Parts of one tile are neighbours, so whole tiles are split: 3 and 6 test, the other six train. Nothing
    validates.
    """

    name = "dubai"
    title = "Semantic segmentation of aerial imagery, Dubai"
    tasks = ("segmentation",)
    folders = ("dubai_aerial", "dubai")
    about = "72 aerial images in colour, 509x544 to 2149x1480 px, 8 tiles, 5 classes"
    licence = "published as CC0 1.0 (Humans in the Loop, 2020, with the Mohammed Bin Rashid Space Centre)"
    downloads = (
        Download(
            "Semantic segmentation dataset",
            "https://humansintheloop.org/resources/datasets/semantic-segmentation-dataset-2/",
        ),
    )
    schema: ClassVar[MaskSchema] = MaskSchema.of_colors(
        {
            "#3c1098": "building",
            "#8429f6": "land (unpaved)",
            "#6ec1e4": "road",
            "#fedd3a": "vegetation",
            "#e2a929": "water",
        },
        ("#9b9b9b", "#000000"),
    )

    def is_here(self, root: Path) -> bool:
        """Say whether there is a tile with images."""
        return (root / "Tile 1" / "images").is_dir() or any(
            (place := place_of(path.relative_to(root).as_posix())) is not None and place.site.startswith("Tile ")
            for path in root.glob("Tile */images/*")
        )

    def list_samples(self, root: Path, task: Task) -> Listing:
        """Refuse: there are no labels of whole images."""
        raise ConfigError(f"data set {self.name}: task {task!r} found, expected segmentation; {root}")

    def list_masks(self, root: Path) -> MaskListing:
        """Return the images of the eight tiles."""
        listing = list_folder(root, self.name, self.schema, TEST_TILES)
        if not any(sample.site not in TEST_TILES for sample in listing.samples):
            raise DataError(f"data set {self.name}: only test tiles found in {root}, expected Tiles 1 to 8")
        return listing
