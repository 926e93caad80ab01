"""W-Net: a second net reads what the first one says of the classes, and has to explain the image by it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import nn

from berunda import losses
from berunda.data.order import Randomness
from berunda.methods import _auxiliary as auxiliary
from berunda.methods.contract import Batch, Loss, Method, Needs, NetSpec, Step, View, setting
from berunda.models.build import build_net

__all__ = ["WNet"]

_THESIS = "Castillo-Navarro 2022, section 3.2"


@dataclass(frozen=True)
class WNet(Method):
    """Two nets one after the other: pixels to class probabilities, those probabilities to a description of the pixels.

    The second half rebuilds the pixels (l1, l2) or segments them into clusters of its own (kmeans, mumford_shah),
    knowing of the image only what the first half says. Labelled images train both halves, unlabelled ones the
    description, through which the first half learns. Only the first half predicts and is kept, so a model is as large
    and as fast as a supervised one. It is not BerundaNet: the halves share no weight, and the description sees classes
    instead of features. Costs two trained passes for each image, labelled or not, and no teacher.

    Source: Castillo-Navarro 2022, section 3.2 (W-Net).
    Deviations: losses are means over valid pixels and bands where the thesis has sums; the second half is a net like
        the first, with any encoder and decoder, that starts from random weights.
    """

    name: ClassVar[str] = "wnet"

    aux: str = setting(
        "kmeans",
        "second half: rebuild the pixels (l1, l2) or segment them without labels (kmeans, mumford_shah)",
        valid=auxiliary.DENSE,
        source=f"{_THESIS}, eq. 3.6 to 3.12",
    )
    lambda_u: float = setting(1.0, "weight of the second half's task", valid=(0, 100), source=_THESIS)
    regularisation: float = setting(
        1.0,
        "weight of the clusters' indecision (kmeans) or of the regions' borders (mumford_shah)",
        valid=(0, 100),
        source="eq. 3.11 and 3.12 of the thesis",
    )
    n_clusters: int = setting(16, "clusters of kmeans, regions of mumford_shah", valid=(2, 256), unit="clusters")
    mu: float = setting(1.0, "unlabelled images for each labelled one", valid=(0, 64))
    balance: bool = setting(
        True, "let every class of a batch count once, however many labelled pixels it has", valid=(False, True)
    )

    def needs(self) -> Needs:
        """Ask for one weak view of both streams."""
        return Needs(
            tasks=("segmentation",),
            unlabelled=(View("weak", "weak"),) if self.mu else (),
            unlabelled_ratio=self.mu,
            labelled_passes=2.0,
            trained_passes=2.0,
        )

    def init(self, net: nn.Module, spec: NetSpec) -> nn.Module:
        """Return the second half, which reads class probabilities."""
        del net
        n_out = auxiliary.n_described(self.aux, self.n_clusters, spec.n_bands)
        second = replace(
            spec,
            n_bands=spec.n_classes,
            n_classes=max(2, n_out),  # of a single band the builder makes no net; the second map is then left out
            pretrained=False,
            frozen_stages=0,
            pixel_path=False,
        )
        extra = nn.Module()
        extra.add_module("second", build_net(second))
        return extra

    def loss(self, net: nn.Module, extra: nn.Module, batch: Batch, step: Step, rng: Randomness) -> Loss:
        """Return supervised + lambda_u * auxiliary, with both streams in one pass through both halves."""
        del step, rng
        labelled, streams = batch.labelled["weak"], [batch.labelled["weak"], *batch.unlabelled.values()]
        pixels, valid = torch.cat([x.pixels for x in streams]), torch.cat([x.valid for x in streams])
        second: Any = extra.get_submodule("second")
        logits = self.predict(net, extra, pixels)
        own = logits[: len(labelled.pixels)]
        supervised = losses.supervised_loss(own, labelled.labels, labelled.valid, balance=self.balance)
        n_out = auxiliary.n_described(self.aux, self.n_clusters, pixels.shape[1])
        described = auxiliary.as_described(self.aux, second(losses.real(logits).softmax(dim=1))[:, :n_out])
        task, terms = auxiliary.auxiliary_loss(self.aux, pixels, described, valid, self.regularisation)
        terms = {"supervised": supervised.detach(), "unsupervised": task.detach(), **terms}
        return Loss(supervised + self.lambda_u * task, terms)
