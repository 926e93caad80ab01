"""The stages of a method as ranges of steps."""

from __future__ import annotations

from dataclasses import dataclass

from berunda.errors import ConfigError
from berunda.methods.contract import Method

__all__ = ["PlannedStage", "methods_of", "plan_stages"]


@dataclass(frozen=True)
class PlannedStage:
    """A stage with its method and its steps.

    Attributes:
        index: from 0.
        name: shown in logs.
        method: supplies the loss.
        steps: counted over all stages.
        predicts_labels: whether the model of the stage before labels the images of the labelled stream.
    """

    index: int
    name: str
    method: Method
    steps: range
    predicts_labels: bool


def plan_stages(method: Method, n_steps: int) -> tuple[PlannedStage, ...]:
    """Divide `n_steps` among the stages of `method`.

    Raises:
        ConfigError: a share is not above 0, they do not add up to 1, a stage would get no step, or the first one
            predicts labels.
    """
    stages, methods = method.stages(), methods_of(method)
    shares = [stage.share for stage in stages]
    if not stages or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
        raise ConfigError(
            f"method {method.name!r}: the shares of its stages are {shares}, expected some above 0 that add up to 1"
        )
    if stages[0].labels == "predicted":
        raise ConfigError(f"method {method.name!r}: its first stage predicts labels, but no stage comes before it")
    ends = [round(n_steps * sum(shares[: i + 1])) for i in range(len(stages))]
    planned = []
    for index, stage in enumerate(stages):
        steps = range(ends[index - 1] if index else 0, ends[index])
        if not steps:
            raise ConfigError(f"method {method.name!r}: stage {stage.name!r} gets no step of {n_steps}; train for more")
        planned.append(
            PlannedStage(
                index=index,
                name=stage.name,
                method=methods[index],
                steps=steps,
                predicts_labels=stage.labels == "predicted",
            )
        )
    return tuple(planned)


def methods_of(method: Method) -> tuple[Method, ...]:
    """Return the methods that supply the losses of the stages of `method`, in order."""
    from berunda.methods import make_method

    return tuple(
        method if stage.method is None else make_method(stage.method, stage.options) for stage in method.stages()
    )
