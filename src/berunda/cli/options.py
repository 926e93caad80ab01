"""Options of the verbs that are no map run, checked before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from berunda.config import DASK, DEVICE
from berunda.schema import ClassMap, Options, PathList, PathText, Text, TextList

__all__ = [
    "AssessOptions",
    "DatasetsOptions",
    "DemoOptions",
    "DoctorOptions",
    "GenerateOptions",
    "InfoOptions",
    "InpaintOptions",
    "MethodsOptions",
    "PredictOptions",
]

_FOLDER: Any = {"metavar": "DIR"}
_FILE: Any = {"metavar": "FILE"}
_SEED: Any = Field(0, ge=0, le=2**63 - 1, description="Taken as by every verb, but nothing here is random.")


class DemoOptions(Options):
    """What `berunda demo` takes."""

    out: PathText = Field(description="Folder for the map, the report and the model.", json_schema_extra=_FOLDER)
    seed: int = Field(0, ge=0, le=2**63 - 1, description="Seed of every random choice.")
    synthetic: bool = Field(False, description="A made-up landscape instead of the real scene; needs no network.")


class PredictOptions(Options):
    """What `berunda predict` takes."""

    arguments: ClassVar[Mapping[str, str]] = {"bundle": "BUNDLE", "scenes": "SCENE...", "stride_px": "--stride"}

    bundle: PathText = Field(description="Model folder that a map run or a training wrote (DIR/model).")
    scenes: PathList = Field(
        min_length=1,
        description="Raster files or folders to map; with a model for whole images also images, or folders of them.",
    )
    out: PathText = Field(description="Folder for the maps, or for predictions.csv.", json_schema_extra=_FOLDER)
    bands: TextList | None = Field(
        None, description="Names of the scene's bands, in order, where the files do not carry them."
    )
    mask: PathText | None = Field(
        None,
        description="Raster whose non-zero pixels become nodata, such as clouds.",
        json_schema_extra=_FILE,
    )
    workers: int = Field(
        1, ge=1, le=256, description="Tiles mapped at a time, by threads; the map does not depend on it."
    )
    tile_px: int = Field(
        1024,
        ge=64,
        le=16384,
        description="Side of a tile mapped at once; the map does not depend on it.",
        json_schema_extra={"unit": "px"},
    )
    stride_px: int | None = Field(
        None,
        ge=1,
        le=8192,
        description="Model for whole images: from one patch of the scene to the next; a patch's side if not given.",
        json_schema_extra={"unit": "px"},
    )
    skip_broken: bool = Field(False, description="Leave out images that cannot be read; they are counted.")
    dask: str | None = DASK
    device: str = DEVICE
    allow_remote: bool = Field(False, description="Let scenes be read over the network.")
    seed: int = _SEED


class GenerateOptions(Options):
    """What `berunda generate` takes."""

    arguments: ClassVar[Mapping[str, str]] = {"bundle": "BUNDLE", "class_name": "--class", "n": "-n"}

    bundle: PathText = Field(description="Model folder of a generative method (DIR/model).")
    class_name: Text | None = Field(None, description="The class of the images; every class if not given.")
    n: int = Field(16, ge=1, le=100_000, description="Images of each class.")
    out: PathText = Field(description="Folder for samples.png and the GeoTIFFs.", json_schema_extra=_FOLDER)
    compare: PathText | None = Field(
        None,
        description="Folder of real images; how far all that is drawn is from them goes into comparison.json.",
        json_schema_extra=_FOLDER,
    )
    features: Text = Field(
        "inception",
        description="Encoder whose features --compare rests on: inception (FID and KID; its weights are fetched), "
        "efficientnet_lite0 (no network), or one of timm's; distances bear its name.",
    )
    device: str = DEVICE
    seed: int = Field(0, ge=0, le=2**63 - 1, description="Seed of the draws.")

    @classmethod
    def conflicts(cls, data: Mapping[str, Any], flags: bool) -> list[str]:
        """Return what is wrong with an encoder that nothing is compared by."""
        if data.get("compare") is not None or data.get("features", "inception") == "inception":
            return []
        return [
            f"{cls.spell('features', flags)}: found {data['features']!r} without images to compare with, expected "
            f"{cls.spell('compare', flags)} as well"
        ]


class InpaintOptions(Options):
    """What `berunda inpaint` takes."""

    arguments: ClassVar[Mapping[str, str]] = {"bundle": "BUNDLE", "scene": "SCENE..."}

    bundle: PathText = Field(description="Model folder of a method that can fill gaps, such as jem or ssl_mae.")
    scene: PathList = Field(
        min_length=1, description="Raster file, or the files of one scene's bands, or their folder."
    )
    mask: PathText = Field(
        description="Raster whose non-zero pixels are filled, such as clouds.", json_schema_extra=_FILE
    )
    out: PathText = Field(description="GeoTIFF to write.", json_schema_extra=_FILE)
    bands: TextList | None = Field(
        None, description="Names of the scene's bands, in order, where the files do not carry them."
    )
    device: str = DEVICE
    seed: int = Field(0, ge=0, le=2**63 - 1, description="Seed of the draws, of methods that draw what they fill.")


class AssessOptions(Options):
    """What `berunda assess` takes."""

    arguments: ClassVar[Mapping[str, str]] = {"map_path": "MAP"}

    map_path: PathText = Field(description="map.tif of a map run.")
    reference: PathText = Field(
        description="Reference polygons, points or raster, unseen in training.", json_schema_extra=_FILE
    )
    field: Text | None = Field(None, description="Attribute of the reference that holds the class.")
    out: PathText = Field(description="Folder for the accuracy report.", json_schema_extra=_FOLDER)
    design: Literal["random", "stratified"] | None = Field(
        None,
        description="How the reference was sampled; with it areas are estimated, without it only agreement.",
    )
    classes: ClassMap = Field(
        default_factory=dict,
        description="Reference classes to merge, rename or (nothing after the =) drop.",
        json_schema_extra={"expected": "old=new pairs of class names", "metavar": "OLD=NEW,..."},
    )
    zero_is_class: bool = Field(False, description="In a reference raster, 0 is a class and not 'unlabelled'.")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="Seed of the draws behind the intervals.")


class InfoOptions(Options):
    """What `berunda info` takes."""

    arguments: ClassVar[Mapping[str, str]] = {"path": "BUNDLE_OR_SCENE"}

    path: PathText = Field(description="Model folder, raster file or folder of rasters.")
    seed: int = _SEED


class MethodsOptions(Options):
    """What `berunda methods` takes."""

    arguments: ClassVar[Mapping[str, str]] = {"name": "METHOD"}

    name: Text | None = Field(None, description="Show the hyper-parameters of this method.")
    seed: int = _SEED


class DatasetsOptions(Options):
    """What `berunda datasets` takes."""

    arguments: ClassVar[Mapping[str, str]] = {"name": "DATASET"}

    name: Text | None = Field(None, description="Show where this data set is, or where to get it.")
    fetch: bool = Field(False, description="Fetch its files over the network, where their checksums are known.")
    build_from: PathText | None = Field(
        None,
        description="Build tinyminifrance from the folder of MiniFrance.",
        json_schema_extra=_FOLDER,
    )
    into: PathText | None = Field(None, description="With --build-from: the folder for it.", json_schema_extra=_FOLDER)
    seed: int = Field(0, ge=0, le=2**63 - 1, description="Seed of the draw of --build-from.")


class DoctorOptions(Options):
    """What `berunda doctor` takes."""

    seed: int = _SEED
