"""Every method that holds a state of its own, with a tiny net, to train in milliseconds; also a program to kill.

It reads lines "CASE STEPS FOLDER WORKERS" from its input and trains, see `killing`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from killing import Loud, serve
from torch import Tensor, nn
from toy_training import ToySource, digest

from berunda.data.order import Randomness
from berunda.data.source import RawImages
from berunda.methods import make_method, method_names
from berunda.methods._checking.trial import PointNet, patch_net
from berunda.methods.contract import Method, NetSpec, Task
from berunda.progress import Progress
from berunda.train.config import TrainConfig
from berunda.train.loop import train

N_LISTED = 40

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "fixmatch-adaptive": ("fixmatch", {"adaptive": True, "align": "labelled", "threshold": 0.4}),
    "fixmatch-student": ("fixmatch", {"q_from": "student", "adaptive": True, "threshold": 0.4}),
    "ssl_mae-normalised": ("ssl_mae", {"weighting": "normalised"}),
}
"""Methods whose state depends on their options, with others than the default ones."""


class NormedNet(PointNet):
    """With batch norm, and with dropout, which draws from torch's global generator."""

    def __init__(self, spec: NetSpec) -> None:
        super().__init__(spec)
        self.norm = nn.BatchNorm2d(self.feature_dim)
        self.dropout = nn.Dropout(0.2)

    def encode(self, pixels: Tensor) -> list[Tensor]:
        """Return `pixels` (N, B, H, W), and features (N, D, H, W) as the only stage."""
        return [pixels, self.dropout(self.norm(self.first(pixels)).relu())]


@dataclass(frozen=True)
class TaskSource(ToySource):
    """Images with labels as a task has them."""

    task: Task = "segmentation"

    def labelled(self, rng: Randomness, n: int) -> RawImages:
        """Draw images; where whole images have labels, each has those of its commonest brightest band."""
        images = super().labelled(rng, n)
        if self.task == "segmentation":
            return images
        share = nn.functional.one_hot(images.pixels[:, :3].argmax(1), 3).float().mean((1, 2))
        labels = share.argmax(1) if self.task == "scene" else (share > 1 / 3).float()
        return RawImages(images.pixels, images.valid, labels, images.index)

    def every(self, stream: Literal["labelled", "unlabelled"], n: int) -> Iterator[RawImages]:
        """Yield the images of a stream, `N_LISTED` of them."""
        draw = self.labelled if stream == "labelled" else self.unlabelled
        yield draw(Randomness(5), N_LISTED)

    def twins(self) -> Tensor:
        """Say that no labelled image is among the unlabelled ones."""
        return torch.full((N_LISTED,), -1)


def spec_of(method: Method) -> NetSpec:
    """Return what to try `method` on: the first task it serves."""
    counts = {"n_labelled": N_LISTED, "n_unlabelled": N_LISTED}
    return NetSpec(method.needs().tasks[0], 4, 3, pretrained=False, crop_px=12, **counts)


def tiny(case: str) -> Method:
    """Return the method of `case`, on a tiny net unless it builds one of its own."""
    name, options = VARIANTS.get(case, (case, {}))
    kind = type(make_method(name, options))
    if kind.build is not Method.build:
        return kind(**options)

    class Tiny(kind):  # type: ignore[misc, valid-type]
        def build(self, spec: NetSpec) -> nn.Module:
            return patch_net(spec) if self.needs().encoder == "vit" else NormedNet(spec)

    return Tiny(**options)


def with_state() -> tuple[str, ...]:
    """Return all cases whose method has a teacher, parts of its own, or stages that hand on a model."""
    return tuple(case for case in (*method_names(), *VARIANTS) if _has_state(tiny(case)))


def _has_state(method: Method) -> bool:
    if method.needs().teacher or len(method.stages()) > 1:
        return True
    spec = spec_of(method)
    return bool(method.init(method.build(spec), spec).state_dict())


def train_case(
    case: str, steps: int, folder: Path | None, *, workers: int = 1, progress: Progress | None = None
) -> str:
    """Train on one thread with a checkpoint every third step; return the digest."""
    method = tiny(case)
    spec = spec_of(method)
    config = TrainConfig(steps=steps, n_labelled=4, checkpoint_every=3, workers=workers, device="cpu")
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return digest(train(method, spec, TaskSource(task=spec.task), config, folder=folder, progress=progress))
    finally:
        torch.set_num_threads(n_threads)


def main(case: str, steps: str, folder: str, workers: str) -> None:
    """Train `case` in `folder`, telling every step."""
    train_case(case, int(steps), Path(folder), workers=int(workers), progress=Loud())


if __name__ == "__main__":
    train_case("fixmatch", 1, None)  # what torch imports late is imported once
    serve(main)
