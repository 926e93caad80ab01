"""The options of a benchmark."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from berunda.config import DEVICE, DecoderName, Effort
from berunda.options import shared
from berunda.schema import Options, PathText, Plain, Text, TextList, ValueMap, parse_value

__all__ = ["BenchOptions", "parse_labels"]

Labels = int | float | Literal["all", "each_site"]
_WHOLE, _SHARE = re.compile(r"[1-9]\d{0,6}"), re.compile(r"0?\.\d*[1-9]\d*")


class BenchOptions(Options):
    """Every option of `berunda bench`; what is left out is the suite's own."""

    arguments: ClassVar[Mapping[str, str]] = {"suite": "SUITE", "method_options": "--option"}

    suite: Text = Field(
        description="What is compared on which data: eurosat, eurosat_all, eurosat_energy, eurosat_energy_held_out, "
        "ucmerced_multilabel, weighting_scenes, weighting_labels, dubai, or, for any data set by --data, folder, "
        "curve, sites, lambdas, architectures, losses, weighting, hvae."
    )
    methods: TextList | None = Field(
        None,
        description="Methods to compare, the floors included: features_logreg and features_propagate (and, where it is "
        "named here, features_propagate_transductive, whose graph holds the test images without their labels), or "
        "random_forest with masks.",
    )
    variant: Text | None = Field(
        None,
        description="Make only the runs of this variant, as the rows or the suite name it; default for those without.",
    )
    labels: TextList | None = Field(
        None,
        description="Labels to train with: numbers a class (with masks: of images), shares of the training images, "
        "all, or each_site: all of one site after the other.",
        json_schema_extra={"expected": "numbers from 1, shares below 1, all or each_site, separated by commas"},
    )
    labels_unit: Literal["per_class", "images", "fraction"] | None = Field(
        None,
        description="What the labels count: images a class, images (with masks) or shares; if not given, numbers "
        "below 1 are shares.",
    )
    seeds: int | None = Field(None, ge=1, le=100, description="Runs of each, with as many seeds.")
    seed: int = Field(0, ge=0, le=2**31, description="First seed.")
    encoder: str = shared.ENCODER
    pretrained: bool = shared.PRETRAINED
    frozen_stages: int | None = shared.FROZEN_STAGES
    effort: Effort = shared.EFFORT
    steps: int | None = shared.STEPS
    image_px: int | None = shared.IMAGE_PX
    symmetries: shared.Symmetries = shared.SYMMETRIES
    crop_px: int | None = shared.CROP_PX
    encoder_depth: int | None = shared.ENCODER_DEPTH
    decoder: DecoderName | None = shared.DECODER
    n_labelled: int | None = shared.N_LABELLED
    learning_rate: float | None = shared.LEARNING_RATE
    method_options: ValueMap = Field(
        default_factory=dict,
        description="Hyper-parameters of a method that differ from their defaults, such as fixmatch.mu=3.",
        json_schema_extra={"expected": "method.name=value pairs", "metavar": "METHOD.NAME=VALUE", "many": True},
    )
    search: ValueMap = Field(
        default_factory=dict,
        description="Hyper-parameters to choose on validation images among values, each trained, such as "
        "ssl_mae.w=0.1:0.5:0.9.",
        json_schema_extra={"expected": "method.name=values pairs", "metavar": "METHOD.NAME=V:V:...", "many": True},
    )
    data: PathText | None = shared.DATA
    skip_broken: bool = shared.SKIP_BROKEN
    device: str = DEVICE

    @classmethod
    def conflicts(cls, data: Mapping[str, Any], flags: bool) -> list[str]:
        """Return the problems of labels and of hyper-parameters that name no method."""
        fields = ("method_options", "search")
        problems = [text for field in fields for text in _option_problems(data, cls, field, flags)]
        return [*_label_problems(data, cls.spell("labels", flags)), *problems]

    def options_of(self, method: str) -> dict[str, Any]:
        """Return the hyper-parameters given for `method`."""
        start = method + "."
        given = self.method_options.items()
        return {name.removeprefix(start): value for name, value in given if name.startswith(start)}

    def search_of(self, method: str) -> dict[str, tuple[Plain, ...]]:
        """Return the values to choose among by name of hyper-parameter, for `method`."""
        start = method + "."
        return {
            name.removeprefix(start): tuple(map(parse_value, str(values).split(":")))
            for name, values in self.search.items()
            if name.startswith(start)
        }


def parse_labels(text: str) -> Labels:
    """Return the number, share, "all" or "each_site" that `text` spells.

    Raises:
        ValueError: it is none of them.

    Example:
        >>> [parse_labels(text) for text in ("5", "0.05", "all")]
        [5, 0.05, 'all']
    """
    if text == "all":
        return "all"
    if text == "each_site":
        return "each_site"
    if _WHOLE.fullmatch(text):
        return int(text)
    if _SHARE.fullmatch(text):
        return float(text)
    raise ValueError(text)


def _label_problems(data: Mapping[str, Any], name: str) -> Iterator[str]:
    values = data.get("labels") or ()
    unit = data.get("labels_unit")
    for text in values if isinstance(values, tuple) else ():
        try:
            found = parse_labels(text)
        except ValueError:
            yield f"{name}: found {text!r}, expected a number from 1, a share below 1, or all"
            continue
        if unit is not None and not isinstance(found, str) and (unit == "fraction") != isinstance(found, float):
            yield f"{name}: found {text} with the unit {unit}, expected {'shares' if unit == 'fraction' else 'numbers'}"


def _option_problems(data: Mapping[str, Any], model: type[Options], field: str, flags: bool) -> Iterator[str]:
    given, methods = data.get(field), data.get("methods")
    for name in given if isinstance(given, dict) else ():
        method = name.partition(".")[0]
        if "." not in name:
            yield f"{model.spell('method_options', flags)}: found {name!r}, expected METHOD.NAME=VALUE"
        elif isinstance(methods, tuple) and method not in methods:
            yield f"{model.spell('method_options', flags)}: found {name!r}, but {method!r} is not among the methods"
