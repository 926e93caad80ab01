"""What is wrong with a training on images is told before a net is made: their size, their classes, what is missing."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from berunda.api.choices import check_encoder_kind
from berunda.api.drawn import Drawn
from berunda.errors import ConfigError, DataError
from berunda.methods.contract import Method
from berunda.models.build import check_spec
from berunda.models.spec import NetSpec
from berunda.models.transformer import TRANSFORMERS
from berunda.train.stages import methods_of

__all__ = ["check_images", "check_run", "check_unlabelled"]

_MIN_SIDE_PX, _MAX_CLASSES = 16, 255


def check_run(methods: Iterable[Method], drawn: Drawn, spec: NetSpec, *, says_all: bool) -> None:
    """Refuse images, a net or methods that do not fit each other; nothing is trained or written yet.

    Args:
        methods: to train with.
        drawn: the images.
        spec: of the net.
        says_all: whether it was said that all labels are to be used, see `check_unlabelled`.

    Raises:
        ConfigError: there is no such net, or a method cannot do with it.
        DataError: the images do not serve.
    """
    check_spec(spec)
    check_images(drawn)
    for method in methods:
        check_encoder_kind(method, spec.encoder)
        _check_patches(method, spec)
        check_unlabelled(method, drawn, says_all=says_all)


def _check_patches(method: Method, spec: NetSpec) -> None:
    """Refuse images of a single patch for a method that rests on patches."""
    if not any(one.needs().encoder == "vit" for one in methods_of(method)):
        return
    patch_px = TRANSFORMERS[spec.encoder][0]
    if spec.crop_px < 2 * patch_px:
        raise ConfigError(
            f"method '{method.name}': found images of {spec.crop_px} px, a single patch, expected at least "
            f"{2 * patch_px} px; choose larger --image-px or smaller patches"
        )


def check_images(drawn: Drawn) -> None:
    """Refuse images that are too small, or of too few or too many classes, for a bundle.

    Raises:
        DataError: saying what was found.
    """
    name, n_classes = drawn.images.name, len(drawn.classes)
    if min(drawn.images.size) < _MIN_SIDE_PX:
        rows, cols = drawn.images.size
        raise DataError(
            f"data set {name}: images of {cols} x {rows} px found, expected at least {_MIN_SIDE_PX} px a side; cut "
            "larger ones, or enlarge them"
        )
    if not 2 <= n_classes <= _MAX_CLASSES:
        raise DataError(
            f"data set {name}: {n_classes} classes found, expected 2 to {_MAX_CLASSES}; add or merge classes"
        )


def check_unlabelled(method: Method, drawn: Drawn, *, says_all: bool) -> None:
    """Refuse a method that learns from images without labels where there are none but the labelled ones.

    Args:
        method: with all its stages.
        drawn: the images.
        says_all: whether it was said that all labels are to be used: then the labelled images' own pixels are shown
            without labels too.

    Raises:
        DataError: there are none.
    """
    if says_all or len(np.setdiff1d(drawn.unlabelled, drawn.train)):
        return
    needing = next((one for one in methods_of(method) if _learns_from_unlabelled(one)), None)
    if needing is not None:
        raise DataError(
            f"data set {drawn.images.name}: 0 unlabelled images found, all {len(drawn.train)} training images are used "
            f"with their labels, expected others for method '{needing.name}'; add images in unlabelled/, use fewer "
            "labels, choose the method supervised, or ask for all labels (train: --label-fraction 1, bench: --labels "
            "all) to show the labelled images without labels too"
        )


def _learns_from_unlabelled(method: Method) -> bool:
    needs = method.needs()
    return needs.surveys > 0 or (bool(needs.unlabelled) and needs.unlabelled_ratio > 0)
