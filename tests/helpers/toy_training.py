"""A tiny net, method and source to try the training loop on in milliseconds; also a program to kill.

`python toy_training.py FOLDER STEPS WORKERS PAUSE_S plain|staged` trains, checkpoints going to FOLDER, and
prints a hash of the result; without arguments it reads them from its input, line by line.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from killing import Loud, serve
from torch import Tensor, nn
from torch.nn import functional as F

from berunda.data.order import Randomness
from berunda.data.source import RawImages
from berunda.methods.contract import Batch, BufferUpdate, Loss, Method, Needs, NetSpec, Stage, Step, View
from berunda.progress import Progress
from berunda.train.config import TrainConfig
from berunda.train.loop import Trained, train

SPEC = NetSpec("segmentation", 4, 3, pretrained=False, crop_px=12)


class TinyNet(nn.Module):
    """Convolution, batch norm, dropout (which draws from torch's global generator), classifier."""

    def __init__(self, spec: NetSpec) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(spec.n_bands, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Conv2d(8, spec.n_classes, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.head(self.dropout(F.relu(self.norm(self.encoder(pixels)))))
        return logits


class Threshold(nn.Module):
    """A running figure, as FreeMatch keeps one."""

    level: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("level", torch.zeros(()))
        self.scale = nn.Parameter(torch.ones(1))


@dataclass(frozen=True)
class Toy(Method):
    """Cross-entropy plus consistency with the teacher, with faults to inject."""

    name: ClassVar[str] = "toy"
    weight: float = 0.5
    rho: float = 0.0
    ratio: float = 2.0
    groups: tuple[tuple[str, float], ...] = ()
    rate: float = 1.0
    clip_norm: float = 0.0
    staged: bool = False
    faults: Mapping[int, str] = field(default_factory=dict)

    def needs(self) -> Needs:
        return Needs(
            tasks=("segmentation",),
            labelled=(View("weak", "weak"),),
            unlabelled=(View("weak", "weak"), View("strong", "strong", like="weak")),
            unlabelled_ratio=self.ratio,
            teacher=True,
            parameter_groups=self.groups,
            rate=self.rate,
            clip_norm=self.clip_norm,
            sharpness_rho=self.rho,
        )

    def build(self, spec: NetSpec) -> nn.Module:
        return TinyNet(spec)

    def init(self, net: nn.Module, spec: NetSpec) -> nn.Module:
        return Threshold()

    def stages(self) -> tuple[Stage, ...]:
        if not self.staged:
            return super().stages()
        return (Stage("first", 0.5), Stage("second", 0.5, labels="predicted"))

    def loss(self, net: nn.Module, extra: nn.Module, batch: Batch, step: Step, rng: Randomness) -> Loss:
        labelled = batch.labelled["weak"]
        assert labelled.labels is not None
        assert step.teacher is not None
        supervised = net(labelled.pixels)
        n_used = (labelled.labels >= 0).sum().clamp_min(1)
        supervised = F.cross_entropy(supervised, labelled.labels, ignore_index=-1, reduction="sum") / n_used
        consistency = supervised.new_zeros(())
        if batch.unlabelled:
            with torch.no_grad():
                target = step.teacher.net(batch.unlabelled["weak"].pixels).softmax(1)
            noise = torch.rand((), generator=rng.torch("noise"))
            consistency = (net(batch.unlabelled["strong"].pixels).softmax(1) - target).square().mean() * noise
        total = (supervised + self.weight * consistency) * extra.scale.sum()
        total, terms = self._fault(step.index, total, {"supervised": supervised, "consistency": consistency})
        level = 0.9 * extra.level + 0.1 * supervised.detach()
        return Loss(total, {k: v.detach() for k, v in terms.items()}, {"level": BufferUpdate(level)})

    def _fault(self, index: int, total: Tensor, terms: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        kind = self.faults.get(index) or (self.faults.get(-1) if index >= 25 else None)
        if kind in ("nan", "inf"):
            return total * float(kind), {
                **terms,
                "consistency": terms["consistency"] * float(kind) + float(kind),
            }
        if kind == "term":
            return total, {**terms, "consistency": terms["consistency"] * float("nan")}
        if kind == "gradient":
            return total + (total - total.detach()).abs().sqrt(), terms  # finite, its derivative is not
        if kind == "huge":
            return total + 1e9, terms
        if kind == "drift":
            return total * 1.06 ** (index - 25), terms
        return total, terms


@dataclass(frozen=True)
class ToySource:
    """Images whose class is decided by which band is brightest; a share of the pixels is labelled."""

    n: int = 40
    has_unlabelled: bool = True
    labelled_share: float = 0.5
    pause_s: float = 0.0

    def labelled(self, rng: Randomness, n: int) -> RawImages:
        images = self._draw(rng, "labelled", n)
        truth = images.pixels[:, :3].argmax(1)
        shown = torch.rand(truth.shape, generator=rng.torch("shown")) < self.labelled_share
        return RawImages(images.pixels, images.valid, torch.where(shown & images.valid, truth, -1), images.index)

    def unlabelled(self, rng: Randomness, n: int) -> RawImages:
        return self._draw(rng, "unlabelled", n)

    def _draw(self, rng: Randomness, purpose: str, n: int) -> RawImages:
        time.sleep(self.pause_s)
        index = torch.from_numpy(rng.numpy(purpose).integers(self.n, size=n))
        parts = [torch.randn(4, 12, 12, generator=Randomness(7).torch(purpose, int(i))) for i in index]
        valid = torch.ones(n, 12, 12, dtype=torch.bool)
        valid[:, 0, :3] = False
        return RawImages(torch.stack(parts), valid, None, index)


def digest(trained: Trained) -> str:
    """Return a hash of all weights, buffers and the log of the losses."""
    hashed = hashlib.sha256()
    for module in (trained.net, trained.extra, trained.averaged):
        for name, value in module.state_dict().items():
            hashed.update(name.encode() + value.contiguous().numpy().tobytes())
    hashed.update(repr([row["total"] for row in trained.log]).encode())
    return hashed.hexdigest()


def train_in(
    folder: Path | None,
    steps: int,
    *,
    workers: int = 1,
    pause_s: float = 0,
    staged: bool = False,
    progress: Progress | None = None,
) -> str:
    """Train on one thread with a checkpoint every third step; return the digest."""
    config = TrainConfig(steps=steps, n_labelled=4, checkpoint_every=3, workers=workers)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return digest(
            train(Toy(staged=staged), SPEC, ToySource(pause_s=pause_s), config, folder=folder, progress=progress)
        )
    finally:
        torch.set_num_threads(n_threads)


def main(folder: str, steps: str, workers: str, pause_s: str, staged: str) -> None:
    """Train in `folder`, tell every step, and print the digest."""
    given = {"workers": int(workers), "pause_s": float(pause_s), "staged": staged == "staged"}
    print(train_in(Path(folder), int(steps), **given, progress=Loud()), flush=True)


if __name__ == "__main__":
    if sys.argv[1:]:
        print(os.getpid(), flush=True)
        main(*sys.argv[1:])
    else:
        train_in(None, 1)  # what torch imports late is imported once
        serve(main)
