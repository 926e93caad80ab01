"""Receipts of tiles as they arrive: one thread makes tiles while another one already writes the rasters."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from berunda.mapping.journal import Receipt

__all__ = ["Arrivals", "NoMoreTiles"]


class NoMoreTiles(Exception):
    """A tile was waited for when the run that makes them ended early."""


class Arrivals:
    """The receipts of a plan's tiles by number; asking for one waits until it is there.

    Args:
        known: receipts of tiles that are there already.
    """

    def __init__(self, known: Mapping[int, Receipt]) -> None:
        self._known = dict(known)
        self._is_aborted = False
        self._changed = threading.Condition()

    def add(self, receipt: Receipt) -> None:
        """Announce a tile."""
        with self._changed:
            self._known[receipt.index] = receipt
            self._changed.notify_all()

    def abort(self) -> None:
        """Tell whoever waits, now or later, that the run is over: even tiles that are there are not wanted any more."""
        with self._changed:
            self._is_aborted = True
            self._changed.notify_all()

    def wait_for(self, index: int) -> Receipt:
        """Return the receipt of tile `index`, once it has come.

        Raises:
            NoMoreTiles: the run was aborted.
        """
        with self._changed:
            self._changed.wait_for(lambda: index in self._known or self._is_aborted)
            if self._is_aborted:
                raise NoMoreTiles(f"tile {index}")
            return self._known[index]
