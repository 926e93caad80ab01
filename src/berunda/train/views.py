"""From raw images to the batch of views that a method asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from berunda.data.order import Randomness
from berunda.data.source import RawImages
from berunda.errors import ConfigError
from berunda.methods._views import are_maps, render_views
from berunda.methods.contract import IGNORE, Batch, Images, Needs
from berunda.train.feed import RawBatch

__all__ = ["Predictor", "batch_of_views", "move", "with_predicted_labels"]

Predictor = Callable[[Tensor], Tensor]
"""From pixels (N, B, H, W) to logits."""


def move(images: RawImages, device: torch.device) -> RawImages:
    """Return `images` on `device`, where they may lie already; index and its order stay on the CPU."""
    if images.pixels.device.type == device.type:
        return images

    def there(x: Tensor) -> Tensor:
        return x.pin_memory().to(device, non_blocking=True)

    labels = None if images.labels is None else there(images.labels)
    return RawImages(there(images.pixels), there(images.valid), labels, images.index)


def batch_of_views(raw: RawBatch, needs: Needs, rng: Randomness) -> Batch:
    """Return every view that `needs` names, of the labelled and (where there is one) the unlabelled stream.

    Args:
        raw: the images, on the device on which the views are rendered.
        needs: what the method asked for.
        rng: fixed to the step.
    """
    streams = {"labelled": (raw.labelled, needs.labelled), "unlabelled": (raw.unlabelled, needs.unlabelled)}
    of_maps = are_maps(raw.labelled)
    shown = {
        name: _laid_out(render_views(images, views, rng.at(number), raw.places.get(name), of_maps=of_maps))
        for number, (name, (images, views)) in enumerate(streams.items())
        if images is not None
    }
    return Batch(labelled=shown["labelled"], unlabelled=shown.get("unlabelled", {}))


def _laid_out(shown: dict[str, Images]) -> dict[str, Images]:
    """Return the views with their pixels as convolutions read them fastest."""
    return {
        name: replace(view, pixels=view.pixels.contiguous(memory_format=torch.channels_last))
        for name, view in shown.items()
    }


def with_predicted_labels(raw: RawBatch, predict: Predictor, *, multilabel: bool) -> RawBatch:
    """Return `raw` with the images of `raw.predicted` joined to the labelled stream; missing labels are
    predicted.

    Labels that were given stay as they are. The joined images carry the index -1.
    """
    labelled = raw.labelled
    pixels, valid, index = labelled.pixels, labelled.valid, labelled.index
    if labelled.labels is None:
        raise ConfigError("a stage with predicted labels: the labelled stream carries no labels")
    n_joined = 0
    if raw.predicted is not None:
        n_joined = raw.predicted.pixels.shape[0]
        pixels = torch.cat([pixels, raw.predicted.pixels])
        valid = torch.cat([valid, raw.predicted.valid])
        index = torch.cat([index, index.new_full((n_joined,), -1)])
    predicted = _labels_of(predict(pixels), valid, multilabel=multilabel)
    given = labelled.labels
    blank = given.new_full((n_joined, *given.shape[1:]), float("nan") if multilabel else IGNORE)
    given = torch.cat([given, blank])
    missing = given.isnan() if multilabel else given == IGNORE
    labels = torch.where(missing, predicted.to(given.dtype), given)
    return replace(raw, labelled=RawImages(pixels, valid, labels, index), predicted=None)


def _labels_of(logits: Tensor, valid: Tensor, *, multilabel: bool) -> Tensor:
    if multilabel:
        return (logits > 0).float()
    labels = logits.argmax(1)
    return labels if labels.ndim == 1 else labels.masked_fill(~valid, IGNORE)
