"""What a benchmark on images with masks compares, and with how many labelled images of which site."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import get_args

from berunda.api.choices import check_serves
from berunda.bench.suite import MASK_FLOORS, Arm, Suite, refuse_idle_options
from berunda.data.images import TRAIN
from berunda.data.masks.draw import Unit
from berunda.data.masks.images import MaskSet
from berunda.errors import ConfigError, FetchError
from berunda.methods import make_method, method_names
from berunda.models.build import build_net
from berunda.models.spec import Decoder, NetSpec
from berunda.options.bench import BenchOptions, parse_labels

__all__ = ["arms_of", "choices_of", "with_weights"]


def arms_of(options: BenchOptions, suite: Suite) -> list[Arm]:
    """Return what is compared, each once.

    A method without unlabelled images comes twice, with large batches and with small ones: at equal passes nobody knows
    beforehand which is the stronger baseline.

    Raises:
        ConfigError: a method does not serve segmentation, an option is of no net that is compared, or an option or the
            decoder of an arm is wrong.
    """
    given = options.methods
    named = [arm for arm in suite.arms if given is None or arm.method in given]
    beyond = [name for name in given or () if name not in {arm.method for arm in named}]
    plain = [Arm(name) for name in (beyond if suite.arms else given or (*MASK_FLOORS, *_serving()))]
    refuse_idle_options(options.method_options, [arm.method for arm in (*named, *plain)])
    found: dict[tuple[str, str], Arm] = {}
    for arm in (*named, *plain):
        own = options.options_of(arm.method)
        for one in _in_both_ways(replace(arm, options={**arm.options, **own})):
            found.setdefault((one.method, one.variant), one)
    return list(found.values())


def _in_both_ways(arm: Arm) -> Iterator[Arm]:
    """Yield the arm and, of a method without unlabelled images, the one of small batches."""
    yield arm
    if arm.method in MASK_FLOORS:
        return
    method = make_method(arm.method, arm.options)
    check_serves(method, "segmentation")
    if arm.decoder and arm.decoder not in get_args(Decoder):
        raise ConfigError(f"decoder {arm.decoder!r} is unknown, expected one of {', '.join(get_args(Decoder))}")
    if not method.needs().unlabelled:
        yield replace(arm, small_batch=True)


def with_weights(arms: Sequence[Arm], options: BenchOptions) -> tuple[list[Arm], list[str]]:
    """Return the arms, from scratch where the weights of an encoder of their own cannot be had, and why, in words.

    Weights of the benchmark's own encoder are what the user chose: where those lack, its runs fail.
    """
    lacking, notes = set(), []
    own = {(arm.encoder, arm.decoder) for arm in arms if arm.encoder and options.pretrained}
    for encoder, decoder in sorted(own):
        chosen = {"decoder": decoder} if decoder else {}
        try:
            build_net(NetSpec("segmentation", 3, 2, encoder=encoder, **chosen))  # type: ignore[arg-type]
        except FetchError as error:
            lacking.add((encoder, decoder))
            notes.append(f"nets on {encoder} are trained from scratch: {error}")
    found = [replace(arm, from_scratch=(arm.encoder, arm.decoder) in lacking) for arm in arms]
    return found, notes


def choices_of(options: BenchOptions, suite: Suite, masks: MaskSet) -> Iterator[tuple[int | float | str, Unit, str]]:
    """Yield how many labels are used, what they count, and of which site they are ("" for all).

    Raises:
        ConfigError: the labels are counted by class, or by site where fewer than two sites have masks.
    """
    numbers = [parse_labels(text) for text in options.labels or suite.mask_labels or suite.labels]
    if options.labels_unit == "per_class":
        raise ConfigError("--labels-unit: found per_class, expected images or fraction for images with masks")
    unit_of_all: Unit = "images"
    if options.labels_unit == "fraction" or any(isinstance(n, float) for n in numbers):
        unit_of_all = "fraction"
    for labels in numbers:
        if labels == "each_site":
            names = sorted({masks.sites[i] for i in masks.of(TRAIN, labelled=True)} - {""})
            if len(names) < 2:
                raise ConfigError(
                    f"--labels: found each_site, but {len(names)} sites with masks in data set {masks.name}; expected "
                    "two or more"
                )
            yield from (("all", unit_of_all, name) for name in names)
        else:
            yield labels, unit_of_all if labels == "all" else "fraction" if isinstance(labels, float) else "images", ""


def _serving() -> Iterator[str]:
    """Yield the names of the methods that serve segmentation."""
    for name in method_names():
        if "segmentation" in make_method(name).needs().tasks:
            yield name
