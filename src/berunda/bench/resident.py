"""Images that lie on the device as a whole: drawn there, and classified there, without a wait for a transfer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from berunda.assess.classify import Classified
from berunda.data.image_source import ImageSource
from berunda.data.images import TRAIN, ImageSet
from berunda.data.scaling import CLIP
from berunda.data.source import RawImages
from berunda.train.config import TrainConfig
from berunda.train.loop import Trained

__all__ = ["ResidentSource", "classified"]


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


@torch.no_grad()
def classified(
    trained: Trained, images: ImageSet, index: np.ndarray, config: TrainConfig, batch: int = 512
) -> Classified:
    """Return what the averaged model makes of some images, `batch` at once."""
    model, method = trained.model, trained.method
    net: Any = model.net
    device = next(net.parameters()).device
    is_bf16 = device.type == "cuda" and config.precision != "fp32"
    logits, features = [], []
    for start in range(0, len(index), batch):
        pixels = torch.from_numpy(images.scaled(index[start : start + batch])).to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=is_bf16):
            decoded = net.decode(net.encode(pixels))
            answer = method.classify(net, model.extra, pixels, decoded)
        logits.append(answer.float().cpu().numpy())
        features.append(decoded.float().cpu().numpy())
    if not logits:
        return Classified(np.zeros((0, len(images.classes)), np.float32), np.zeros(0, np.int64))
    return Classified(np.concatenate(logits), images.labels[index], np.concatenate(features))
