"""BerundaNet: one net that classifies labelled images and describes all images, in one training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from berunda import losses
from berunda.augment.puzzle import shuffle_patches
from berunda.data.order import Randomness
from berunda.errors import ConfigError
from berunda.methods import _auxiliary as auxiliary
from berunda.methods._settings import balance_setting
from berunda.methods._weighting import add_weighting, joined, rates_of, weighting_setting
from berunda.methods.contract import Batch, Loss, Method, Needs, NetSpec, SplitNet, Step, View, setting

__all__ = ["BerundaNet"]

_THESIS = "Castillo-Navarro 2022, section 3.2"


@dataclass(frozen=True)
class BerundaNet(Method):
    """Classification of labelled images and an auxiliary task on all images, by the same features.

    Late: encoder and decoder are shared, each task has one convolution of its own; that of the auxiliary task does not
    read the pixel path, where a net has one, which is for the classifier alone: through it the pixels would rebuild
    themselves. Early: the encoder is shared, each task has a decoder (without a pixel path). Whole images: the encoder
    is shared, and a light decoder of two convolutions describes the pixels from its coarsest features alone, the same
    that are pooled and classified. The auxiliary task is to rebuild the pixels (l1, l2), to cluster them softly so that
    the clusters' means rebuild them (kmeans), to find regions of like pixels with short borders (mumford_shah), to fill
    a square hole (inpainting), or to tell by the encoder's features how the image's nine patches were shuffled
    (jigsaw). It has no pseudo-labels, and only the classifying path predicts. Costs one trained pass an unlabelled
    image (inpainting: one more a labelled image) and no teacher.

    Source: Castillo-Navarro 2022, section 3.2, eq. 3.6 to 3.13.
    Deviations: all losses are means over valid pixels and bands where the thesis has sums, so its weights
        are a guide; of nets that decode at stride 2 or 4 the clusters' distributions are interpolated; the decoder for
        whole images works at twice the resolution of the coarsest features and is interpolated, so that it costs next
        to nothing; the hole is at most a quarter of the crop; for inpainting the classifier sees labelled images whole.
    """

    name: ClassVar[str] = "berunda"

    split: str = setting("late", "where the tasks part (whole images: late)", valid=("late", "early"), source=_THESIS)
    aux: str = setting("kmeans", "auxiliary task", valid=auxiliary.TASKS, source=f"{_THESIS}, eq. 3.6-3.13")
    lambda_u: float = setting(
        1.0,
        "weight of the auxiliary task (best in the thesis for maps: l1 0.5, l2 5, kmeans 1, mumford_shah 1, "
        "inpainting 5, jigsaw 0.5)",
        valid=(0, 100),
        source=_THESIS,
    )
    regularisation: float = setting(
        1.0,
        "weight of the clusters' indecision (kmeans) or of the regions' borders (mumford_shah)",
        valid=(0, 100),
        source="eq. 3.11 and 3.12 of the thesis",
    )
    n_clusters: int = setting(16, "clusters of kmeans, regions of mumford_shah", valid=(2, 256), unit="clusters")
    hole_px: int = setting(
        80,
        "side of inpainting's hole; a quarter of the crop if smaller",
        valid=(1, 4096),
        unit="px",
        source=_THESIS,
        tasks=("segmentation",),
    )
    n_permutations: int = setting(
        100,
        "ways in which jigsaw shuffles patches",
        valid=(2, 1000),
        unit="permutations",
        source=_THESIS,
        tasks=("segmentation",),
    )
    weighting: str = weighting_setting()
    mu: float = setting(1.0, "unlabelled images for each labelled one", valid=(0, 64))
    balance: bool = balance_setting("labelled pixels", ("segmentation", "scene"))

    def needs(self) -> Needs:
        """Ask for one weak view of both streams."""
        is_for_images = self.split == "late" and self.aux in auxiliary.DENSE
        return Needs(
            tasks=("segmentation", "scene", "multilabel") if is_for_images else ("segmentation",),
            unlabelled=(View("weak", "weak"),) if self.mu else (),
            unlabelled_ratio=self.mu,
            labelled_passes=2.0 if self.aux == "inpainting" else 1.0,
            trained_passes=1.0,
            parameter_groups=rates_of(self.weighting),
        )

    def init(self, net: nn.Module, spec: NetSpec) -> nn.Module:
        """Return the auxiliary task's head: a convolution, a decoder, or a linear layer.

        Raises:
            ConfigError: the task is not for whole images, or the crop too small for it.
        """
        if spec.task not in self.needs().tasks:
            raise ConfigError(
                f"method 'berunda': found split={self.split}, aux={self.aux} for whole images, expected split=late and "
                f"one of {', '.join(auxiliary.DENSE)}"
            )
        n_out = auxiliary.n_described(self.aux, self.n_clusters, spec.n_bands)
        head: nn.Module
        if spec.task != "segmentation":
            head = auxiliary.LightDecoder(cast(SplitNet, net).feature_dim, n_out)
        elif self.aux == "jigsaw":
            head = auxiliary.JigsawHead(net, spec, self.n_permutations)
        else:
            head = (auxiliary.LateHead if self.split == "late" else auxiliary.EarlyHead)(net, n_out, self.aux)
        extra = nn.Module()
        extra.add_module("head", head)
        return add_weighting(extra, self.weighting)

    def loss(self, net: nn.Module, extra: nn.Module, batch: Batch, step: Step, rng: Randomness) -> Loss:
        """Return supervised + lambda_u * auxiliary, with both streams in one forward pass."""
        labelled, streams = batch.labelled["weak"], [batch.labelled["weak"], *batch.unlabelled.values()]
        pixels, valid = torch.cat([x.pixels for x in streams]), torch.cat([x.valid for x in streams])
        sizes, labels = [len(x.index) for x in streams], labelled.labels
        nets, n = (cast(SplitNet, net), cast(Any, extra).head), sizes[0]
        if self.aux == "jigsaw":
            order = auxiliary.drawn_orders(nets[1].orders, sizes, rng.torch("berunda.jigsaw", device=pixels.device))
            orders = nets[1].orders[order]
            pixels, valid = shuffle_patches(pixels, orders), shuffle_patches(valid, orders)
            labels = None if labels is None else shuffle_patches(labels, orders[:n])
            logits, guesses = self._answers(nets, pixels, valid, n)
            task, terms = losses.jigsaw(guesses, order, valid), dict[str, Tensor]()
        elif self.aux == "inpainting":
            hole = auxiliary.drawn_holes(self.hole_px, pixels, sizes, rng.torch("berunda.hole", device=pixels.device))
            shown = torch.cat([labelled.pixels, pixels.masked_fill(hole[:, None], 0)])
            logits, filled = self._answers(nets, shown, valid, n, start=n)
            task, terms = losses.inpainting(filled, pixels, hole, valid), dict[str, Tensor]()
        else:
            logits, described = self._answers(nets, pixels, valid, n)
            task, terms = auxiliary.auxiliary_loss(self.aux, pixels, described, valid, self.regularisation)
        supervised = losses.supervised_loss(logits, labels, valid[:n], balance=self.balance)
        joint = joined(extra, supervised, self.lambda_u * task, step)
        parts = {"supervised": supervised.detach(), "unsupervised": task.detach(), **terms, **joint.terms}
        return Loss(joint.total, parts, joint.updates)

    def _answers(
        self, nets: tuple[SplitNet, Any], shown: Tensor, valid: Tensor, n: int, start: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Return logits of the first `n` images of `shown`, and what the head says of those from `start` on."""
        net, head = nets
        features = net.encode(shown)
        is_apart = isinstance(head, auxiliary.EarlyHead | auxiliary.JigsawHead)
        decoded = net.decode([x[:n] for x in features] if is_apart else features)
        logits = net.restore(net.classify(decoded[:n]), shown[:n])
        if isinstance(head, auxiliary.LateHead):
            return logits, head.describe(net, decoded[start:], shown[start:])
        if isinstance(head, auxiliary.EarlyHead):
            return logits, head.describe([x[start:] for x in features], shown[start:])
        if isinstance(head, auxiliary.JigsawHead):
            return logits, head(features, valid)
        return logits, auxiliary.as_described(self.aux, head(features[-1], tuple(shown.shape[-2:])))
