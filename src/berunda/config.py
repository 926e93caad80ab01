"""The options of a map run: one schema for the command line, the YAML files and the Python API.

Importing this file is cheap: it knows neither torch nor rasterio, and opens no file but a configuration.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml
from pydantic import Field

from berunda._version import __version__
from berunda.errors import ConfigError
from berunda.files import write_text
from berunda.schema import ClassMap, Options, PathList, PathText, Text, TextList, ValueMap
from berunda.yamlfile import read_mapping

__all__ = ["DASK", "DASK_ADDRESS", "DEVICE", "Effort", "MapConfig", "absolute_path", "dump_config", "load_config"]

Effort = Literal["quick", "standard", "thorough"]
DecoderName = Literal["unet", "slim", "slim4", "segnet"]

DASK_ADDRESS = r"^(local(:[1-9]\d{0,2})?|(tcp|tls)://[^\s/]+:\d{1,5})$"
DASK: Any = Field(
    None,
    pattern=DASK_ADDRESS,
    description="Map on a Dask cluster: its scheduler, or N processes of one core here. All workers must share the "
    "folders of scene and map.",
    json_schema_extra={
        "expected": "tcp://HOST:PORT, tls://HOST:PORT, local or local:N",
        "metavar": "ADDRESS|local:N",
    },
)
"""The option of every verb that maps."""

DEVICE: Any = Field(
    "auto",
    pattern=r"^(auto|cpu|cuda(:\d{1,2})?)$",
    description="Where to compute; auto takes CUDA where there is one.",
    json_schema_extra={"expected": "auto, cpu, cuda or cuda:N", "metavar": "NAME"},
)
"""The option of every verb that maps."""

_NOT_LOCAL = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*://|/vsi|<)")
_PX: Any = {"unit": "px"}
_FILE: Any = {"metavar": "FILE"}


class MapConfig(Options):
    """Every option of a map run, checked and unchangeable.

    Any wrong, unknown or missing option raises one `ConfigError` that names all of them. Paths are texts, so
    that a remote address stays what it is; `resolved` makes the local ones absolute.

    Example:
        >>> MapConfig(scenes=["scene.tif"], labels="polygons.gpkg", field="class").crop_px
        64
    """

    arguments: ClassVar[Mapping[str, str]] = {"scenes": "SCENE", "method_options": "--option"}

    scenes: PathList = Field((), description="Raster files or folders: bands of one scene, or several scenes.")
    labels: PathText | None = Field(
        None,
        description="Polygons (GeoPackage, GeoJSON, shapefile) or a label raster.",
        json_schema_extra=_FILE,
    )
    field: Text | None = Field(None, description="Attribute of the polygons that holds the class.")
    classes: ClassMap = Field(
        default_factory=dict,
        description="Classes to merge, rename or (nothing after the =) drop; classes not named stay.",
        json_schema_extra={"expected": "old=new pairs of class names", "metavar": "OLD=NEW,..."},
    )
    bands: TextList | None = Field(None, description="Bands to use, by name; or names for all bands, in order.")
    mask: PathText | None = Field(
        None,
        description="Raster whose non-zero pixels are left out, such as clouds.",
        json_schema_extra=_FILE,
    )
    zero_is_class: bool = Field(False, description="In a label raster, 0 is a class and not 'unlabelled'.")

    drop_labels_where: str | None = Field(
        None,
        pattern=r"^\s*[^<>=\s]+\s*[<>]\s*[-+0-9.eE]+\s*$",
        description="Leave out polygons whose median in a band passes a bound, such as cloud: B02>1800.",
        json_schema_extra={"expected": "BAND>NUMBER or BAND<NUMBER", "metavar": "BAND>N"},
    )

    method: str = Field(
        "cotrain",
        pattern=r"^[a-z][a-z0-9_]{0,63}$",
        description="Method of learning; `berunda methods` lists them.",
        json_schema_extra={"expected": "a name that `berunda methods` lists", "metavar": "NAME"},
    )
    method_options: ValueMap = Field(
        default_factory=dict,
        description="Hyper-parameters of the method that differ from their defaults.",
        json_schema_extra={"expected": "name=value pairs of a number, a text, true or false", "many": True},
    )
    effort: Effort = Field("standard", description="Length of training: about 2, 6 or 30 minutes on two cores.")
    steps: int | None = Field(None, ge=1, le=1_000_000, description="Training steps, instead of the effort's.")
    encoder: str = Field(
        "efficientnet_lite0",
        pattern=r"^[A-Za-z0-9_.-]{1,100}$",
        description="Encoder: the packaged one, or a name that timm knows.",
        json_schema_extra={"expected": "a name that timm knows", "metavar": "NAME"},
    )
    pretrained: bool = Field(
        True,
        description="Start the encoder from pretrained weights; those of an encoder that is not packaged are fetched.",
    )
    encoder_depth: int = Field(3, ge=1, le=5, description="Stages of the encoder in use.")
    decoder: DecoderName | None = Field(
        None,
        description="Decoder of the net, by default what the method is best with: slim costs about half of a U-Net's "
        "step, slim4 less still; segnet goes with --encoder vgg16_bn.",
    )
    crop_px: int = Field(64, ge=32, le=1024, description="Side of a training image.", json_schema_extra=_PX)
    seed: int = Field(0, ge=0, le=2**63 - 1, description="Seed of every random choice.")
    compare: bool = Field(False, description="Also train the random forest and the supervised net, for comparison.")
    refit: bool = Field(False, description="Train again on all labels after the evaluation; the report says so.")

    block_px: int | None = Field(
        None,
        ge=32,
        le=65536,
        description="Side of a block of the evaluation split; if not given 128 (at least a training image), halved "
        "until ten blocks hold labels.",
        json_schema_extra=_PX,
    )
    test_share: float = Field(0.3, ge=0.05, le=0.9, description="Share of the blocks that training never sees.")
    polygons_per_class: int | None = Field(
        None, ge=1, description="Train on this many polygons of each class; all if not given."
    )

    workers: int = Field(
        1, ge=1, le=256, description="Tiles mapped at a time, by threads; the map does not depend on it."
    )
    tile_px: int = Field(
        1024,
        ge=64,
        le=16384,
        description="Side of a tile mapped at once; the map does not depend on it.",
        json_schema_extra=_PX,
    )
    dask: str | None = DASK
    device: str = DEVICE
    allow_remote: bool = Field(False, description="Let scenes be read over the network.")
    synthetic: bool = Field(False, description="Make a toy landscape with known truth instead of reading a scene.")

    @classmethod
    def conflicts(cls, data: Mapping[str, Any], flags: bool) -> list[str]:
        """Return the problems between options; when one of them is wrong, `data` holds the values as given."""
        return _missing_or_needless(data, flags) + _given_twice(data, flags) + _block_too_small(data, flags)

    def resolved(self, base: Path | None = None) -> MapConfig:
        """Return a copy whose local paths are absolute, taken from `base` (by default the current folder)."""
        folder = Path.cwd() if base is None else base
        return self.replaced(
            scenes=tuple(absolute_path(text, folder) for text in self.scenes),
            labels=None if self.labels is None else absolute_path(self.labels, folder),
            mask=None if self.mask is None else absolute_path(self.mask, folder),
        )


def load_config(path: Path | str) -> MapConfig:
    """Return the configuration in the YAML file at `path`; relative paths count from the file's folder.

    Raises:
        ConfigError: the file cannot be read, or options in it are unknown, wrong or missing (all are named).
        SecurityError: the file is too large, or uses anchors, aliases or tags.
    """
    path = Path(path)
    return MapConfig.make(read_mapping(path), where=str(path)).resolved(path.absolute().parent)


def dump_config(config: Options, path: Path | str, *, verb: str = "map --config") -> None:
    """Write every option to the YAML file at `path`, whole or not at all; `load_config` reads those of a map back.

    Args:
        config: the options.
        path: the file.
        verb: what repeats the run, followed by the file, for the comment at the head.

    Raises:
        OutputError: the file cannot be written.
    """
    path = Path(path)
    text = f"# Written by Berunda {__version__}. Repeat the run: berunda {verb} {path.name} --out DIR\n"
    text += yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=False, width=110)
    write_text(path, text)


def absolute_path(text: str, folder: Path) -> str:
    """Return the local path `text` made absolute from `folder`; addresses and the like stay as they are.

    Raises:
        ConfigError: no home folder is known for a path that begins with ~.
    """
    if _NOT_LOCAL.match(text):
        return text
    try:
        return os.path.normpath(folder / Path(text).expanduser())
    except RuntimeError as error:
        user = Path(text).parts[0]
        raise ConfigError(f"{text}: no home folder is known for {user!r}; write the path out, or ./{text}") from error


def _missing_or_needless(data: Mapping[str, Any], flags: bool) -> list[str]:
    names = {key: MapConfig.spell(key, flags) for key in MapConfig.model_fields}
    if data.get("synthetic") is True:
        return [
            f"{names[key]}: found with {names['synthetic']}, which makes its own; leave one of them out"
            for key in ("scenes", "labels", "mask")
            if data.get(key)
        ]
    problems = []
    if not data.get("scenes"):
        problems.append(f"{names['scenes']}: found none, expected at least one raster file or folder")
    if not data.get("labels"):
        problems.append(f"{names['labels']}: found none, expected a vector file or a label raster")
    return problems


def _given_twice(data: Mapping[str, Any], flags: bool) -> list[str]:
    problems = []
    for key in ("scenes", "bands"):
        values = data.get(key)
        items = values if isinstance(values, list | tuple) else ()
        texts = [os.fspath(item) for item in items if isinstance(item, str | os.PathLike)]
        twice = sorted({text for text in texts if texts.count(text) > 1})
        if twice:
            problems.append(f"{MapConfig.spell(key, flags)}: found {', '.join(twice)} twice; keep one of them")
    return problems


def _block_too_small(data: Mapping[str, Any], flags: bool) -> list[str]:
    block, crop = (data.get(key, MapConfig.model_fields[key].default) for key in ("block_px", "crop_px"))
    if not isinstance(block, int) or not isinstance(crop, int) or block >= crop:
        return []
    names = [MapConfig.spell(key, flags) for key in ("block_px", "crop_px")]
    return [
        f"{names[0]}: found {block} px, expected at least {names[1]} ({crop} px), "
        "so that training images fit between the test blocks"
    ]
