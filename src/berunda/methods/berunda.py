"""BerundaNet: one net that classifies labelled images and describes all images, in one training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from berunda.data.order import Randomness
from berunda.losses import l1, relaxed_kmeans, supervised_loss
from berunda.methods.contract import Batch, Loss, Method, Needs, NetSpec, SplitNet, Step, View, setting

__all__ = ["BerundaNet"]

_THESIS = "Castillo-Navarro 2022, section 3.2"


@dataclass(frozen=True)
class BerundaNet(Method):
    """Classification of labelled images and reconstruction of all images, by the same features.

    The late form: encoder and decoder are shared, each task has one convolution of its own. The auxiliary
    task is either to rebuild the pixels (l1) or to cluster them softly so that the clusters' means rebuild
    them (kmeans). It has no pseudo-labels. Costs one trained pass an unlabelled image and no teacher.

    Source: Castillo-Navarro 2022, section 3.2 (late architecture), eq. 3.6 and 3.8 to 3.11.
    Deviations: all losses are means over valid pixels and bands where the thesis has sums, so its weights
    are a guide.
    """

    name: ClassVar[str] = "berunda"

    aux: str = setting("kmeans", "auxiliary task", valid=("l1", "kmeans"), source=_THESIS)
    lambda_u: float = setting(
        1.0, "weight of the auxiliary task (l1: 0.5 was best in the thesis)", valid=(0, 100), source=_THESIS
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
            tasks=("segmentation",),
            unlabelled=(View("weak", "weak"),),
            unlabelled_ratio=self.mu,
            trained_passes=1.0,
        )

    def init(self, net: nn.Module, spec: NetSpec) -> nn.Module:
        """Return the auxiliary task's convolution: to bands, or to clusters."""
        n_out = spec.n_bands if self.aux == "l1" else self.n_clusters
        extra = nn.Module()
        extra.add_module("head", nn.Conv2d(cast(SplitNet, net).feature_dim, n_out, 1))
        return extra

    def loss(self, net: nn.Module, extra: nn.Module, batch: Batch, step: Step, rng: Randomness) -> Loss:
        """Return supervised + lambda_u * auxiliary, with both streams in one forward pass."""
        del step, rng
        labelled, streams = batch.labelled["weak"], [batch.labelled["weak"], *batch.unlabelled.values()]
        pixels, valid = torch.cat([x.pixels for x in streams]), torch.cat([x.valid for x in streams])
        parts = cast(SplitNet, net)
        decoded = parts.decode(parts.encode(pixels))
        logits = parts.classify(decoded[: labelled.pixels.shape[0]])
        supervised = supervised_loss(logits, labelled.labels, labelled.valid, balance=self.balance)
        head: Any = extra.get_submodule("head")
        auxiliary, terms = self._auxiliary(pixels, head(decoded), valid)
        terms = {"supervised": supervised.detach(), "unsupervised": auxiliary.detach(), **terms}
        return Loss(supervised + self.lambda_u * auxiliary, terms)

    def _auxiliary(
        self, pixels: Tensor, described: Tensor, valid: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if self.aux == "l1":
            return l1(described, pixels, valid), {}
        reconstruction, indecision = relaxed_kmeans(pixels, described.softmax(dim=1), valid)
        terms = {"reconstruction": reconstruction.detach(), "indecision": indecision.detach()}
        return reconstruction + self.regularisation * indecision, terms
