"""The two ways in which a supervised net spends as many passes of crops as another method."""

from __future__ import annotations

from berunda.bench.suite import SMALL_BATCH
from berunda.methods.contract import Method
from berunda.train.config import TrainConfig
from berunda.train.passes import equal_settings

__all__ = ["supervised_settings"]


def supervised_settings(method: Method, settings: TrainConfig, passes: float) -> dict[str, TrainConfig]:
    """Return both ways in which the supervised `method` spends `passes`, by variant; one where they are the same.

    Which of them is the stronger baseline depends on the data: the one has cleaner gradients, the other as many
    updates as the methods that it is compared with, or more.
    """
    large, small = (equal_settings(method, settings, passes, small_batch=is_small) for is_small in (False, True))
    return {"": large} if large == small else {"": large, SMALL_BATCH: small}
