"""Where the checks are kept, and how one fails."""

from __future__ import annotations

from collections.abc import Callable

from berunda.methods._checking.trial import Trial

__all__ = ["CHECKS", "Check", "CheckFailed", "check", "gradients_finite", "require"]

Check = Callable[[Trial], None]

CHECKS: dict[str, Check] = {}
"""All checks by name, in the order in which they run; each raises CheckFailed."""


class CheckFailed(Exception):
    """A method does not do what the contract asks."""


def check(function: Check) -> Check:
    """Add `function` to the checks, under its name."""
    CHECKS[function.__name__] = function
    return function


def require(condition: bool, fault: str) -> None:
    """Fail with `fault` unless `condition` holds."""
    if not condition:
        raise CheckFailed(fault)


def gradients_finite(trial: Trial) -> None:
    """Fail unless every gradient in net and extra is finite."""
    for module in (trial.net, trial.extra):
        for name, parameter in module.named_parameters():
            if parameter.grad is not None:
                require(bool(parameter.grad.isfinite().all()), f"the gradient of {name} is not finite")
