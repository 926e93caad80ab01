"""Where tiles are made: in this process (`local`) or on a cluster (`dask`).

Both keep one rule: a tile that could not be made is tried again, and after `TRIES` tries it is set aside while the
rest goes on. What says nothing about the tile (a full disk, a worker that does not see the files) ends the run.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from berunda.errors import BerundaError, ConfigError

if TYPE_CHECKING:
    from berunda.mapping.journal import Receipt
    from berunda.mapping.patch_map import PatchWork
    from berunda.mapping.tiles import TileWork

__all__ = ["TRIES", "MakeTiles", "SetAside", "require_dask"]

TRIES = 3
"""So often a tile is tried."""


@dataclass(frozen=True)
class SetAside:
    """A tile that was given up.

    Attributes:
        index: number of the tile.
        n_tries: how often it was tried.
        error: what the last try ended with.
    """

    index: int
    n_tries: int
    error: BerundaError


MakeTiles = Callable[["TileWork | PatchWork", Sequence[int]], Iterator["Receipt | SetAside"]]
"""Makes the tiles of these numbers and yields what became of each, in any order."""


def require_dask() -> None:
    """Make sure that the extra for clusters is installed, without importing it.

    Raises:
        ConfigError: it is not; the message says how to install it.
    """
    if importlib.util.find_spec("distributed") is None:
        raise ConfigError(
            "--dask: the package distributed is not installed, expected the extra 'dask'; "
            "install it with: pip install 'berunda[dask]'"
        )
