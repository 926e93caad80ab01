"""The classical floor of every table: what learns on the features of a pretrained encoder that is trained no further.

All ways see the same labelled images as the nets they stand beside; one sees the test images too, without labels.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from berunda.api.drawn import Drawn
from berunda.api.scene_result import SceneResult
from berunda.assess.classify import Classified
from berunda.assess.measures import measures_of
from berunda.data.images import ImageSet
from berunda.data.resampling import resample_images
from berunda.mapping.predictor import resolve_precision
from berunda.models.build import build_net
from berunda.models.device import resolve_device
from berunda.models.encoders import DEFAULT_ENCODER
from berunda.models.fold import fold_batch_norms
from berunda.models.presence import held_presence, inductive_presence, propagate_presence
from berunda.models.propagation import Projection, fit_projection, inductive, knn_graph, propagate
from berunda.models.spec import NetSpec
from berunda.progress import Progress, Silent

__all__ = [
    "FLOOR_PX",
    "FrozenFeatures",
    "floor_result",
    "propagation_result",
    "regression_result",
    "transductive_result",
]

FLOOR_PX = 128
"""Images are shown at this side at least: features of the coarsest stage need room, and nothing is trained at it."""
_CHUNK = 64
_LEAST = 1e-6  # probability of a class without a label
_N_COMPONENTS, _N_NEIGHBOURS = 64, 15


class Cost(NamedTuple):
    """What features cost: images described, seconds that took, and the clock when all were there."""

    n_images: int
    seconds: float
    start: float


class FrozenFeatures:
    """Features of the images of a data set by an encoder as it was pretrained; each image is described once.

    Attributes:
        encoder: its name; the packaged one where the encoder asked for has no pretrained weights.
        seconds: spent on the images so far.
        n_done: images described so far.
    """

    def __init__(
        self, images: ImageSet, encoder: str, *, pretrained: bool = True, device: str = "auto", px: int = FLOOR_PX
    ) -> None:
        self.encoder = encoder if pretrained else DEFAULT_ENCODER
        self.seconds = 0.0
        self.n_done = 0
        self._images = images
        self._px = px
        self._device = resolve_device(device)
        is_bf16 = resolve_precision("auto", self._device) == "bf16"
        self._dtype = torch.bfloat16 if is_bf16 else torch.float32
        spec = NetSpec(images.task, len(images.bands), max(2, len(images.classes)), self.encoder, encoder_depth=5)
        net = build_net(spec).eval().requires_grad_(False)
        fold_batch_norms(net)
        self._net = net.to(self._device, self._dtype).to(memory_format=torch.channels_last)
        self._rows = np.zeros((len(images), net.feature_dim), np.float32)
        self._is_done = np.zeros(len(images), bool)

    def of(self, index: np.ndarray, progress: Progress | None = None) -> np.ndarray:
        """Return the features (n, D) float32 of some images."""
        missing = np.unique(index[~self._is_done[index]])
        told = progress or Silent()
        start = time.perf_counter()
        if len(missing):
            told.start(f"features ({self.encoder})", len(missing))
        for at in range(0, len(missing), _CHUNK):
            piece = missing[at : at + _CHUNK]
            self._rows[piece] = self._describe(self._images.scaled(piece))
            told.advance(len(piece))
        if len(missing):
            told.finish()
        self._is_done[missing] = True
        self.seconds += time.perf_counter() - start
        self.n_done += len(missing)
        return self._rows[index]

    def parts(self, drawn: Drawn, learned_from: np.ndarray, progress: Progress | None) -> tuple[np.ndarray, Cost]:
        """Describe what a run needs.

        Args:
            drawn: the images of the run.
            learned_from: images that it learns from.
            progress: told of those that were not described before.

        Returns:
            The features of the images learned from, and what all images of the run cost, as if none had been described
            before.
        """
        needed = np.unique(np.concatenate([learned_from, drawn.validation, drawn.test]))
        self.of(needed, progress)
        seconds = self.seconds / max(1, self.n_done) * len(needed)
        return self.of(learned_from), Cost(len(needed), seconds, time.perf_counter())

    @torch.inference_mode()
    def _describe(self, pixels: np.ndarray) -> np.ndarray:
        given = resample_images(torch.from_numpy(pixels).to(self._device), self._px)
        given = given.to(self._dtype, memory_format=torch.channels_last)
        return self._net.decode(self._net.encode(given)).float().cpu().numpy()


def floor_result(name: str, features: FrozenFeatures, drawn: Drawn, progress: Progress | None = None) -> SceneResult:
    """Return what one of `berunda.bench.suite.KNOWN_FLOORS` reaches."""
    learn = {
        "features_logreg": regression_result,
        "features_propagate": propagation_result,
        "features_propagate_transductive": transductive_result,
    }
    return learn[name](features, drawn, progress)


def regression_result(features: FrozenFeatures, drawn: Drawn, progress: Progress | None = None) -> SceneResult:
    """Return what a logistic regression on the frozen features reaches, trained on the labelled images alone."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows, cost = features.parts(drawn, drawn.train, progress)
    given_labels, n_classes = drawn.labels(drawn.train), len(drawn.classes)

    def regression(given: np.ndarray, labels: np.ndarray, n: int) -> Callable[[np.ndarray], np.ndarray]:
        """Return what says the (k, n) probabilities of classes 0..n-1."""
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        model.fit(given, labels)

        def says(others: np.ndarray) -> np.ndarray:
            shares = np.zeros((len(others), n))
            if len(others):
                shares[:, model.classes_] = model.predict_proba(others)
            return shares

        return says

    if drawn.images.task == "scene":
        shares = regression(rows, given_labels, n_classes)
        return _result("features_logreg", features, drawn, lambda index: _log(shares(features.of(index))), cost)
    asked = [_one_label(regression, rows, labels) for labels in given_labels.T]

    def says(index: np.ndarray) -> np.ndarray:
        given = features.of(index)
        return np.stack([say(given) for say in asked], 1)

    return _result("features_logreg", features, drawn, says, cost)


def _one_label(
    regression: Callable[[np.ndarray, np.ndarray, int], Callable[[np.ndarray], np.ndarray]],
    rows: np.ndarray,
    labels: np.ndarray,
) -> Callable[[np.ndarray], np.ndarray]:
    """Return what says the logits (k,) of one of several labels; of one that is never or always there a constant."""
    known = ~np.isnan(labels)
    values = labels[known].astype(np.int64)
    if len(np.unique(values)) < 2:
        share = (values.sum() + 0.5) / (len(values) + 1)
        return lambda given: np.full(len(given), np.log(share / (1 - share)))
    says = regression(rows[known], values, 2)

    def logits(given: np.ndarray) -> np.ndarray:
        absent, present = _log(says(given)).T
        found: np.ndarray = present - absent
        return found

    return logits


def _log(shares: np.ndarray) -> np.ndarray:
    """Return the logarithms of probabilities, of which those of a class without a label are 0."""
    found: np.ndarray = np.log(np.maximum(shares, _LEAST))
    return found


def propagation_result(features: FrozenFeatures, drawn: Drawn, progress: Progress | None = None) -> SceneResult:
    """Return what labels reach that spread over the graph of the unlabelled images; no test image is in the graph.

    Several labels spread class by class.

    Source: as in `berunda.models.propagation`.
    """
    rows, cost = features.parts(drawn, drawn.unlabelled, progress)
    projection, points, soft = _spread(drawn, drawn.unlabelled, rows)
    ask = inductive if drawn.images.task == "scene" else inductive_presence

    def says(given: np.ndarray) -> np.ndarray:
        if not len(given):
            return np.zeros((0, len(drawn.classes)))
        return _logits(drawn, ask(projection.apply(features.of(given)), points, soft, _neighbours(points)))

    return _result("features_propagate", features, drawn, says, cost)


def transductive_result(features: FrozenFeatures, drawn: Drawn, progress: Progress | None = None) -> SceneResult:
    """Return what labels reach that spread over a graph in which the test images are too, never with their labels.

    The validation images are in it likewise, so that the temperature is measured on answers of the same kind. It is
    another task than `propagation_result`, which answers for images that were not there when it learned.

    Source: as in `berunda.models.propagation`; Zhou et al. 2004 is transductive.
    """
    index = np.unique(np.concatenate([drawn.unlabelled, drawn.validation, drawn.test]))
    rows, cost = features.parts(drawn, index, progress)
    _, _, soft = _spread(drawn, index, rows)

    def says(given: np.ndarray) -> np.ndarray:
        return _logits(drawn, soft[np.searchsorted(index, given)])

    made = _result("features_propagate_transductive", features, drawn, says, cost)
    return replace(made, is_transductive=True)


def _spread(drawn: Drawn, index: np.ndarray, rows: np.ndarray) -> tuple[Projection, np.ndarray, np.ndarray]:
    """Spread the labels of the run's labelled images over the graph of the images `index`.

    Args:
        drawn: the images of the run.
        index: (n,) images in the graph.
        rows: (n, D) their features.

    Returns:
        How features become points, the images' points (n, d), and their soft labels (n, C).
    """
    projection = fit_projection(rows, _N_COMPONENTS)
    points = projection.apply(rows)
    graph, is_given = knn_graph(points, _neighbours(points)), np.isin(index, drawn.train)
    if drawn.images.task == "scene":
        labels = np.where(is_given, drawn.labels(index), -1)
        return projection, points, propagate(graph, labels, len(drawn.classes))
    known = np.where(is_given[:, None], drawn.labels(index), np.nan).astype(np.float32)
    return projection, points, held_presence(propagate_presence(graph, known), known)


def _logits(drawn: Drawn, shares: np.ndarray) -> np.ndarray:
    """Return the logits of probabilities (n, C): of classes that exclude each other, or each against its absence."""
    return _log(shares) if drawn.images.task == "scene" else _log(shares) - _log(1 - shares)


def _neighbours(points: np.ndarray) -> int:
    return min(_N_NEIGHBOURS, len(points) - 1)


def _result(
    name: str,
    features: FrozenFeatures,
    drawn: Drawn,
    says: Callable[[np.ndarray], np.ndarray],
    cost: Cost,
) -> SceneResult:
    """Return a result on frozen features.

    Args:
        name: of the method.
        features: what it rests on.
        drawn: the images.
        says: from images (n,) to logits (n, C).
        cost: of the features, and when learning began.
    """

    def said(index: np.ndarray) -> Classified:
        return Classified(says(index), drawn.labels(index), features.of(index))

    validation, test = said(drawn.validation), said(drawn.test)
    wall_s = time.perf_counter() - cost.start + cost.seconds
    return SceneResult(
        method=name,
        encoder=features.encoder,
        figures=measures_of(drawn.images.task).figures(validation, test, class_names=drawn.classes),
        test=test,
        wall_s=wall_s,
        image_passes=cost.n_images / 3,
        images_per_s=cost.n_images / max(wall_s, 1e-9),
    )
