"""A suite of a benchmark, and the floors that stand beside the methods in every one."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar

from berunda.bench.rows import variant_of
from berunda.errors import ConfigError
from berunda.models.spec import Task

__all__ = [
    "FLOORS",
    "KNOWN_FLOORS",
    "MASK_FLOORS",
    "PLAIN",
    "REFERENCE",
    "SMALL_BATCH",
    "Arm",
    "Plain",
    "Suite",
    "of_variant",
    "refuse_idle_options",
]

Plain = bool | int | float | str

FLOORS = ("features_logreg", "features_propagate")
"""What learns on frozen features: a logistic regression, and labels that spread over the graph of their neighbours."""

KNOWN_FLOORS = (*FLOORS, "features_propagate_transductive")
"""With those that have to be asked for: labels that spread over a graph in which the test images are too, unlabelled.
What sees the test images is another task than what does not, so no suite compares them by itself."""

MASK_FLOORS = ("random_forest",)
"""What learns on the bands of single pixels, for images with masks."""

REFERENCE = "fixmatch"
"""The method, with its defaults, whose image passes every net of a suite gets."""


PLAIN = "default"
"""What `--variant` calls the runs without a variant."""

SMALL_BATCH = "small batch"
"""Variant of a method without unlabelled images whose steps are small and many, at as many passes."""


@dataclass(frozen=True)
class Arm:
    """One thing to compare: a method with some of its options, and perhaps a net of its own.

    Attributes:
        method: its name, or that of a floor.
        options: hyper-parameters that differ from its defaults.
        encoder: of the net; "" for the benchmark's.
        decoder: of the net; "" for the benchmark's, or what the method asks for.
        labels: on whole images, numbers of labels for this arm alone, as texts; empty for the suite's.
        search: on whole images, values of options among which validation images choose, each trained.
        small_batch: of a method without unlabelled images: its passes go into small batches and many steps. With masks
            every such method comes in both ways by itself.
        from_scratch: with masks, the net starts from random weights, whatever the benchmark's nets start from.
        title: on whole images, what tables call it; "" for the method with its variant.
    """

    method: str
    options: Mapping[str, Plain] = field(default_factory=dict)
    encoder: str = ""
    decoder: str = ""
    labels: tuple[str, ...] = ()
    search: Mapping[str, tuple[Plain, ...]] = field(default_factory=dict)
    small_batch: bool = False
    from_scratch: bool = False
    title: str = ""

    @property
    def variant(self) -> str:
        """What differs from the defaults, in words; "" for nothing."""
        told = [variant_of(self.options), *(f"{name} searched" for name in sorted(self.search))]
        told += [f"decoder={self.decoder}" if self.decoder else ""]
        told += [SMALL_BATCH if self.small_batch else "", "from scratch" if self.from_scratch else ""]
        return ", ".join(text for text in told if text)

    def __str__(self) -> str:
        return f"{self.method} {self.variant}".strip()


@dataclass(frozen=True)
class Suite:
    """What is compared on which data, unless the options say otherwise.

    Attributes:
        name: as `berunda bench` takes it; the name of its file.
        about: one line; where it takes long, it says how long.
        dataset: name in the catalogue; "" for the folder or table that the options name.
        methods: to compare, floors included; empty for every method that serves the task, after the floors.
        labels: how many, as texts.
        n_seeds: runs of each.
        steps: of the reference method; None for those of the effort. Options that name one of both come before it.
        task: of the data; None where the data tells.
        arms: what is compared, instead of `methods`, on images with masks; on whole images where `task` says so.
        mask_labels: numbers of labelled images with masks, instead of `labels`.
        split: "own", the data set's; or "within_sites": of every site a part trains and a part tests.
        options: of the benchmark, that are the suite's own unless they are given.
        held_out: on whole images, classes that no run sees; their test images are unlike the others.
        unlike: on whole images, data sets of the catalogue whose images are unlike the training's, by the names that
            tables give them.
        n_samples: on whole images, images that generative models draw to be compared with real ones.
    """

    name: str
    about: str
    dataset: str
    methods: tuple[str, ...]
    labels: tuple[str, ...]
    n_seeds: int = 3
    steps: int | None = None
    task: Task | None = "scene"
    arms: tuple[Arm, ...] = ()
    mask_labels: tuple[str, ...] = ()
    split: Literal["own", "within_sites"] = "own"
    options: Mapping[str, Plain] = field(default_factory=dict)
    held_out: tuple[str, ...] = ()
    unlike: Mapping[str, str] = field(default_factory=dict)
    n_samples: int = 0


class _Varied(Protocol):
    @property
    def variant(self) -> str: ...


V = TypeVar("V", bound=_Varied)


def of_variant(given: Sequence[V], variant: str | None) -> list[V]:
    """Return those of a variant, as rows name it or `PLAIN` for none; all where `variant` is None.

    Raises:
        ConfigError: there are none; those that there are are told.
    """
    found = [one for one in given if variant in (None, one.variant or PLAIN)]
    if given and not found:
        known = "; ".join(dict.fromkeys(one.variant or PLAIN for one in given))
        raise ConfigError(f"--variant: found {variant!r}, expected one of: {known}")
    return found


def refuse_idle_options(given: Iterable[str], methods: Collection[str]) -> None:
    """Refuse hyper-parameters that would change no run, those of floors and of methods that are not compared.

    Args:
        given: as "method.name".
        methods: that are compared, floors included.

    Raises:
        ConfigError: naming the first.

    Example:
        >>> refuse_idle_options(["fixmatch.mu"], ["features_logreg", "fixmatch"])
    """
    for option in given:
        method = option.partition(".")[0]
        if method in (*KNOWN_FLOORS, *MASK_FLOORS):
            raise ConfigError(
                f"--option: found {option!r}, but {method!r} is a floor, which has no options; leave it out"
            )
        if method not in methods:
            near = difflib.get_close_matches(method, methods, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise ConfigError(
                f"--option: found {option!r}, expected an option of a method that is compared: "
                f"{', '.join(dict.fromkeys(methods))}{hint}"
            )
