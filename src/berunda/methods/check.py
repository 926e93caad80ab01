"""One battery of checks over every method, so that a new method need not be read to be trusted.

`check_method` tries a method on tiny images, with a net that looks at single pixels unless another is
given, on every task that the method serves. It says nothing about how well the method does on real images:
that is the benchmarks' part.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from berunda.methods._checking import form, numbers, purity
from berunda.methods._checking.registry import CHECKS
from berunda.methods._checking.trial import NetFactory, make_trial
from berunda.methods.contract import Method, Task

__all__ = ["CHECKS", "GROUPS", "Result", "check_method"]

GROUPS = (form, purity, numbers)
"""The modules whose checks make up `CHECKS`."""


@dataclass(frozen=True)
class Result:
    """What came of one check.

    Attributes:
        check: name of the check.
        task: the task it was tried on.
        fault: what went wrong, "" if nothing.
    """

    check: str
    task: Task
    fault: str

    @property
    def passed(self) -> bool:
        """Whether nothing went wrong."""
        return not self.fault


def check_method(
    method: Method | type[Method],
    *,
    net_factory: NetFactory | None = None,
    names: Iterable[str] | None = None,
) -> tuple[Result, ...]:
    """Run the checks of `names` (all by default) on every task that `method` serves.

    Args:
        method: a method, or its class (then with default settings).
        net_factory: builds the net to try it with; by default the method's own `build` where it defines
            one, else a net of single pixels.
        names: keys of `CHECKS`.

    Returns:
        One result for each check and task; an exception in the method is a fault of the check it happened in.
    """
    method = method() if isinstance(method, type) else method
    results = []
    for task in method.needs().tasks:
        for name in CHECKS if names is None else names:
            fault = ""
            try:
                CHECKS[name](make_trial(method, task, net_factory))
            except Exception as error:
                fault = f"{type(error).__name__}: {error}"
            results.append(Result(name, task, fault))
    return tuple(results)
