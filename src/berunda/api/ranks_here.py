"""The ranks that a verb of the main job was started on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from berunda.ranks import started_ranks

if TYPE_CHECKING:
    from berunda.train.distributed import Group

__all__ = ["ranks_here"]


@contextmanager
def ranks_here() -> Iterator[Group | None]:
    """Join the ranks that `torchrun` started, within the block; None without them."""
    if started_ranks()[1] == 1:
        yield None
        return
    from berunda.train.distributed import together

    with together() as ranks:
        yield ranks
