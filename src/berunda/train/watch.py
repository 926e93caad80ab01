"""Tells by the figures of its steps that a training has diverged: it neither stops nor mends anything itself."""

from __future__ import annotations

import math
import statistics
from bisect import insort
from collections import deque
from collections.abc import Mapping, Sequence

__all__ = ["LARGEST_LOSS", "Silence", "Watch", "drift"]

LARGEST_LOSS = 1e8
"""A loss beyond this is treated as non-finite is: no update is made from it."""

_FIRST, _LAST, _FACTOR = 20, 5, 10.0

LEARNED = "supervised"
"""The term that tells whether a net still knows what its labels taught it."""
_WINDOW = 20
_BEGUN, _BACK, _QUIET, _LEAST_STRETCHES = 0.5, 0.9, 0.2, 3


def drift(totals: Sequence[float], factor: float = _FACTOR) -> tuple[float, float] | None:
    """Return (level at the start, level now) when the losses of a stage ran away, else None.

    The levels are medians of the first 20 and the last 5 steps; they ran away when they differ by more than
    `factor` times the first level (or `factor`, where that is below 1), in either direction. A growth of 5% a step is
    found in 50 steps at a factor of 10. Where the first loss of all, before any update, is nearer to 0 than that
    median, it is the first level: steps that blow up at once shall not set what they are held against.

    Example:
        >>> drift([1.0] * 30), drift([1.0] * 20 + [20.0] * 5)
        (None, (1.0, 20.0))
    """
    if len(totals) < 2 * _LAST:
        return None
    start = min(totals[0], statistics.median(totals[:_FIRST]), key=abs)
    now = statistics.median(totals[-_LAST:])
    return (start, now) if abs(now - start) > factor * max(1.0, abs(start)) else None


class Silence:
    """Whether a net came to answer the same to everything.

    A step that is far too large can leave such a net. Its loss is finite, no larger than that of an untrained one, and
    stays there. Over 20 steps the loss is at 90% or more of its first level (a median of 20 steps), and its spread from
    batch to batch is less than a fifth of what it was before (the lower quartile over stretches of 20 steps, three at
    least): losses of living nets differ as their batches do. One that begins below 0.5 tells nothing.

    Example:
        >>> silence = Silence()
        >>> [silence.fell(loss) for loss in [2.3, 2.0] * 30 + [2.3] * 20][-1]
        2.3
    """

    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=_WINDOW)
        self._spreads: list[float] = []
        self._first, self._n = math.inf, 0

    def fell(self, loss: float) -> float | None:
        """Take the finite loss of a step; return its level when the net fell silent, else None."""
        self._last.append(loss)
        self._n += 1
        if self._n < _WINDOW:
            return None
        level, spread = statistics.median(self._last), max(self._last) - min(self._last)
        if self._n == _WINDOW:
            self._first = level
        is_high = self._first >= _BEGUN and level >= _BACK * self._first
        n = len(self._spreads)
        is_silent = is_high and n >= _LEAST_STRETCHES and spread < _QUIET * self._spreads[n // 4]
        if self._n % _WINDOW == 0:
            insort(self._spreads, spread)
        return level if is_silent else None


class Watch:
    """The figures of one stage, step by step.

    Args:
        watched: terms that may not run away either, beside the total loss, each with its factor, see `drift`.
        bounds: terms that may not stay large, each with its limit: the median of the last 20 magnitudes.
        rows: the figures of the steps that the stage has made already.
        hears_silence: whether a net that answers the same to everything has diverged. Where a run ends by that, instead
            of going back, one that has merely learnt nothing yet must not be taken for one.
    """

    def __init__(
        self,
        watched: Sequence[tuple[str, float]] = (),
        bounds: Sequence[tuple[str, float]] = (),
        rows: Sequence[Mapping[str, float]] = (),
        *,
        hears_silence: bool = False,
    ) -> None:
        self._factors = {"total": _FACTOR, **dict(watched)}
        self._levels = {name: [row[name] for row in rows if name in row] for name in self._factors}
        self._bounds = {name: (limit, deque[float](maxlen=_WINDOW)) for name, limit in bounds}
        self._silence = Silence() if hears_silence else None
        for row in rows:
            self._too_large(row)
            self._silent(row)

    def broken(self, figures: Mapping[str, float]) -> str:
        """Return which figure of a step is not finite, in words; "" if all are, and no update is at fault."""
        order = sorted(figures, key=lambda name: (name == "gradient_norm", name == "total"))
        for name in order:
            value = figures[name]
            if not math.isfinite(value) or (name == "total" and abs(value) > LARGEST_LOSS):
                return f"{_kind(name)} is {value:g}"
        return ""

    def drifted(self, figures: Mapping[str, float]) -> str:
        """Take the finite figures of a step; return what ran away with it, in words, "" if nothing."""
        for name, factor in self._factors.items():
            if name not in figures:
                continue
            self._levels[name].append(figures[name])
            ran_away = drift(self._levels[name], factor)
            if ran_away is not None:
                what = "the loss" if name == "total" else _kind(name)
                return f"{what} drifted from {ran_away[0]:.4g} to {ran_away[1]:.4g}"
        return self._too_large(figures) or self._silent(figures)

    def _too_large(self, figures: Mapping[str, float]) -> str:
        found = ""
        for name, (limit, last) in self._bounds.items():
            if name not in figures:
                continue
            last.append(abs(figures[name]))
            now = statistics.median(last)
            if len(last) == _WINDOW and now > limit:
                found = f"{_kind(name)} stays at {now:.4g}, beyond {limit:g}"
        return found

    def _silent(self, figures: Mapping[str, float]) -> str:
        if self._silence is None or LEARNED not in figures:
            return ""
        level = self._silence.fell(figures[LEARNED])
        if level is None:
            return ""
        return f"{_kind(LEARNED)} stays at {level:.4g}, where it began: the net answers the same to everything"


def _kind(name: str) -> str:
    if name == "gradient_norm":
        return "the norm of the gradient"
    return "the total loss" if name == "total" else f"term {name!r}"
