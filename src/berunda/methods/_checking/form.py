"""Checks of what a method declares: settings, documentation, needs, stages."""

from __future__ import annotations

import typing
from dataclasses import MISSING, asdict, fields, is_dataclass, replace

from berunda.augment.views import RECIPES
from berunda.errors import ConfigError
from berunda.methods._checking.registry import CheckFailed, check, require
from berunda.methods._checking.trial import Trial


@check
def frozen_dataclass(trial: Trial) -> None:
    """A method is a frozen dataclass, so that its hyper-parameters cannot change while it trains."""
    kind = type(trial.method)
    require(is_dataclass(kind), f"{kind.__name__} is no dataclass")
    require(kind.__dataclass_params__.frozen, f"{kind.__name__} is not frozen")  # type: ignore[attr-defined]
    require("__dataclass_fields__" in vars(kind), f"{kind.__name__} lacks the decorator of its own")


@check
def documented(trial: Trial) -> None:
    """The class says in a docstring what it is and where it comes from."""
    doc = vars(type(trial.method)).get("__doc__") or ""
    require(bool(doc.strip()), "the class has no docstring")
    require("Source:" in doc, "the docstring has no line 'Source:'")


@check
def named_like_its_file(trial: Trial) -> None:
    """`name` is the name of the file."""
    kind = type(trial.method)
    found, expected = vars(kind).get("name"), kind.__module__.rpartition(".")[2]
    require(found == expected, f"name is {found!r}, the file is called {expected!r}")


@check
def settings_documented(trial: Trial) -> None:
    """Each hyper-parameter has a plain type, a default, and help, unit, range and source."""
    types = typing.get_type_hints(type(trial.method))
    for item in fields(trial.method):
        require(types[item.name] in (bool, int, float, str), f"'{item.name}' is no bool, int, float or str")
        require(item.default is not MISSING, f"'{item.name}' has no default")
        for key in ("help", "unit", "range", "source"):
            require(bool(item.metadata.get(key)), f"'{item.name}' does not state its {key}")
        others = set(item.metadata.get("tasks", ())) - set(type(trial.method)().needs().tasks)
        require(not others, f"'{item.name}' is for {', '.join(others)}, which the method does not serve")


@check
def settings_guarded(trial: Trial) -> None:
    """A value outside its range is refused with a ConfigError that names the option."""
    for item in fields(trial.method):
        if isinstance(item.default, bool):
            continue
        wrong = "no such choice" if isinstance(item.default, str) else item.metadata["range"][1] + 1
        try:
            replace(trial.method, **{item.name: wrong})
        except ConfigError as error:
            require(item.name in str(error), f"the refusal of '{item.name}' does not name it")
        else:
            raise CheckFailed(f"{item.name}={wrong!r} was accepted")


@check
def settings_round_trip(trial: Trial) -> None:
    """A method is equal to the one made from its settings."""
    require(type(trial.method)(**asdict(trial.method)) == trial.method, "differs from its copy")


@check
def needs_sensible(trial: Trial) -> None:
    """What it asks for can be given."""
    needs = trial.method.needs()
    require(bool(needs.labelled), "asks for no view of the labelled images")
    for views in (needs.labelled, needs.unlabelled):
        names: list[str] = []
        for view in views:
            require(view.recipe in RECIPES, f"view '{view.name}' asks for an unknown recipe '{view.recipe}'")
            require(view.like is None or view.like in names, f"view '{view.name}' is like no earlier view")
            require(view.name not in names, f"two views are called '{view.name}'")
            names.append(view.name)
    require((needs.unlabelled_ratio > 0) == bool(needs.unlabelled), "unlabelled views and ratio do not agree")
    costs = (needs.forward_passes, needs.trained_passes, needs.sharpness_rho)
    require(min(costs) >= 0, "a number of passes, or sharpness_rho, is negative")
    require(needs.labelled_passes > 0, f"labelled_passes is {needs.labelled_passes}, labelled images cost something")
    require(needs.rate > 0 and needs.clip_norm >= 0, "rate is not above 0, or clip_norm is negative")
    require(sum(costs[:2]) > 0 or not needs.unlabelled, "unlabelled images cannot cost nothing")


@check
def stages_add_up(trial: Trial) -> None:
    """The shares of the stages are positive and sum to 1."""
    shares = [stage.share for stage in trial.method.stages()]
    require(bool(shares) and min(shares) > 0 and abs(sum(shares) - 1) < 1e-9, f"shares are {shares}")


@check
def kept_exists(trial: Trial) -> None:
    """The modules that a bundle keeps are the net, and perhaps extra."""
    kept = trial.method.kept()
    require("net" in kept and set(kept) <= {"net", "extra"}, f"keeps {kept}")
