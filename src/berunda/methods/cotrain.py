"""Co-training: what a pixel's spectrum says and what its surroundings say teach the net on unlabelled imagery."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from berunda import losses
from berunda.data.order import Randomness
from berunda.methods.contract import (
    Batch,
    BufferUpdate,
    Loss,
    Method,
    Needs,
    NetSpec,
    SplitNet,
    Step,
    View,
    setting,
)

__all__ = ["CoTrain"]


@dataclass(frozen=True)
class CoTrain(Method):
    """A context classifier on the net and a spectrum classifier on single pixels, joined, teach the net's own head.

    Both are trained on labels alone and err in different places. Their averaged models, joined and weighted by the
    class shares that they see on unlabelled images, label every unlabelled pixel softly; the net's head learns that,
    and with it the features that the context classifier stands on. The joined classifiers predict. The labels of few
    polygons say nothing of the classes' shares on the ground; the unlabelled images do. Costs one teacher pass and
    one trained pass an unlabelled image.

    It is not FixMatch: there is no strong view, no threshold, and teacher and student are different classifiers.

    Source: Blum and Mitchell 1998 (co-training, two views); Berthelot et al. 2020 (ReMixMatch), section 3.1
        (running class shares of the predictions).
    Deviations: one student learns from the mean of both views, softly; predictions are weighted by the running shares
        (to the power `prior`), where ReMixMatch divides by them.
    """

    name: ClassVar[str] = "cotrain"

    lambda_u: float = setting(1.0, "weight of what the teachers say on unlabelled pixels", valid=(0, 100))
    mu: float = setting(2.0, "unlabelled images for each labelled one", valid=(0, 64))
    prior: float = setting(0.5, "power of the class shares seen on unlabelled images", valid=(0, 1))
    width: int = setting(64, "width of the spectrum classifier", valid=(4, 1024), unit="channels")
    warmup: float = setting(0.1, "share of the training over which the weight rises", valid=(0, 1), unit="share")
    decay: float = setting(0.98, "decay of the running class shares", valid=(0, 1))
    smooth: int = setting(
        5, "side of the window over which the teachers' answers are averaged; 1 for none", valid=(1, 31), unit="px"
    )
    balance: bool = setting(
        True, "let every class of a batch count once, however many labelled pixels it has", valid=(False, True)
    )

    def needs(self) -> Needs:
        """Ask for one weak view of both streams and a teacher."""
        return Needs(
            tasks=("segmentation",),
            unlabelled=(View("weak", "weak"),),
            unlabelled_ratio=self.mu,
            teacher=True,
            forward_passes=1.0,
            trained_passes=1.0,
        )

    def init(self, net: nn.Module, spec: NetSpec) -> nn.Module:
        """Return the two classifiers and the running class shares."""
        extra = nn.Module()
        extra.add_module("context", nn.Conv2d(cast(SplitNet, net).feature_dim, spec.n_classes, 1))
        extra.add_module("spectrum", _spectrum_classifier(spec.n_bands, self.width, spec.n_classes))
        extra.register_buffer("shares", torch.full((spec.n_classes,), 1 / spec.n_classes))
        return extra

    def loss(self, net: nn.Module, extra: nn.Module, batch: Batch, step: Step, rng: Randomness) -> Loss:
        """Return the sum of each head's supervised loss and what the teachers tell the net's own head."""
        del rng
        labelled, unlabelled = batch.labelled["weak"], batch.unlabelled.get("weak")
        n = labelled.pixels.shape[0]
        shown = [labelled.pixels] if unlabelled is None else [labelled.pixels, unlabelled.pixels]
        parts, heads = cast(SplitNet, net), cast(Any, extra)
        pixels = torch.cat(shown)
        decoded = parts.decode(parts.encode(pixels))
        student = parts.restore(parts.classify(decoded), pixels)
        context = parts.restore(heads.context(decoded[:n]), labelled.pixels)
        answers = (context, heads.spectrum(labelled.pixels), student[:n])
        context, spectrum, own = (
            losses.supervised_loss(a, labelled.labels, labelled.valid, balance=self.balance) for a in answers
        )
        terms = {"context": context, "spectrum": spectrum, "supervised": own}
        total = context + spectrum + own
        updates: dict[str, BufferUpdate] = {}
        if unlabelled is not None and step.teacher is not None:
            taught, shares = self._taught(step.teacher, unlabelled.pixels, unlabelled.valid)
            told = losses.soft_cross_entropy_masked(student[n:], taught, unlabelled.valid)
            rise = min(1.0, step.progress / self.warmup) if self.warmup > 0 else 1.0
            total = total + self.lambda_u * rise * told
            terms["unsupervised"] = told
            running = losses.running_distribution(heads.shares, shares, step.index, self.decay)
            updates["shares"] = BufferUpdate(running)
        return Loss(total, {name: term.detach() for name, term in terms.items()}, updates)

    def predict(self, net: nn.Module, extra: nn.Module, pixels: Tensor) -> Tensor:
        """Return the joint logits of both classifiers."""
        parts = cast(SplitNet, net)
        return self.classify(net, extra, pixels, parts.decode(parts.encode(pixels)))

    def classify(self, net: nn.Module, extra: nn.Module, pixels: Tensor, decoded: Tensor) -> Tensor:
        """Return the joint logits of both classifiers, from decoded features."""
        heads = cast(Any, extra)
        context = cast(SplitNet, net).restore(_precise(heads.context(decoded)), pixels)
        spectrum = _precise(heads.spectrum(pixels))
        return losses.join_views(context, spectrum, heads.shares.to(context.dtype), self.prior)

    def kept(self) -> tuple[str, ...]:
        """Keep the net and both classifiers."""
        return ("net", "extra")

    @torch.no_grad()
    def _taught(self, teacher: nn.Module, pixels: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the teachers say of each pixel (N, C, H, W), and the mean of that before it is weighted (C,)."""
        heads = cast(Any, teacher).extra
        parts = cast(SplitNet, cast(Any, teacher).net)
        context = parts.restore(heads.context(parts.decode(parts.encode(pixels))), pixels)
        spectrum = heads.spectrum(pixels)
        plain = losses.join_views(context, spectrum, heads.shares, 0.0).softmax(1)
        joint = losses.join_views(context, spectrum, heads.shares, self.prior).softmax(1)
        return losses.smooth_masked(joint, valid, self.smooth), losses.class_means(plain, valid)


def _precise(logits: Tensor) -> Tensor:
    """Return logits (N, C, H, W) in at least float32, stored class by class, where sums over classes are fast."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    return logits.to(wide, memory_format=torch.contiguous_format)


def _spectrum_classifier(n_bands: int, width: int, n_classes: int) -> nn.Sequential:
    """Return two hidden layers of 1x1 convolutions with batch norm, and the classifier."""
    layers: list[nn.Module] = []
    for n_in in (n_bands, width):
        layers += [nn.Conv2d(n_in, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Conv2d(width, n_classes, 1))
