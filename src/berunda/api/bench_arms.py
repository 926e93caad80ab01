"""What a benchmark on whole images compares: methods with options, nets of their own, and options to search over."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import product

from berunda.api.choices import check_serves
from berunda.api.drawn import Labels
from berunda.bench.suite import FLOORS, KNOWN_FLOORS, PLAIN, Arm, Suite, of_variant
from berunda.errors import ConfigError
from berunda.methods import make_method, method_names
from berunda.models.encoders import check_encoder_name
from berunda.models.spec import Task
from berunda.options.bench import BenchOptions, parse_labels

__all__ = ["arms_of", "candidates_of", "labels_of_arm", "numbers_of"]

_FLOOR_TASKS: dict[str, tuple[Task, ...]] = {
    "features_logreg": ("scene", "multilabel"),
    "features_propagate": ("scene",),
    "features_propagate_transductive": ("scene",),
}


def arms_of(options: BenchOptions, suite: Suite, task: Task) -> tuple[list[Arm], list[str]]:
    """Return what is compared, and in words what of the suite is left out.

    Raises:
        ConfigError: a method that was named does not serve the task, an option of it is wrong, or there is no such
            variant.
    """
    own = suite.arms if suite.task in ("scene", "multilabel") else ()
    default = own or [Arm(name) for name in suite.methods or (*FLOORS, *_serving(task))]
    named = [arm for arm in default if options.methods is None or arm.method in options.methods]
    beyond = [Arm(name) for name in options.methods or () if name not in {arm.method for arm in named}]
    arms: list[Arm] = []
    others: list[Arm] = []
    notes: list[str] = []
    for arm in (*named, *beyond):
        given, searched = options.options_of(arm.method), options.search_of(arm.method)
        kept = {name: values for name, values in {**arm.search, **searched}.items() if name not in given}
        made = replace(arm, options={**arm.options, **given}, search=kept)
        try:
            _check(made, task)
        except ConfigError as error:
            if options.methods is not None or given or searched:
                raise
            notes.append(f"{made} is left out: {error}")
            continue
        is_meant = options.variant in (None, arm.variant or PLAIN, made.variant or PLAIN)
        (arms if is_meant else others).append(made)
    if not arms and others:
        return of_variant(others, options.variant), notes
    unique = {(arm.method, arm.variant, arm.encoder): arm for arm in arms}
    if not unique:
        raise ConfigError(f"suite '{suite.name}': nothing is left to compare; {'; '.join(notes) or 'name --methods'}")
    return list(unique.values()), notes


def _check(arm: Arm, task: Task) -> None:
    if arm.method in KNOWN_FLOORS:
        if task not in _FLOOR_TASKS[arm.method]:
            raise ConfigError(f"{arm.method} serves {', '.join(_FLOOR_TASKS[arm.method])}, expected {task}")
        return
    for candidate in candidates_of(arm):
        check_serves(make_method(candidate.method, candidate.options), task)
    if arm.encoder:
        check_encoder_name(arm.encoder)


def candidates_of(arm: Arm) -> list[Arm]:
    """Return the arms that a search chooses among, each with one value of every option searched over; else itself."""
    if not arm.search:
        return [arm]
    names = list(arm.search)
    return [
        replace(arm, options={**arm.options, **dict(zip(names, values, strict=True))}, search={})
        for values in product(*arm.search.values())
    ]


def labels_of_arm(options: BenchOptions, suite: Suite, arm: Arm) -> list[Labels]:
    """Return how many labels an arm is trained with."""
    return numbers_of(options.labels or arm.labels or suite.labels)


def numbers_of(texts: Iterable[str]) -> list[Labels]:
    """Return how many labels the texts ask for.

    Raises:
        ConfigError: images have no sites.
    """
    found: list[Labels] = []
    for text in texts:
        number = parse_labels(text)
        if number == "each_site":
            raise ConfigError("--labels: found each_site, expected it with masks alone; images have no sites")
        found.append(number)
    return found


def _serving(task: Task) -> Sequence[str]:
    """Return the names of the methods that serve the task."""
    return [name for name in method_names() if task in make_method(name).needs().tasks]
