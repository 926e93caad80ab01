"""The views of a stream as a method asks for them: one way for the loop and for the method check."""

from __future__ import annotations

from collections.abc import Sequence

from berunda.augment.draws import Draws, Place
from berunda.augment.geometry import Geometry
from berunda.augment.views import make_view, recipe_named
from berunda.data.order import Randomness
from berunda.data.source import RawImages
from berunda.errors import ConfigError
from berunda.methods.contract import Images, View

__all__ = ["are_maps", "render_views"]


def are_maps(labelled: RawImages) -> bool:
    """Say whether labels belong to pixels, so that views that are alike have to agree pixel by pixel."""
    return labelled.labels is None or labelled.labels.ndim == 3


def render_views(
    raw: RawImages, views: Sequence[View], rng: Randomness, place: Place | None = None, *, of_maps: bool
) -> dict[str, Images]:
    """Render `views` of one stream in their order; of maps, a view that is like another takes over its geometry.

    Args:
        raw: the images, on the device on which they are rendered.
        views: what to make of them.
        rng: fixed to the step and the stream.
        place: where the images stand in a larger batch; None for all of it.
        of_maps: see `are_maps`.

    Raises:
        ConfigError: a view is like none before it.
    """
    images: dict[str, Images] = {}
    for view in views:
        geometry: Geometry | None = None
        if view.like is not None and of_maps:
            if view.like not in images:
                raise ConfigError(f"view {view.name!r} is like {view.like!r}, which no view before it is called")
            geometry = images[view.like].geometry
        recipe = recipe_named(view.recipe, view.strength)
        draws = Draws(rng.torch(f"view {view.name}", device=raw.pixels.device), place)
        pixels, valid, labels, geometry = make_view(raw.pixels, raw.valid, raw.labels, recipe, draws, geometry=geometry)
        images[view.name] = Images(pixels, valid, labels, geometry, raw.index)
    return images
