"""The options of a training on a data set of images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from berunda.config import DEVICE, DecoderName, Effort, absolute_path
from berunda.options import shared
from berunda.schema import Options, PathText, ValueMap
from berunda.yamlfile import read_mapping

__all__ = ["TrainOptions", "is_config_file", "load_train_options"]


class TrainOptions(Options):
    """Every option of `berunda train`, checked and unchangeable.

    Example:
        >>> TrainOptions(dataset="eurosat", labels_per_class=5).method
        'fixmatch'
    """

    arguments: ClassVar[Mapping[str, str]] = {"dataset": "DATASET", "method_options": "--option"}

    dataset: PathText = Field(
        description="Data set: a name that `berunda datasets` lists, a folder with one sub-directory a class, or with "
        "images/ and masks/, a CSV file, or the YAML file of a run."
    )
    task: Literal["scene", "multilabel", "segmentation"] | None = Field(
        None,
        description="What is learned: scene, one class an image, multilabel, several, or segmentation, one a pixel; if "
        "not given what the data set has labels for.",
    )
    data: PathText | None = shared.DATA
    method: str = Field(
        "fixmatch",
        pattern=r"^[a-z][a-z0-9_]{0,63}$",
        description="Method of learning; `berunda methods` lists them.",
        json_schema_extra={"expected": "a name that `berunda methods` lists", "metavar": "NAME"},
    )
    method_options: ValueMap = Field(
        default_factory=dict,
        description="Hyper-parameters of the method that differ from their defaults.",
        json_schema_extra={"expected": "name=value pairs of a number, a text, true or false", "many": True},
    )
    labels_per_class: int | None = Field(
        None, ge=1, le=1_000_000, description="Labelled images of each class to train on; all if not given."
    )
    label_fraction: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Share of the training images whose labels are used, instead of a "
        "number; 1 also lets the labelled images serve as those without labels, where there are no others.",
    )
    labelled_images: int | None = Field(
        None, ge=1, le=1_000_000, description="With masks: labelled images to train on; all if not given."
    )
    effort: Effort = shared.EFFORT
    steps: int | None = shared.STEPS
    encoder: str = shared.ENCODER
    pretrained: bool = shared.PRETRAINED
    frozen_stages: int | None = shared.FROZEN_STAGES
    image_px: int | None = shared.IMAGE_PX
    symmetries: shared.Symmetries = shared.SYMMETRIES
    crop_px: int | None = shared.CROP_PX
    encoder_depth: int | None = shared.ENCODER_DEPTH
    decoder: DecoderName | None = shared.DECODER
    n_labelled: int | None = shared.N_LABELLED
    learning_rate: float | None = shared.LEARNING_RATE
    seed: int = shared.SEED
    skip_broken: bool = shared.SKIP_BROKEN
    compare: bool = Field(
        False,
        description="Also train the supervised net with as many image passes, and a logistic regression on frozen "
        "features, for comparison; with masks the net with large and with small batches, and a random forest.",
    )
    device: str = DEVICE

    @classmethod
    def conflicts(cls, data: Mapping[str, Any], flags: bool) -> list[str]:
        """Return the problem of labels that are counted in several ways."""
        names = ("labels_per_class", "label_fraction", "labelled_images")
        given = [cls.spell(name, flags) for name in names if data.get(name) is not None]
        found = "both" if len(given) == 2 else "all"
        return [f"{' and '.join(given)}: found {found}, expected one of them"] if len(given) > 1 else []

    @property
    def labels(self) -> int | float | Literal["all"]:
        """How many labels are used, in `labels_unit`."""
        return self.labels_per_class or self.labelled_images or self.label_fraction or "all"

    @property
    def labels_unit(self) -> Literal["per_class", "fraction"]:
        """What `labels` counts for images with one class each."""
        return "per_class" if self.label_fraction is None else "fraction"

    @property
    def says_all(self) -> bool:
        """Whether it was said, not only left open, that all labels are used: a share of 1."""
        return self.label_fraction == 1

    @property
    def masks_unit(self) -> Literal["images", "fraction"]:
        """What `labels` counts for images with masks."""
        return "images" if self.label_fraction is None else "fraction"

    def resolved(self, base: Path | None = None) -> TrainOptions:
        """Return a copy whose paths are absolute, taken from `base` (by default the current folder)."""
        folder = Path.cwd() if base is None else base
        dataset = absolute_path(self.dataset, folder)
        return self.replaced(
            dataset=dataset if Path(dataset).exists() else self.dataset,
            data=None if self.data is None else absolute_path(self.data, folder),
        )


def is_config_file(text: str) -> bool:
    """Say whether `text` is the path of a configuration rather than of a data set."""
    return Path(text).suffix.lower() in (".yaml", ".yml")


def load_train_options(path: Path | str) -> TrainOptions:
    """Return the options in the YAML file at `path`; relative paths count from the file's folder.

    Raises:
        ConfigError: the file cannot be read, or options in it are unknown, wrong or missing (all are named).
        SecurityError: the file is too large, or uses anchors, aliases or tags.
    """
    path = Path(path)
    return TrainOptions.make(read_mapping(path), where=str(path)).resolved(path.absolute().parent)
