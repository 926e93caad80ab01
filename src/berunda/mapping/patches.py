"""From images to classes, calibrated probabilities and how unlike the training data each is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import softplus

from berunda.data.resampling import resample_images
from berunda.data.scaling import Scaling
from berunda.errors import DataError
from berunda.mapping.bundle import Bundle
from berunda.mapping.predictor import DistanceLayer, Precision, resolve_precision
from berunda.models.device import deterministic, resolve_device
from berunda.models.fold import fold_batch_norms

__all__ = ["PatchAnswers", "ScenePredictor", "symmetries"]

BATCH = 64
BATCH_CUDA = 512


@dataclass(frozen=True)
class PatchAnswers:
    """What a net says about n images; all arrays but `classes` are float32.

    Attributes:
        features: (n, D) what the net describes an image with.
        logits: (n, C).
        probabilities: (n, C) calibrated; of task "scene" a row adds up to 1, of "multilabel" each is of its own.
        distance: (n,) feature distance to the labelled training images, NaN without such a layer; higher = less alike.
        energy: (n,) higher = less alike.
    """

    features: npt.NDArray[np.float32]
    logits: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float32]
    distance: npt.NDArray[np.float32]
    energy: npt.NDArray[np.float32]

    @property
    def classes(self) -> npt.NDArray[np.int64]:
        """The most probable class of each image, (n,) 0..C-1."""
        return self.probabilities.argmax(1)

    @property
    def confidence(self) -> npt.NDArray[np.float32]:
        """The probability of that class, (n,); for images with several labels see `ScenePredictor.confidence`."""
        return self.probabilities.max(1)

    @classmethod
    def joined(cls, parts: list[Self]) -> Self:
        """Return the answers of several batches as one."""
        return cls(*(np.concatenate([getattr(part, item.name) for part in parts]) for item in fields(cls)))


class ScenePredictor:
    """Applies a bundle for whole images (task "scene" or "multilabel").

    Calibration and thresholds are fitted on its answers, so that they hold for them.

    Attributes:
        manifest: of the bundle; `window_px` is the side of the images it was trained on, `net.crop_px` that to which
            they are resampled.
        device: where it computes.
        batch: images that go through the net at once.
        precision: "fp32", or "bf16": net and classifier in bfloat16, all that follows in float32.
        n_symmetries: mirrored and turned views of an image whose answers are averaged.
        scaling: low and high of the bands.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: str | torch.device = "cpu",
        *,
        precision: Precision = "auto",
        n_symmetries: int | None = None,
    ) -> None:
        """Build the net of `bundle`; `n_symmetries` instead of the bundle's number of averaged views, if given."""
        self.manifest = bundle.manifest
        self.n_symmetries = n_symmetries or bundle.manifest.net.symmetries
        if self.manifest.task == "segmentation":
            raise DataError("the bundle's task is 'segmentation', expected one for whole images: it draws maps instead")
        self.device = resolve_device(device)
        self.precision = resolve_precision(precision, self.device)
        self.dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        model = bundle.build(self.device)
        fold_batch_norms(model.net)
        fold_batch_norms(model.extra)
        layout = torch.channels_last
        self._net: Any = model.net.to(dtype=self.dtype).to(memory_format=layout)
        self._extra = model.extra.to(dtype=self.dtype).to(memory_format=layout)
        self._method = model.method
        self.batch = BATCH if self.device.type == "cpu" else BATCH_CUDA
        self._distance = DistanceLayer.of(bundle, self.device)
        self.scaling = Scaling(
            np.array([b.low for b in self.manifest.bands]), np.array([b.high for b in self.manifest.bands])
        )

    def predict(self, pixels: npt.NDArray[np.float32]) -> PatchAnswers:
        """Return what the net says about scaled images, batch by batch.

        Args:
            pixels: (n, B, h, w) scaled pixels of any size, 0 where there is no data; n at least 1.
        """
        starts = range(0, len(pixels), self.batch)
        return PatchAnswers.joined([self.predict_batch(pixels[i : i + self.batch]) for i in starts])

    @torch.inference_mode()
    def predict_batch(self, pixels: npt.NDArray[np.float32]) -> PatchAnswers:
        """Return what the net says about one batch: the same batch gives the same bits."""
        given = torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device)
        features, logits = self._answers(resample_images(given, self.manifest.net.crop_px))
        scaled = logits / self.manifest.calibration.temperature
        if self.manifest.task == "scene":
            probabilities, energy = scaled.softmax(1), -logits.logsumexp(1)
        else:
            probabilities, energy = scaled.sigmoid(), -softplus(logits).sum(1)
        distance = torch.full_like(energy, torch.nan)
        if self._distance is not None:
            distance = self._distance(features[:, :, None, None])[:, 0, 0]
        told = (features, logits, probabilities, distance, energy)
        return PatchAnswers(*(value.float().cpu().numpy() for value in told))

    def confidence(self, answers: PatchAnswers) -> npt.NDArray[np.float32]:
        """Return how sure the model is of each image, (n,): the probability of its class.

        Of several labels it is the mean over all of them of the probability of being there or of not being there,
        whichever is larger: 0.5 to 1.
        """
        if self.manifest.task == "scene":
            return answers.confidence
        shares = answers.probabilities
        sure: npt.NDArray[np.float32] = np.maximum(shares, 1 - shares).mean(axis=1)
        return sure

    def named(self, answers: PatchAnswers) -> npt.NDArray[np.bool_]:
        """Return which of several labels each image is said to have, (n, C): those from their thresholds on."""
        return answers.probabilities >= np.array(self.manifest.named_from, np.float32)

    def _answers(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return float32 features (n, D) and logits (n, C), means over the symmetries of square `pixels`."""
        views = symmetries(pixels, self.n_symmetries)
        with deterministic() if self.device.type == "cuda" else nullcontext():
            features, logits = zip(*(self._answer(view) for view in views), strict=True)
            return torch.stack(features).mean(0), torch.stack(logits).mean(0)

    def _answer(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        given = pixels.to(self.dtype, memory_format=torch.channels_last)
        features = self._net.decode(self._net.encode(given))
        logits = self._method.classify(self._net, self._extra, given, features)
        return features.float(), logits.float()


def symmetries(pixels: Tensor, n: int) -> Iterator[Tensor]:
    """Yield the first `n` of the eight symmetries of square images (N, B, H, W): as they are, turned by half, mirrored
    both ways, then all of these across the diagonal.

    A view from above has no up or down, so each is as good an image as the others.
    """
    for flipped in (pixels, pixels.transpose(2, 3))[: 1 + n // 8]:
        for axes in ((), (2, 3), (2,), (3,))[: min(n, 4)]:
            yield flipped.flip(axes) if axes else flipped
