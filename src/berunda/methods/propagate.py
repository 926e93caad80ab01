"""Propagation: labels spread over a graph of all images, made anew while the net that describes them learns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from berunda import losses
from berunda.data.order import Randomness
from berunda.methods._consistency import terms_of, unlabelled_views
from berunda.methods._followed import Followed
from berunda.methods._spread import Spreading, graph_points, known_labels
from berunda.methods.contract import Batch, Loss, Needs, NetSpec, Step, Surveyed, View, setting
from berunda.models import propagation

__all__ = ["Propagate", "propagate_loss", "propagate_several_loss"]

_ISCEN = "Iscen et al. 2019, section 4"
_FIRST_PX = 96  # the packaged encoder was trained at 224 px and tells little from smaller images as they are


def propagate_loss(logits: Tensor, guess: Tensor, believed: Tensor, smoothing: float) -> Tensor:
    """Return the mean over the believed images of H(q, softmax(logits)), q = (1 - s) onehot(argmax guess) + s / C.

    Args:
        logits: (N, C) of strong views.
        guess: (N, C) distributions.
        believed: (N,) bool; none gives 0.
        smoothing: s, 0 to 1.

    Source: Iscen et al. 2019, eq. 4; Szegedy et al. 2016, section 7 (smoothing).
    """
    n_classes = guess.shape[1]
    hard = F.one_hot(guess.argmax(1), n_classes).to(guess.dtype)
    target = hard * (1 - smoothing) + smoothing / n_classes
    entropy = -(target * losses.real(logits).log_softmax(1)).sum(1)
    return losses.masked_mean(entropy, believed)


def propagate_several_loss(logits: Tensor, guess: Tensor, believed: Tensor, smoothing: float) -> Tensor:
    """Return the mean over the believed labels of BCE(q, sigmoid(logits)), q = (1 - s) guess + s / 2.

    Args:
        logits: (N, C) of strong views.
        guess: (N, C) probabilities that the classes are there; soft, since the order of images is what they know best.
        believed: (N, C) bool; none gives 0.
        smoothing: s, 0 to 1.
    """
    target = guess * (1 - smoothing) + smoothing / 2
    return losses.binary_cross_entropy_masked(logits, target.masked_fill(~believed, float("nan")))


@dataclass(frozen=True)
class Propagate(Followed):
    """Cross-entropy with labels that spread along the edges of a nearest-neighbour graph of all images.

    Several times in the training the averaged net describes every image. Labels spread over the graph of these features
    from the labelled images; once the net has learned something, what it says itself is spread and smoothed instead.
    Later graphs join images that are alike both to the pretrained net and to the one in training, whose own mistakes
    so do not look like neighbourhood. The answers are aligned to the classes' shares, at first those among the labels,
    later more and more what the net itself finds, and of each class the surest are believed, more of them as the
    training goes on. Several labels an image spread class by class, as present and absent; soft targets are believed
    label by label, of each class the likeliest images to have it and to lack it; what is not known counts as not given.
    With `then`, another method goes on from there. It is not FixMatch: the label of an image comes from its neighbours
    and stays until the next graph. Costs one trained pass an unlabelled image and one forward pass of every image a
    graph; no teacher.

    Source: Zhou et al. 2004 (propagation); Iscen et al. 2019 (with a net that learns from it).
    Deviations: believed or not instead of weights by entropy; alignment to the classes' shares, classes of equal mass
        at the start; after the first graph the net's own answers are smoothed, the labels held fast; the features of
        the pretrained net stay in the graph.
    """

    name: ClassVar[str] = "propagate"

    graphs: int = setting(6, "graphs made in the training", valid=(1, 100))
    neighbours: int = setting(15, "neighbours that an image is joined to", valid=(1, 200), unit="images")
    components: int = setting(64, "principal components of the features", valid=(2, 2048))
    alpha: float = setting(
        0.95, "how far labels spread in the first graph", valid=(0, 0.999), source="Zhou et al. 2004 (there 0.99)"
    )
    alpha_later: float = setting(
        0.9, "how far the net's answers spread in later graphs; of several labels rather 0.7", valid=(0, 0.999)
    )
    believed: float = setting(
        0.5, "share of images (or labels) that is believed at first; later nearer to all", valid=(0, 1), unit="share"
    )
    smoothing: float = setting(0.1, "share of the label that goes to all classes", valid=(0, 1), unit="share")
    mu: float = setting(3.0, "unlabelled images for each labelled one", valid=(0, 64))
    lambda_u: float = setting(1.0, "weight of the unlabelled loss", valid=(0, 100), source=_ISCEN)
    strength: float = setting(1.0, "factor on the photometric changes of the unlabelled view", valid=(0, 3))

    def needs(self) -> Needs:
        """Ask for a strong view of unlabelled images, and to be shown all of them now and then."""
        return Needs(
            tasks=("scene", "multilabel"),
            unlabelled=(View("strong", "strong", strength=self.strength),),
            unlabelled_ratio=self.mu,
            trained_passes=1.0,
            surveys=self.graphs,
            first_survey_px=_FIRST_PX,
        )

    def init(self, net: nn.Module, spec: NetSpec) -> nn.Module:
        """Return guess (N, C) and belief (N,), of several labels (N, C), for unlabelled images; points of all, or 0."""
        del net
        extra = nn.Module()
        guess = torch.zeros(spec.n_unlabelled, spec.n_classes)
        extra.register_buffer("guess", guess)
        extra.register_buffer("believed", guess.clone() if spec.task == "multilabel" else guess.sum(1))
        extra.register_buffer("first", torch.zeros(spec.n_labelled + spec.n_unlabelled, self.components))
        extra.register_buffer("is_pretrained", torch.tensor(float(spec.pretrained)))
        return extra

    def loss(self, net: nn.Module, extra: nn.Module, batch: Batch, step: Step, rng: Randomness) -> Loss:
        """Return supervised + lambda_u * propagated, with both streams in one forward pass."""
        del step, rng
        labelled, (strong,) = batch.labelled["weak"], unlabelled_views(batch, "strong")
        logits = self.predict(net, extra, torch.cat([labelled.pixels, strong.pixels]))
        own, other = logits.split([labelled.pixels.shape[0], strong.pixels.shape[0]])
        supervised = losses.supervised_loss(own, labelled.labels, labelled.valid)
        believed = extra.get_buffer("believed")[strong.index] > 0
        loss_of = propagate_several_loss if believed.ndim == 2 else propagate_loss
        unsupervised = loss_of(other, extra.get_buffer("guess")[strong.index], believed, self.smoothing)
        used = losses.masked_mean(believed.float(), torch.ones_like(believed))
        terms = terms_of(supervised=supervised, unsupervised=unsupervised, used=used)
        return Loss(supervised + self.lambda_u * unsupervised, terms)

    def survey(self, extra: nn.Module, labelled: Surveyed, unlabelled: Surveyed, step: Step) -> Mapping[str, Tensor]:
        """Spread the labels over a new graph, in which each image stands once: the unlabelled ones first."""
        assert labelled.labels is not None
        assert labelled.twins is not None
        alone = labelled.twins < 0
        known = known_labels(labelled, len(unlabelled.features))
        features = torch.cat([unlabelled.features, labelled.features[alone]])
        points, first = graph_points(extra, features, self.components, step)
        spreading = Spreading(
            graph=propagation.knn_graph(points, min(self.neighbours, len(points) - 1)),
            n_asked=len(unlabelled.features),
            alpha=self.alpha_later if step.index else self.alpha,
            progress=step.progress,
            believed=self.believed + (1 - self.believed) * step.progress,
        )
        logits = torch.cat([unlabelled.logits, labelled.logits[alone]])
        if losses.has_several(labelled.labels):
            guess, believed = spreading.of_labels(known, logits.sigmoid().numpy() if step.index else None)
        else:
            answers = logits.softmax(1).numpy() if step.index else None
            guess, believed = spreading.of_classes(known, answers, logits.shape[1])
        return {"guess": torch.from_numpy(guess), "believed": torch.from_numpy(believed).float(), "first": first}
