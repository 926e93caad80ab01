"""A small world to try a method in: a net, images, views, a teacher and a plain loop."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from berunda.data.order import Randomness
from berunda.data.source import RawImages
from berunda.methods._views import are_maps, render_views
from berunda.methods.contract import Batch, Loss, Method, Needs, NetSpec, Step, Task
from berunda.models.pooled import PooledNet
from berunda.models.resolution import FullResolution
from berunda.models.transformer import VisionTransformer

__all__ = ["NetFactory", "PointNet", "Trial", "make_images", "make_trial", "patch_net"]

NetFactory = Callable[[NetSpec], nn.Module]

N_BANDS, N_CLASSES, SIDE_PX = 4, 3, 12


class PointNet(FullResolution, nn.Module):
    """A net that looks at each pixel by itself, so that whatever passes between pixels is the method's doing.

    Attributes:
        feature_dim: channels of the decoded features.
    """

    def __init__(self, spec: NetSpec, width: int = 16) -> None:
        super().__init__()
        self.spec = spec
        self.feature_dim = width
        self.is_pooled = spec.task != "segmentation"
        self.first = nn.Conv2d(spec.n_bands, width, 1)
        self.second = nn.Conv2d(width, width, 1)
        self.head = nn.Linear(width, spec.n_classes) if self.is_pooled else nn.Conv2d(width, spec.n_classes, 1)

    def encode(self, pixels: Tensor) -> list[Tensor]:
        """Return `pixels` (N, B, H, W), and features (N, D, H, W) as the only stage."""
        return [pixels, self.first(pixels).relu()]

    def decode(self, features: list[Tensor]) -> Tensor:
        """Return (N, D, H, W), or their mean (N, D) for whole images."""
        decoded: Tensor = self.second(features[-1]).relu()
        return decoded.mean(dim=(2, 3)) if self.is_pooled else decoded

    def classify(self, decoded: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = self.head(decoded)
        return logits

    def second_decoder(self, n_out: int) -> PointNet:
        """Return a decoder of its own for maps."""
        second = PointNet(replace(self.spec, n_classes=n_out), self.feature_dim)
        second.first = nn.Identity()  # type: ignore[assignment]
        return second

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits of `pixels` (N, B, H, W)."""
        return self.classify(self.decode(self.encode(pixels)))


@dataclass
class Trial:
    """A method with all that it meets in training.

    Attributes:
        method: the method.
        spec: task, bands and classes.
        net: the net; `extra`: what the method adds to it.
        extra: the method's parts.
        labelled: images with labels.
        unlabelled: images without.
        teacher: frozen copy of net and extra, or None.
        rng: source of randomness.
    """

    method: Method
    spec: NetSpec
    net: nn.Module
    extra: nn.Module
    labelled: RawImages
    unlabelled: RawImages
    teacher: nn.Module | None
    rng: Randomness

    def batch(self, step: int = 0) -> Batch:
        """Return the views that the method asks for."""
        return batch_of(self.method.needs(), self.labelled, self.unlabelled, self.rng.at(step))

    def loss(self, batch: Batch | None = None, step: int = 0) -> Loss:
        """Return the method's loss at `step`."""
        where = Step(index=step, total=100, teacher=self.teacher)
        batch = self.batch(step) if batch is None else batch
        return self.method.loss(self.net, self.extra, batch, where, self.rng.at(step))

    def train(self, n_steps: int, learning_rate: float = 0.02) -> list[float]:
        """Take plain Adam steps, follow them with the teacher, write updates; return the losses."""
        optimizer = torch.optim.Adam([*self.net.parameters(), *self.extra.parameters()], lr=learning_rate)
        losses = []
        for step in range(n_steps):
            loss = self.loss(step=step)
            optimizer.zero_grad()
            loss.total.backward()
            optimizer.step()
            for name, update in loss.updates.items():
                self.extra.get_buffer(name).copy_(update.value)
            if self.teacher is not None:
                follow(self.teacher, self.net, self.extra, 0.9)
            losses.append(loss.total.item())
        return losses


def make_images(spec: NetSpec, n: int, seed: int, *, with_labels: bool) -> RawImages:
    """Return `n` images with classes that a pixel's bands tell; some pixels invalid, some unlabelled."""
    generator = torch.Generator().manual_seed(seed)
    shape = (n, SIDE_PX, SIDE_PX)
    colours = torch.eye(spec.n_classes, spec.n_bands) * 2
    truth = torch.randint(spec.n_classes, (n, 3, 3), generator=generator)
    if spec.task != "segmentation":
        truth = truth[:, :1, :1].expand(n, 3, 3)
    truth = truth.repeat_interleave(SIDE_PX // 3, 1).repeat_interleave(SIDE_PX // 3, 2)
    pixels = colours[truth].permute(0, 3, 1, 2) + 0.1 * torch.randn(
        n, spec.n_bands, SIDE_PX, SIDE_PX, generator=generator
    )
    valid = torch.rand(shape, generator=generator) > 0.1
    labels = truth.masked_fill(torch.rand(shape, generator=generator) < 0.3, -1)
    if spec.task == "scene":
        labels = truth[:, 0, 0]
    elif spec.task == "multilabel":
        labels = nn.functional.one_hot(truth[:, 0, 0], spec.n_classes).float()
    pixels = pixels.masked_fill(~valid[:, None], 0)
    return RawImages(pixels, valid, labels if with_labels else None, torch.arange(n))


def batch_of(needs: Needs, labelled: RawImages, unlabelled: RawImages | None, rng: Randomness) -> Batch:
    """Return the views of both streams; none of the unlabelled stream where `unlabelled` is None."""
    of_maps = are_maps(labelled)
    streams = {} if unlabelled is None else render_views(unlabelled, needs.unlabelled, rng.at(1), of_maps=of_maps)
    return Batch(render_views(labelled, needs.labelled, rng.at(0), of_maps=of_maps), streams)


def follow(teacher: nn.Module, net: nn.Module, extra: nn.Module, decay: float) -> None:
    """Move the teacher's parameters and buffers towards those of net and extra."""
    source = nn.ModuleDict({"net": net, "extra": extra}).state_dict()
    with torch.no_grad():
        for name, value in teacher.state_dict().items():
            new = source[name]
            value.copy_(torch.lerp(new, value, decay) if value.is_floating_point() else new)


def make_trial(method: Method, task: Task, net_factory: NetFactory | None = None, n_labelled: int = 4) -> Trial:
    """Return a trial of `method` on `task`, the same for every call.

    The net is that of `net_factory`; else the method's own, if it builds one; else a small transformer for a method
    that asks for one, a `PointNet` for others. Global random numbers are left as they were.
    """
    n_unlabelled = max(1, round(min(method.needs().unlabelled_ratio, 2) * n_labelled))
    spec = NetSpec(task, N_BANDS, N_CLASSES, pretrained=False, crop_px=SIDE_PX)
    spec = replace(spec, n_labelled=n_labelled, n_unlabelled=n_unlabelled)
    if net_factory is None:
        net_factory = _net_for(method)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = net_factory(spec)
        extra = method.init(net, spec)
    teacher = None
    if method.needs().teacher:
        teacher = copy.deepcopy(nn.ModuleDict({"net": net, "extra": extra})).eval().requires_grad_(False)
    labelled = make_images(spec, n_labelled, 1, with_labels=True)
    unlabelled = make_images(spec, n_unlabelled, 2, with_labels=False)
    return Trial(method, spec, net, extra, labelled, unlabelled, teacher, Randomness(0))


def _net_for(method: Method) -> NetFactory:
    if type(method).build is not Method.build:
        return method.build
    return patch_net if method.needs().encoder == "vit" else PointNet


def patch_net(spec: NetSpec) -> PooledNet:
    """Return a transformer with a single block over nine patches."""
    return PooledNet(VisionTransformer(spec.n_bands, spec.crop_px, (SIDE_PX // 3, 16, 1, 2)), spec.n_classes, stride=1)


def without_labels(images: RawImages) -> RawImages:
    """Return the images with every label unknown."""
    if images.labels is None:
        return images
    unknown = float("nan") if images.labels.is_floating_point() else -1
    return replace(images, labels=torch.full_like(images.labels, unknown))


def without_pixels(images: RawImages) -> RawImages:
    """Return the images with no valid pixel."""
    return replace(images, valid=torch.zeros_like(images.valid), pixels=torch.zeros_like(images.pixels))


def without_images(images: RawImages) -> RawImages:
    """Return a stream of no images at all."""
    labels = None if images.labels is None else images.labels[:0]
    return RawImages(images.pixels[:0], images.valid[:0], labels, images.index[:0])
