"""BerundaNet: one net that classifies labelled images and describes all images, in one training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from berunda.data.order import Randomness
from berunda.losses import l1, l2, relaxed_kmeans, supervised_loss
from berunda.methods.contract import Batch, Loss, Method, Needs, NetSpec, SplitNet, Step, View, setting

__all__ = ["BerundaNet"]

_THESIS = "Castillo-Navarro 2022, section 3.2"


@dataclass(frozen=True)
class BerundaNet(Method):
    """Classification of labelled images and reconstruction of all images, by the same features.

    The late form. Maps: encoder and decoder are shared, each task has one convolution of its own. Whole images: the
    encoder is shared, and a light decoder of two convolutions describes the pixels from its coarsest features alone,
    the same that are pooled and classified. The auxiliary task is either to rebuild the pixels (l1, l2) or to cluster
    them softly so that the clusters' means rebuild them (kmeans). It has no pseudo-labels. Costs one trained pass an
    unlabelled image and no teacher.

    Source: Castillo-Navarro 2022, section 3.2 (late architecture), eq. 3.6 to 3.11.
    Deviations: all losses are means over valid pixels and bands where the thesis has sums, so its weights
    are a guide; the decoder for whole images works at twice the resolution of the coarsest features and is
    interpolated, so that it costs next to nothing.
    """

    name: ClassVar[str] = "berunda"

    aux: str = setting("kmeans", "auxiliary task", valid=("l1", "l2", "kmeans"), source=_THESIS)
    lambda_u: float = setting(
        1.0,
        "weight of the auxiliary task (best in the thesis for maps: l1 0.5, l2 5, kmeans 1)",
        valid=(0, 100),
        source=_THESIS,
    )
    regularisation: float = setting(
        1.0,
        "weight of the clusters' indecision within kmeans",
        valid=(0, 100),
        source="eq. 3.11 of the thesis",
    )
    n_clusters: int = setting(16, "clusters of kmeans", valid=(2, 256), unit="clusters")
    mu: float = setting(1.0, "unlabelled images for each labelled one", valid=(0, 64))
    balance: bool = setting(
        True, "let every class of a batch count once, however many labelled pixels it has", valid=(False, True)
    )

    def needs(self) -> Needs:
        """Ask for one weak view of both streams."""
        return Needs(
            tasks=("segmentation", "scene", "multilabel"),
            unlabelled=(View("weak", "weak"),),
            unlabelled_ratio=self.mu,
            trained_passes=1.0,
        )

    def init(self, net: nn.Module, spec: NetSpec) -> nn.Module:
        """Return the auxiliary task's head, to bands or to clusters: a convolution, or a light decoder."""
        n_out = self.n_clusters if self.aux == "kmeans" else spec.n_bands
        n_in = cast(SplitNet, net).feature_dim
        head = nn.Conv2d(n_in, n_out, 1) if spec.task == "segmentation" else _LightDecoder(n_in, n_out)
        extra = nn.Module()
        extra.add_module("head", head)
        return extra

    def loss(self, net: nn.Module, extra: nn.Module, batch: Batch, step: Step, rng: Randomness) -> Loss:
        """Return supervised + lambda_u * auxiliary, with both streams in one forward pass."""
        del step, rng
        labelled, streams = batch.labelled["weak"], [batch.labelled["weak"], *batch.unlabelled.values()]
        pixels, valid = torch.cat([x.pixels for x in streams]), torch.cat([x.valid for x in streams])
        parts = cast(SplitNet, net)
        features = parts.encode(pixels)
        decoded = parts.decode(features)
        logits = parts.restore(parts.classify(decoded[: labelled.pixels.shape[0]]), labelled.pixels)
        supervised = supervised_loss(logits, labelled.labels, labelled.valid, balance=self.balance)
        head: Any = extra.get_submodule("head")
        if decoded.ndim == 4:
            described = parts.restore(head(decoded), pixels)
        else:
            described = head(features[-1], tuple(pixels.shape[-2:]))
        auxiliary, terms = self._auxiliary(pixels, described, valid)
        terms = {"supervised": supervised.detach(), "unsupervised": auxiliary.detach(), **terms}
        return Loss(supervised + self.lambda_u * auxiliary, terms)

    def _auxiliary(self, pixels: Tensor, described: Tensor, valid: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        if self.aux != "kmeans":
            rebuild = l1 if self.aux == "l1" else l2
            return rebuild(described, pixels, valid), {}
        reconstruction, indecision = relaxed_kmeans(pixels, described.softmax(dim=1), valid)
        terms = {"reconstruction": reconstruction.detach(), "indecision": indecision.detach()}
        return reconstruction + self.regularisation * indecision, terms


class _LightDecoder(nn.Module):
    """From (N, n_in, h, w) to (N, n_out, rows, cols): convolutions at twice the resolution at most, interpolated."""

    def __init__(self, n_in: int, n_out: int, width: int = 32) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(n_in, width, 1)
        self.look = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, n_out, 1)

    def forward(self, coarse: Tensor, size: tuple[int, int]) -> Tensor:
        rows, cols = (min(2 * n, whole) for n, whole in zip(coarse.shape[-2:], size, strict=True))
        finer = _resized(F.relu(self.narrow(coarse)), (rows, cols))
        return _resized(self.last(F.relu(self.look(finer))), size)


def _resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    return x if x.shape[-2:] == size else F.interpolate(x, size=size, mode="bilinear", align_corners=False)
