"""The options of an analysis of sites, and of a split of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from berunda.config import DEVICE, absolute_path
from berunda.options import shared
from berunda.schema import Options, PathList, PathText, Text, TextList

__all__ = ["AnalyzeOptions", "SiteOptions", "SplitOptions"]

_PX: Any = {"unit": "px"}
_FILE: Any = {"metavar": "FILE"}
_SITES: Any = {"metavar": "SITE,...", "expected": "names of sites, or patterns with * and ?, separated by commas"}


class SiteOptions(Options):
    """What every look at sites takes: how images are found, labelled and described."""

    labelled: TextList | None = Field(None, description="Sites whose labels train.", json_schema_extra=_SITES)
    unlabelled: TextList | None = Field(
        None, description="Sites whose images train without labels; a split keeps them so.", json_schema_extra=_SITES
    )
    test: TextList | None = Field(None, description="Sites kept for the test.", json_schema_extra=_SITES)
    labels: PathText | None = Field(
        None, description="Polygons or a raster of classes over the scenes.", json_schema_extra=_FILE
    )
    field: Text | None = Field(None, description="Attribute of the polygons that holds the class.")
    zero_is_class: bool = Field(False, description="In a raster of classes, 0 is a class and not 'unlabelled'.")
    bands: TextList | None = Field(None, description="Bands to use, by name; or names for all bands, in order.")
    block_px: int = Field(
        64,
        ge=16,
        le=4096,
        description="Side of the blocks that scenes and large rasters are cut into; each is an image.",
        json_schema_extra=_PX,
    )
    site_px: int | None = Field(
        None,
        ge=16,
        le=1_000_000,
        description="Side of the sites that a single scene is cut into; about four by four if not given.",
        json_schema_extra=_PX,
    )
    max_per_site: int = Field(
        2000, ge=3, le=1_000_000, description="Images of a site that are looked at, drawn by seed."
    )
    encoder: str = shared.ENCODER
    pretrained: bool = shared.PRETRAINED
    image_px: int = Field(
        128,
        ge=32,
        le=1024,
        description="Side at which the encoder sees every image.",
        json_schema_extra=_PX,
    )
    nu: float = Field(0.05, gt=0, le=1, description="Share of a site's images that its support may leave out, about.")
    min_valid: float = Field(
        0.5, ge=0, le=1, description="Share of an image's pixels that must hold data; images with less are left out."
    )
    skip_broken: bool = Field(False, description="Leave out images that cannot be read; they are counted and named.")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="Seed of every random choice.")
    device: str = DEVICE

    @property
    def roles(self) -> dict[str, tuple[str, ...]]:
        """Role -> names of its sites, of the roles that were given."""
        given = {"labelled": self.labelled, "unlabelled": self.unlabelled, "test": self.test}
        return {role: names for role, names in given.items() if names}


class AnalyzeOptions(SiteOptions):
    """Every option of `berunda analyze`.

    Example:
        >>> AnalyzeOptions(inputs=["sites"]).perplexity
        30.0
    """

    arguments: ClassVar[Mapping[str, str]] = {"inputs": "DATASET_OR_SCENES...", "compare_with": "--with"}

    inputs: PathList = Field(
        min_length=1,
        description="A folder with one sub-directory a site, a .csv table (site, path, role, label), scenes, or the "
        "name of a data set of images with classes that `berunda datasets` lists.",
    )
    compare_with: PathText | None = Field(
        None,
        description="Another data set to show in the same plane, both at one ground resolution; roles hold for both.",
        json_schema_extra={"metavar": "DATASET"},
    )
    resolution: float | None = Field(
        None,
        gt=0,
        le=100_000,
        description="Side of a pixel of the first data set, where its files have no georeference in metres.",
        json_schema_extra={"unit": "m"},
    )
    with_resolution: float | None = Field(
        None,
        gt=0,
        le=100_000,
        description="Side of a pixel of the data set of --with, where its files have no georeference in metres.",
        json_schema_extra={"unit": "m"},
    )
    common_resolution: float | None = Field(
        None,
        gt=0,
        le=100_000,
        description="Resolution that both are brought to, the coarser one or more; the coarser one if not given.",
        json_schema_extra={"unit": "m"},
    )
    perplexity: float = Field(30.0, ge=2, le=500, description="Neighbours that count in the plane, about.")
    gamma: float = Field(
        4.0,
        gt=0,
        le=10_000,
        description="Sharpness of the supports' kernel, on a plane of mean variance 1; more follows single images.",
    )
    label_next: int = Field(20, ge=0, le=100_000, description="Images to rank for labelling next.")
    bundle: PathText | None = Field(
        None,
        description="Model whose uncertainty counts in that ranking.",
        json_schema_extra={"metavar": "BUNDLE"},
    )
    uncertainty_weight: float = Field(0.5, ge=0, le=1, description="How much it counts there.")

    @classmethod
    def conflicts(cls, data: Mapping[str, Any], flags: bool) -> list[str]:
        """Return the problem of a resolution of nothing."""
        if data.get("compare_with") is not None:
            return []
        names = ("resolution", "with_resolution", "common_resolution")
        given = [cls.spell(name, flags) for name in names if data.get(name) is not None]
        return [f"{name}: found without {cls.spell('compare_with', flags)}, expected both" for name in given]

    def resolved(self) -> AnalyzeOptions:
        """Return a copy whose paths are absolute, so that it can be repeated from anywhere."""
        folder = Path.cwd()

        def absolute(text: str | None) -> str | None:
            return absolute_path(text, folder) if text is not None and Path(text).exists() else text

        return self.replaced(
            inputs=tuple(absolute(text) or text for text in self.inputs),
            compare_with=absolute(self.compare_with),
            labels=absolute(self.labels),
            bundle=absolute(self.bundle),
        )


class SplitOptions(SiteOptions):
    """Every option of `berunda split` beside `--audit`.

    Example:
        >>> SplitOptions(inputs=["sites"]).test_share
        0.25
    """

    arguments: ClassVar[Mapping[str, str]] = {"inputs": "SITES..."}

    inputs: PathList = Field(
        (),
        description="A folder with one sub-directory a site, a .csv table (site, path, label), or scenes.",
    )
    n_labelled: int | None = Field(
        None, ge=1, le=100_000, description="Sites to label; a quarter of them if not given."
    )
    n_test: int | None = Field(None, ge=1, le=100_000, description="Sites to test on, instead of --test-share.")
    test_share: float = Field(0.25, gt=0, lt=1, description="Share of the sites to test on.")
    buffer_px: int | None = Field(
        None,
        ge=0,
        le=100_000,
        description="Least distance between a test image and one that trains; half a block if not given.",
        json_schema_extra=_PX,
    )
