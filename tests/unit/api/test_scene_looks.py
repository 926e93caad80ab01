"""Pictures of single images in a report: the labels that they explain are those that `predict` gives."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from toy_images import image_set
from toy_patches import scene_bundle

from berunda.api.drawn import Drawn, draw_images
from berunda.api.scene_looks import looks_of
from berunda.data.images import TEST, TRAIN, VALIDATION
from berunda.data.scaling import Scaling

SAID = (0.7, 0.4, 0.45)


def drawn(labels: np.ndarray) -> Drawn:
    return draw_images(image_set(labels, 3, [TRAIN] * 6 + [VALIDATION] * 3 + [TEST] * 3), "all", "fraction", 0)


def asked() -> Any:
    """What says the same of every image, and no part of one matters."""

    def predict(pixels: np.ndarray) -> SimpleNamespace:
        n = len(pixels)
        return SimpleNamespace(probabilities=np.tile(SAID, (n, 1)), logits=np.zeros((n, 3), np.float32))

    return SimpleNamespace(scaling=Scaling(np.zeros(3), np.full(3, 255.0)), predict=predict)


@pytest.mark.parametrize(
    ("thresholds", "named"),
    [((0.8, 0.3, 0.5), ["class1"]), ((0.4, 0.4, 0.4), ["class0", "class2", "class1"]), ((), ["class0"])],
)
def test_labels_from_their_thresholds_on_are_explained(thresholds: tuple[float, ...], named: list[str]) -> None:
    bundle = scene_bundle(task="multilabel")
    bundle = replace(bundle, manifest=bundle.manifest.model_copy(update={"thresholds": thresholds}))
    looks = looks_of(bundle, asked(), drawn(np.eye(3)[np.arange(12) % 3]))
    assert len(looks) == 3
    assert all([name for name, _ in look.reasons] == named for look in looks)


def test_where_no_label_is_given_none_is_explained() -> None:
    bundle = scene_bundle(task="multilabel")
    bundle = replace(bundle, manifest=bundle.manifest.model_copy(update={"thresholds": (0.9, 0.9, 0.9)}))
    assert not any(look.reasons for look in looks_of(bundle, asked(), drawn(np.eye(3)[np.arange(12) % 3])))


def test_of_single_labels_the_likeliest_is_explained() -> None:
    looks = looks_of(scene_bundle(), asked(), drawn(np.arange(12) % 3))
    assert all([name for name, _ in look.reasons] == ["class0"] for look in looks)
