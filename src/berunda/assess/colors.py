"""Class colours: those that maps have taught everybody, else a colour-blind-safe cycle."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["class_colors", "rgb_of"]

# The first row whose word starts a word of the class name wins, so special words stand above general ones.
KNOWN: tuple[tuple[str, str], ...] = (
    ("wetland marsh swamp bog mangrove peat fen reed", "#4fb3a5"),
    ("water river lake sea ocean pond reservoir canal stream lagoon", "#2f7fc1"),
    ("snow ice glacier", "#cfeaf5"),
    ("cloud haze", "#d9dde0"),
    ("shadow", "#5b6168"),
    ("orchard vineyard olive plantation allotment", "#a77bb5"),
    ("forest wood tree conifer deciduous broadleaf spruce pine", "#1f7a3d"),
    ("scrub shrub heath bush savanna moor", "#a8a24a"),
    ("meadow grass pasture herbaceous lawn park green", "#a3d46c"),
    ("farm crop arable field agri cereal maize wheat rice paddy", "#f2cf5b"),
    ("industr commerc retail factory quarry mine", "#8e5a8f"),
    ("resident built urban town city building settlement house suburb impervious artificial", "#cf4b3f"),
    ("road street transport rail highway airport paved", "#70757a"),
    ("bare sand soil rock beach desert barren land", "#c8a67d"),
)
CYCLE = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#882255",
    "#44aa99", "#999933", "#332288", "#bbbbbb", "#117733", "#ddcc77", "#aa4499", "#88ccee",
)  # fmt: skip
"""Okabe and Ito (2008), then Paul Tol's muted scheme: distinct under common colour vision deficiencies."""
MIN_DISTANCE = 60.0


def class_colors(names: Iterable[str]) -> list[str]:
    """Return one "#rrggbb" per class name, in the order of the names.

    Colours depend on the set of names only, not on their order, and no two classes share one (up to the
    length of the cycle): a name that would look like an earlier one (alphabetically) takes the next free
    colour of the cycle.

    Example:
        >>> class_colors(["water", "forest"])
        ['#2f7fc1', '#1f7a3d']
    """
    wanted = list(names)
    chosen: dict[str, str] = {}
    waiting = []
    for name in sorted(set(wanted)):
        color = _known(name)
        if color is not None and all(_distance(color, other) > MIN_DISTANCE for other in chosen.values()):
            chosen[name] = color
        else:
            waiting.append(name)
    for position, name in enumerate(waiting):
        free = [c for c in CYCLE if all(_distance(c, other) > MIN_DISTANCE for other in chosen.values())]
        unused = [c for c in CYCLE if c not in chosen.values()]
        chosen[name] = (free or unused or [CYCLE[position % len(CYCLE)]])[0]
    return [chosen[name] for name in wanted]


def _known(name: str) -> str | None:
    words = re.findall(r"[a-z]+", name.lower())
    if {"non", "no", "not"} & set(words):
        return None
    for starts, color in KNOWN:
        if any(word.startswith(start) for word in words for start in starts.split()):
            return color
    return None


def rgb_of(color: str) -> tuple[int, int, int]:
    """Return red, green, blue, 0 to 255, of "#rrggbb"."""
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def _distance(a: str, b: str) -> float:
    """Return the "redmean" distance of two colours, 0 to about 765, closer to the eye than plain RGB."""
    (r1, g1, b1), (r2, g2, b2) = rgb_of(a), rgb_of(b)
    mean = (r1 + r2) / 2
    weights = (2 + mean / 256, 4.0, 2 + (255 - mean) / 256)
    squares = ((r1 - r2) ** 2, (g1 - g2) ** 2, (b1 - b2) ** 2)
    return float(sum(w * s for w, s in zip(weights, squares, strict=True)) ** 0.5)
