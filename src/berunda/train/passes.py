"""What a training costs, in image passes, and how every method gets as many.

One pass is one image forward and backward; forward alone (a teacher's view, a look at all images) counts as a third.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from berunda.errors import ConfigError
from berunda.methods.contract import Method
from berunda.ranks import started_ranks
from berunda.train.config import TrainConfig
from berunda.train.stages import methods_of, plan_stages

__all__ = ["AllImages", "equal_settings", "image_passes", "passes_per_step", "survey_passes", "with_passes"]

_MANY_STEPS = 1000  # to measure a mean step by, over stages of different cost


@dataclass(frozen=True)
class AllImages:
    """The images that a method looks at all together, where it does.

    Attributes:
        n_images: labelled and unlabelled images together.
        image_px: side at which they are trained on.
        pretrained: whether the net starts from pretrained weights, so that a first look may enlarge them.
    """

    n_images: int
    image_px: int
    pretrained: bool


def passes_per_step(method: Method, n_labelled: int) -> float:
    """Return what a step costs in trained image passes: a forward pass alone counts as a third of one."""
    needs = method.needs()
    n_unlabelled = n_labelled * needs.unlabelled_ratio
    return n_labelled * needs.labelled_passes + n_unlabelled * (needs.trained_passes + needs.forward_passes / 3)


def survey_passes(method: Method, images: AllImages | None) -> float:
    """Return what showing every image to the model costs a run; enlarged images count by their area."""
    if images is None:
        return 0.0
    stages = [stage.needs() for stage in methods_of(method)]
    n_surveys = float(sum(needs.surveys for needs in stages))
    if stages[0].surveys and images.pretrained:
        n_surveys += max(1.0, stages[0].first_survey_px / images.image_px) ** 2 - 1
    return n_surveys * images.n_images / 3


def image_passes(method: Method, settings: TrainConfig, images: AllImages | None = None) -> float:
    """Return what a training costs: its steps, stage by stage, and its looks at all images."""
    return _in_steps(method, settings) + survey_passes(method, images)


def with_passes(settings: TrainConfig, per_step: float, labelled_passes: float = 1.0) -> TrainConfig:
    """Return the settings with labelled images for about `per_step` passes a step, of several ranks as many for each.

    Args:
        settings: the loop's.
        per_step: image passes a step.
        labelled_passes: what a labelled image costs of them, see `Needs`.
    """
    n_ranks = started_ranks()[1] if settings.ranks == "auto" else 1
    return replace(settings, n_labelled=n_ranks * max(1, round(per_step / labelled_passes / n_ranks)))


def equal_settings(
    method: Method,
    base: TrainConfig,
    budget: float,
    images: AllImages | None = None,
    *,
    small_batch: bool = False,
) -> TrainConfig:
    """Return the settings that give `method` as many image passes as any other.

    Without unlabelled images it spends them on large batches, in as many steps as `base` has, or on small ones, of as
    many labelled images as `base` has, in more steps. With others than the reference's unlabelled images there are more
    or fewer steps, after what looking at all images takes.

    Args:
        method: with its options.
        base: settings of the reference method.
        budget: image passes of every run.
        images: those that a method looks at all together; None where no method does.
        small_batch: without unlabelled images: small batches and more steps.

    Raises:
        ConfigError: looking at all images would take nearly all of the passes.
    """
    needs = method.needs()
    if not needs.unlabelled and not small_batch:
        return with_passes(base, budget / base.steps, needs.labelled_passes)
    looking = survey_passes(method, images)
    if looking > 0.9 * budget:
        raise ConfigError(
            f"looking at all images takes {looking:,.0f} image passes of the {budget:,.0f} that "
            "a run has; expected most of them for steps: train for longer (--effort, --steps), or let it look less "
            f"often (`berunda methods {method.name}`)"
        )
    per_step = _in_steps(method, replace(base, steps=_MANY_STEPS)) / _MANY_STEPS
    return replace(base, steps=max(1, round((budget - looking) / per_step)))


def _in_steps(method: Method, settings: TrainConfig) -> float:
    stages = plan_stages(method, settings.steps)
    return sum(len(stage.steps) * passes_per_step(stage.method, settings.n_labelled) for stage in stages)
