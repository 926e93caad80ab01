"""Options that training and benchmarks share, each defined once."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

__all__ = [
    "CROP_PX",
    "DATA",
    "DECODER",
    "EFFORT",
    "ENCODER",
    "ENCODER_DEPTH",
    "FROZEN_STAGES",
    "IMAGE_PX",
    "LEARNING_RATE",
    "N_LABELLED",
    "PRETRAINED",
    "SEED",
    "SKIP_BROKEN",
    "STEPS",
    "SYMMETRIES",
    "Symmetries",
]


def _number(value: object) -> object:
    """Return the number that a text of the command line spells, other values as they are."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


Symmetries = Annotated[Literal[1, 2, 4, 8], BeforeValidator(_number)]

DATA: Any = Field(
    None,
    description="Folder that holds the data set as published (or where it is put after its download).",
    json_schema_extra={"metavar": "FOLDER"},
)
ENCODER: Any = Field(
    "efficientnet_lite0",
    pattern=r"^[A-Za-z0-9_.-]{1,100}$",
    description="Encoder: the packaged one, a Wide-ResNet, or a name that timm knows.",
    json_schema_extra={"expected": "a name that timm knows", "metavar": "NAME"},
)
PRETRAINED: Any = Field(
    True,
    description="Start the encoder from pretrained weights, where it has some.",
)
FROZEN_STAGES: Any = Field(
    None,
    ge=0,
    le=5,
    description="Stages of the encoder, from the first, that are not trained, instead of the recipe's.",
)
EFFORT: Any = Field("standard", description="Length of training: about 2, 8 or 30 minutes on two cores.")
STEPS: Any = Field(None, ge=1, le=1_000_000, description="Training steps, instead of the effort's.")
IMAGE_PX: Any = Field(
    None,
    ge=16,
    le=1024,
    description="Side to which images are resampled; if not given their own, at most 128 px.",
    json_schema_extra={"unit": "px"},
)
SYMMETRIES: Any = Field(
    4,
    description="Mirrored and turned views of an image whose answers are averaged: 1, 2, 4 or 8.",
)
N_LABELLED: Any = Field(
    None, ge=1, le=4096, description="Labelled images a step, instead of the recipe's for the encoder."
)
CROP_PX: Any = Field(
    None,
    ge=32,
    le=1024,
    description="With masks: side of a training crop; 96 px if not given.",
    json_schema_extra={"unit": "px"},
)
ENCODER_DEPTH: Any = Field(None, ge=1, le=5, description="With masks: stages of the encoder in use; 3 if not given.")
DECODER: Any = Field(None, description="With masks: decoder of the net, by default what the method is best with.")
LEARNING_RATE: Any = Field(
    None, gt=0, le=10, description="Peak learning rate, instead of the recipe's for the encoder."
)
SKIP_BROKEN: Any = Field(False, description="Leave out images that cannot be read; the report counts them.")
SEED: Any = Field(0, ge=0, le=2**63 - 1, description="Seed of every random choice, the labelled images included.")
