"""Models are asked about images in the training's scaling and at its side."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from berunda.bench.resident import Asked
from berunda.data.images import TEST, ImageSet
from berunda.data.scaling import Scaling
from berunda.train.config import TrainConfig


class _Means(nn.Module):
    """Answers with the means of the bands, and notes the side of what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))
        self.sides: list[int] = []

    def encode(self, pixels: Tensor) -> Tensor:
        self.sides.append(pixels.shape[-1])
        return pixels

    def decode(self, features: Tensor) -> Tensor:
        return features.mean((2, 3)) * self.factor


def _asked() -> tuple[Asked, _Means]:
    net = _Means()
    method = SimpleNamespace(classify=lambda net, extra, pixels, decoded: decoded)
    trained: Any = SimpleNamespace(model=SimpleNamespace(net=net, extra=nn.Module()), method=method)
    scaling = Scaling(np.zeros(3), np.full(3, 200.0))
    return Asked(trained, TrainConfig(device="cpu"), scaling, 8), net


def _images(labels: np.ndarray, task: Any) -> ImageSet:
    n = len(labels)
    pixels = np.full((n, 3, 4, 4), 150, np.uint8)
    parts, names = np.full(n, TEST, np.int8), tuple(map(str, range(n)))
    return ImageSet("others", task, pixels, labels, ("a", "b", "c"), ("r", "g", "b"), parts, names, "0" * 64)


def test_other_images_are_shown_as_the_training_ones_were() -> None:
    asked, net = _asked()
    found = asked.classified(_images(np.array([0, 2]), "scene"), np.array([1]))
    np.testing.assert_allclose(found.logits, [[0.5, 0.5, 0.5]])
    assert found.labels.tolist() == [2]
    assert net.sides == [8]


def test_no_image_of_several_labels_is_an_answer_too() -> None:
    asked, _ = _asked()
    found = asked.classified(_images(np.zeros((2, 3), np.float32), "multilabel"), np.zeros(0, np.int64))
    assert found.logits.shape == found.labels.shape == (0, 3)
