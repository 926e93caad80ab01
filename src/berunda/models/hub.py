"""The hub that timm fetches weights from: quiet, and given up soon where it cannot be reached."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["TIMEOUT_S", "quiet_hub"]

TIMEOUT_S = 10.0
"""So long the hub may take to answer at all; its own library would try for a minute."""


@contextmanager
def quiet_hub() -> Iterator[None]:
    """Silence the hub's library within the block; where the hub does not answer, only its cache is looked at."""
    from huggingface_hub import constants
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    logger = logging.getLogger("huggingface_hub")
    level, offline, no_bars = logger.level, constants.HF_HUB_OFFLINE, are_progress_bars_disabled()
    logger.setLevel(logging.CRITICAL)
    disable_progress_bars()
    try:
        constants.HF_HUB_OFFLINE = offline or not _answers()
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline
        logger.setLevel(level)
        if not no_bars:
            enable_progress_bars()


def _answers() -> bool:
    """Say whether the hub answers anything within `TIMEOUT_S`."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=TIMEOUT_S)
    except Exception:
        return False
    return True
