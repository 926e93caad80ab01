"""The schema of `model.json`: everything that a bundle says about its weights, checked strictly.

Unknown keys, wrong types and numbers out of range are refused: a bundle is a file from elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from berunda.errors import CheckpointError, SecurityError

__all__ = [
    "FORMAT",
    "WEIGHTS_NAME",
    "BandScale",
    "Calibration",
    "ClassEntry",
    "Manifest",
    "NetSettings",
    "Ood",
    "Origin",
    "Training",
    "Weights",
    "parse_manifest",
]

FORMAT = "berunda-model/1"
WEIGHTS_NAME = "model.safetensors"
PLAIN_THRESHOLD = 0.5
"""From this probability on a label is named by a bundle without thresholds of its own."""
MAX_DEPTH = 16
"""Lists and objects of a manifest lie at most this deep in each other; its own lie 4 deep."""

Text = Annotated[str, Field(min_length=1, max_length=400, pattern=r"^[^\x00-\x1f\x7f]+$")]
Note = str | int | float | bool | None
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class BandScale(_Part):
    """A band the net expects: raw values `low` and `high` become -1 and 1."""

    name: Text
    low: Finite
    high: Finite

    @model_validator(mode="after")
    def _rises(self) -> BandScale:
        if not self.low < self.high:
            raise ValueError(f"low {self.low} is not below high {self.high}")
        return self


class ClassEntry(_Part):
    """A class: its value in the map (1..C), its name, its colour."""

    id: int = Field(ge=1, le=255)
    name: Text
    color: str = Field(pattern=r"^#[0-9a-fA-F]{6}$")


class NetSettings(_Part):
    """What `berunda.models.spec.NetSpec` needs beside task, bands, classes and encoder, and how whole images are shown.

    Attributes:
        symmetries: how many mirrored and turned views of a whole image are answered for, and their answers averaged.
    """

    encoder_depth: int = Field(default=3, ge=1, le=5)
    symmetries: Literal[1, 2, 4, 8] = 1
    crop_px: int = Field(default=64, ge=1, le=8192)
    pixel_path: bool = False
    decoder: Literal["unet", "slim", "slim4", "segnet"] = "unet"


class Calibration(_Part):
    """The temperature that logits are divided by before the softmax, and what it rests on."""

    temperature: float = Field(default=1.0, gt=0, le=1000)
    is_fitted: bool = False
    n_pixels: int = Field(default=0, ge=0)
    n_groups: int = Field(default=0, ge=0)
    nll_before: Finite | None = None
    nll_after: Finite | None = None
    warning: str | None = Field(default=None, max_length=4000)


class Ood(_Part):
    """The distance layer: its kind and thresholds; its arrays are the tensors `ood.*`.

    Attributes:
        kind: "mahalanobis" or "knn".
        k: which nearest target counts; 1 for "mahalanobis".
        threshold: of the feature distance, None when no held-out label was left to set it.
        threshold_energy: of the energy, None likewise.
        energy_quantiles: of a method whose energy is a density of images, the energies of what was held out at even
            shares from 0 to 1; empty of any other.
        share: the part of held-out labelled pixels that stays unflagged.
        n_pixels: held-out labelled pixels behind the thresholds.
    """

    kind: Literal["mahalanobis", "knn"] = "mahalanobis"
    k: int = Field(default=1, ge=1, le=1000)
    threshold: Finite | None = None
    threshold_energy: Finite | None = None
    energy_quantiles: tuple[Finite, ...] = Field(default=(), max_length=1001)
    share: float = Field(default=0.95, gt=0, le=1)
    n_pixels: int = Field(default=0, ge=0)
    warning: str | None = Field(default=None, max_length=4000)

    @model_validator(mode="after")
    def _sorted(self) -> Ood:
        found = self.energy_quantiles
        if len(found) == 1 or any(low > high for low, high in pairwise(found)):
            raise ValueError("energy_quantiles are a single one or fall, expected none or two and more that rise")
        return self


class Origin(_Part):
    """A scene or a label file that the model was trained on."""

    name: Text
    fingerprint: Text


class Training(_Part):
    """What the model was trained on and how; `notes` holds further plain values."""

    scenes: tuple[Origin, ...] = ()
    labels: tuple[Origin, ...] = ()
    seed: int | None = None
    steps: int | None = None
    notes: dict[str, Note] = Field(default_factory=dict, max_length=200)


class Weights(_Part):
    """The file of the tensors beside the manifest."""

    file: str
    sha256: Sha256
    bytes: int = Field(ge=8)


class Manifest(_Part):
    """`model.json`.

    Attributes:
        format: layout of the bundle.
        task: what the net does.
        method, method_options: name and hyper-parameters of the method it was trained with.
        encoder, net: the net's parts.
        bands: in the order of the net's input.
        classes: ids 1..C in order.
        window_px, margin_px: the net reads windows of `window_px`; its answer counts without the outer
            `margin_px` on each side.
        thresholds: task "multilabel": the probability of each class from which it is named, tuned on validation images;
            empty for 0.5.
        calibration, ood, training, versions: see their types; versions of the packages it was written with.
        weights: the tensors' file; filled in when the bundle is saved.
    """

    format: str = FORMAT
    task: Literal["segmentation", "scene", "multilabel"] = "segmentation"
    method: str = Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")
    method_options: dict[str, Note] = Field(default_factory=dict, max_length=100)
    encoder: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,100}$")
    net: NetSettings = NetSettings()
    bands: tuple[BandScale, ...] = Field(min_length=1, max_length=2000)
    classes: tuple[ClassEntry, ...] = Field(min_length=1, max_length=255)
    window_px: int = Field(ge=16, le=8192)
    margin_px: int = Field(ge=0, le=4096)
    thresholds: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(default=(), max_length=255)
    calibration: Calibration = Calibration()
    ood: Ood | None = None
    training: Training = Training()
    versions: dict[str, Text] = Field(default_factory=dict, max_length=50)
    weights: Weights | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        ids = [c.id for c in self.classes]
        if ids != list(range(1, len(ids) + 1)):
            raise ValueError(f"class ids {ids[:8]} found, expected 1..{len(ids)} in order")
        for what, names in (
            ("class", [c.name for c in self.classes]),
            ("band", [b.name for b in self.bands]),
        ):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{what} names {', '.join(twice)} occur more than once")
        if 2 * self.margin_px >= self.window_px:
            raise ValueError(f"margins of {self.margin_px} px leave nothing of a window of {self.window_px} px")
        if len(self.thresholds) not in (0, len(ids)):
            raise ValueError(f"{len(self.thresholds)} thresholds found, expected none or {len(ids)}, one a class")
        return self

    @property
    def band_names(self) -> tuple[str, ...]:
        """Names of the bands in order."""
        return tuple(b.name for b in self.bands)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes 1..C in order."""
        return tuple(c.name for c in self.classes)

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the classes where an image can have several of them; empty where it has one."""
        return self.class_names if self.task == "multilabel" else ()

    @property
    def named_from(self) -> tuple[float, ...]:
        """The probability of each class from which an image with several labels is said to have it."""
        return self.thresholds or (PLAIN_THRESHOLD,) * len(self.classes)

    @property
    def stride_px(self) -> int:
        """Side of what one window contributes to the map."""
        return self.window_px - 2 * self.margin_px


def parse_manifest(value: Mapping[str, Any], where: str) -> Manifest:
    """Return the checked manifest.

    Args:
        value: what the JSON file holds.
        where: its path, for messages.

    Raises:
        CheckpointError: the format is another one or a field is wrong; all wrong fields are named.
        SecurityError: the manifest names a file other than its own weights.
    """
    _check_format(value.get("format"), where)
    weights = value.get("weights")
    if isinstance(weights, Mapping) and weights.get("file") != WEIGHTS_NAME:
        raise SecurityError(
            f"{where}: weights.file is {_short(weights.get('file'))}, expected {WEIGHTS_NAME!r}: a "
            "bundle may not name files elsewhere; get the bundle again from a source you trust"
        )
    try:
        return Manifest.model_validate(_tuples(value, where))
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, e['loc'])) or 'manifest'}: {_plain(e['msg'])}" for e in error.errors()]
        shown = "; ".join(faults[:6]) + (f"; and {len(faults) - 6} more" if len(faults) > 6 else "")
        raise CheckpointError(f"{where} is not a valid manifest: {shown}; write the bundle again") from error


def _check_format(found: object, where: str) -> None:
    if found == FORMAT:
        return
    match = re.fullmatch(r"berunda-model/(\d{1,6})", found) if isinstance(found, str) else None
    if match and int(match[1]) > 1:
        raise CheckpointError(
            f"{where}: format {found!r} is newer than this version reads ({FORMAT!r}); update berunda"
        )
    raise CheckpointError(f"{where}: format {_short(found)} found, expected {FORMAT!r}; not a model of berunda")


def _tuples(value: Any, where: str, depth: int = 0) -> Any:
    """Return JSON lists as tuples: strict models take no list for a tuple."""
    if depth > MAX_DEPTH:
        raise CheckpointError(f"{where}: values lie over {MAX_DEPTH} deep in each other; not a model of berunda")
    if isinstance(value, Mapping):
        return {key: _tuples(item, where, depth + 1) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_tuples(item, where, depth + 1) for item in value)
    return value


def _plain(message: str) -> str:
    return message.removeprefix("Value error, ").replace("Extra inputs are not permitted", "unknown key")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
