"""What a training on images with masks costs in passes of crops, and how a net spends as many as another."""

from __future__ import annotations

from dataclasses import replace

from berunda.api.fit import passes_per_step, with_passes
from berunda.bench.suite import SMALL_BATCH
from berunda.methods.contract import Method
from berunda.train.config import TrainConfig
from berunda.train.stages import plan_stages

__all__ = ["equal_settings", "mask_passes", "supervised_settings"]

_MANY_STEPS = 1000  # to measure a mean step by, over stages of different cost


def mask_passes(method: Method, settings: TrainConfig) -> float:
    """Return what a training costs in trained passes of crops, stage by stage."""
    stages = plan_stages(method, settings.steps)
    return sum(len(stage.steps) * passes_per_step(stage.method, settings.n_labelled) for stage in stages)


def equal_settings(method: Method, settings: TrainConfig, passes: float, *, small_batch: bool = False) -> TrainConfig:
    """Return the settings with which `method` costs about `passes`.

    Without unlabelled images it spends them on large batches, in as many steps as `settings` has, or on small ones, of
    as many labelled crops as `settings` has, in more steps. With unlabelled images the batch is the method's own.

    Args:
        method: what is trained.
        settings: steps, and labelled crops a step, of the training that it is compared with.
        passes: trained passes of crops in all.
        small_batch: without unlabelled images: small batches and more steps.
    """
    needs = method.needs()
    if not needs.unlabelled and not small_batch:
        return with_passes(settings, passes / settings.steps, needs.labelled_passes)
    mean = mask_passes(method, replace(settings, steps=_MANY_STEPS)) / _MANY_STEPS
    return replace(settings, steps=max(1, round(passes / mean)))


def supervised_settings(method: Method, settings: TrainConfig, passes: float) -> dict[str, TrainConfig]:
    """Return both ways in which the supervised `method` spends `passes`, by variant; one where they are the same.

    Which of them is the stronger baseline depends on the data: the one has cleaner gradients, the other as many
    updates as the methods that it is compared with, or more.
    """
    large, small = (equal_settings(method, settings, passes, small_batch=is_small) for is_small in (False, True))
    return {"": large} if large == small else {"": large, SMALL_BATCH: small}
