"""Images that lie on the device as a whole: drawn there, and classified there, without a wait for a transfer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from berunda.assess.classify import Classified
from berunda.data.image_source import ImageSource
from berunda.data.images import TRAIN, ImageSet
from berunda.data.order import Randomness
from berunda.data.resampling import ResampledSource, resample_images
from berunda.data.scaling import CLIP, Scaling
from berunda.data.source import RawImages, Source
from berunda.train.config import TrainConfig
from berunda.train.loop import Trained

__all__ = ["Asked", "ResidentSource", "resident_source"]

_CLASSIFIED_AT_ONCE = 512


class ResidentSource(ImageSource):
    """The same draws as those of `ImageSource`, from pixels on the device; all training images are unlabelled ones.

    Args:
        images: the data set; it has to fit into the device's memory.
        labelled: (n,) indices of the labelled images.
        device: where the pixels go.
    """

    def __init__(self, images: ImageSet, labelled: np.ndarray, device: torch.device) -> None:
        super().__init__(images, labelled, images.of(TRAIN), images.scaling())
        low, high = (torch.from_numpy(values).view(-1, 1, 1) for values in self.scaling)
        self._low, self._gain = low.float().to(device), (2.0 / (high - low)).float().to(device)
        self._pixels = torch.from_numpy(np.array(images.pixels)).to(device)

    def _gather(self, stream: np.ndarray, position: np.ndarray, labels: np.ndarray | None) -> RawImages:
        at = torch.from_numpy(stream[position]).to(self._pixels.device)
        pixels = ((self._pixels[at].float() - self._low) * self._gain - 1.0).clamp(-CLIP, CLIP)
        given = None if labels is None else torch.from_numpy(labels[position]).to(pixels.device)
        valid = torch.ones(len(at), *pixels.shape[2:], dtype=torch.bool, device=pixels.device)
        return RawImages(pixels, valid, given, torch.from_numpy(position.astype(np.int64)))


def resident_source(images: ImageSet, labelled: np.ndarray, device: torch.device, image_px: int) -> Source:
    """Return a `ResidentSource` whose images have the side `image_px`: the device resamples what is drawn."""
    source = ResidentSource(images, labelled, device)
    return source if images.size == (image_px, image_px) else ResampledSource(source, image_px)


@dataclass(frozen=True)
class Asked:
    """The averaged model of a training, to be shown images and asked for some.

    Attributes:
        trained: what the loop left behind.
        config: how it was trained; on a GPU the model answers in the precision of the training.
        scaling: of the training's images.
        image_px: their side.
    """

    trained: Trained
    config: TrainConfig
    scaling: Scaling
    image_px: int

    @torch.no_grad()
    def classified(self, images: ImageSet, index: np.ndarray) -> Classified:
        """Return what it makes of some images, beside their labels."""
        model, method = self.trained.model, self.trained.method
        net: Any = model.net
        logits, features = [], []
        for start in range(0, len(index), _CLASSIFIED_AT_ONCE):
            scaled = images.scaled(index[start : start + _CLASSIFIED_AT_ONCE], self.scaling)
            pixels = resample_images(torch.from_numpy(scaled).to(self.device), self.image_px)
            with self._precision():
                decoded = net.decode(net.encode(pixels))
                answer = method.classify(net, model.extra, pixels, decoded)
            logits.append(answer.float().cpu().numpy())
            features.append(decoded.float().cpu().numpy())
        if not logits:
            return Classified(np.zeros((0, len(images.classes)), np.float32), images.labels[index])
        return Classified(np.concatenate(logits), images.labels[index], np.concatenate(features))

    def generated(self, labels: np.ndarray, seed: int = 0) -> np.ndarray:
        """Return an image (N, B, side, side) float32 of each class of `labels` (N,), scaled as those of the training.

        Raises:
            ConfigError: the method generates none.
        """
        model, asked = self.trained.model, torch.from_numpy(labels).to(self.device)
        with self._precision():  # all in one call: a method may keep images of one call apart
            images = self.trained.method.generate(model.net, model.extra, asked, Randomness(seed))
        found: np.ndarray = images.detach().float().cpu().numpy()
        return found

    @property
    def device(self) -> torch.device:
        """Where it lies."""
        return next(self.trained.model.net.parameters()).device

    @contextmanager
    def _precision(self) -> Iterator[None]:
        is_bf16 = self.device.type == "cuda" and self.config.precision != "fp32"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=is_bf16):
            yield
