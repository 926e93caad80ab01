"""UniMatch: two strong views and disturbed features have to agree with one weak view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from berunda import losses
from berunda.augment.mix import CutMix, draw_cutmix, draw_uniform
from berunda.data.order import Randomness
from berunda.methods._consistency import taught, terms_of, unlabelled_views, used_terms
from berunda.methods.contract import Batch, Images, Loss, Method, Needs, NetSpec, SplitNet, Step, View, setting
from berunda.models.frozen import frozen_statistics

__all__ = ["UniMatch", "drop_channels", "unimatch_loss"]

_PAPER = "Yang et al. 2023 (UniMatch), section 3"


def unimatch_loss(supervised: Tensor, strong: Sequence[Tensor], feature: Tensor, lambda_u: float = 1.0) -> Tensor:
    """Return (L_x + lambda_u (L_s1 / 4 + L_s2 / 4 + L_fp / 2)) / 2.

    Args:
        supervised: L_x, scalar.
        strong: L_s1 and L_s2, of the strong views.
        feature: L_fp, of the weak view with channels of its features dropped.
        lambda_u: 1 in the paper.

    Source: Yang et al. 2023 (UniMatch), section 3, with the weights of the authors' code.
    """
    first, second = strong
    return (supervised + lambda_u * (0.25 * first + 0.25 * second + 0.5 * feature)) / 2


def drop_channels(features: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Return features with a random `share` of each image's channels at 0 and the others scaled up to keep the mean.

    Args:
        features: (N, D, h, w).
        share: 0 to 1, excluded.
        generator: on the device of the features.
    """
    kept = draw_uniform((*features.shape[:2], 1, 1), generator) >= share
    return features * (kept / (1 - share)).to(features.dtype)


@dataclass(frozen=True)
class UniMatch(Method):
    """Hard pseudo-labels of the weak view for two strong views, each mixed in its own way, and for disturbed features.

    Strong views are photometric plus CutMix on the geometry of the weak view, so that labels agree pixel by pixel;
    half of the channels of the weak view's features are dropped in a third branch. Each pixel is believed or not on its
    own. FixMatch has the first branch alone. Costs three trained passes and one teacher pass an unlabelled image.

    Source: Yang et al. 2023 (UniMatch), section 3; CutMix as in French et al. 2020.
    Deviations: pseudo-labels come from the averaged model (`q_from` "student" is the paper's form); photometric changes
        are those for any number of bands; every class of a batch counts once in the supervised loss (`balance`).
    """

    name: ClassVar[str] = "unimatch"

    threshold: float = setting(0.95, "confidence from which a prediction is a label", valid=(0, 1), source=_PAPER)
    lambda_u: float = setting(1.0, "weight of the unlabelled losses together", valid=(0, 100), source=_PAPER)
    mu: float = setting(1.0, "unlabelled images for each labelled one", valid=(0, 64), source=_PAPER)
    drop: float = setting(
        0.5, "share of the channels of features that are dropped", valid=(0, 0.99), unit="share", source=_PAPER
    )
    cutmix: float = setting(1.0, "share of the strong views that are mixed", valid=(0, 1), unit="share", source=_PAPER)
    strength: float = setting(1.0, "factor on the photometric changes of the strong views", valid=(0, 3))
    q_from: str = setting("teacher", "which model labels the weak view", valid=("teacher", "student"))
    balance: bool = setting(
        True, "let every class of a batch count once, however many labelled pixels it has", valid=(False, True)
    )

    def needs(self) -> Needs:
        """Ask for a weak and two strong views of unlabelled images on one geometry and, if it labels, a teacher."""
        strong = (View(name, "strong", like="weak", strength=self.strength) for name in ("strong_1", "strong_2"))
        return Needs(
            tasks=("segmentation",),
            unlabelled=(View("weak", "weak"), *strong),
            unlabelled_ratio=self.mu,
            teacher=self.q_from == "teacher",
            forward_passes=1.0,  # the student's form decodes the weak view once more, which is counted as a whole pass
            trained_passes=3.0,
        )

    def init(self, net: nn.Module, spec: NetSpec) -> nn.Module:
        """Add nothing."""
        del net, spec
        return nn.Module()

    def loss(self, net: nn.Module, extra: nn.Module, batch: Batch, step: Step, rng: Randomness) -> Loss:
        """Return the loss of labels and of all three branches, with all that is trained in one forward pass."""
        del extra
        labelled, (weak, *strong) = batch.labelled["weak"], unlabelled_views(batch, "weak", "strong_1", "strong_2")
        mixes = self._mixes(weak, rng)
        shown = [labelled.pixels, *(mix.apply(x.pixels) for mix, x in zip(mixes, strong, strict=True)), weak.pixels]
        (own, *others), guess = self._answers(cast(SplitNet, net), shown, step, rng)
        labels, sure = losses.pseudo_labels(losses.probabilities_of(guess), self.threshold)
        seen = losses.is_labelled(labels, weak.valid)
        supervised = losses.supervised_loss(own, labelled.labels, labelled.valid, balance=self.balance)
        hard = [
            losses.fixmatch_loss(logits, mix.apply(labels), mix.apply(sure), mix.apply(weak.valid))
            for mix, logits in zip(mixes, others[:2], strict=True)
        ]
        feature = losses.fixmatch_loss(others[2], labels, sure, weak.valid)
        terms = terms_of(supervised=supervised, strong=(hard[0] + hard[1]) / 2, feature=feature)
        return Loss(
            unimatch_loss(supervised, hard, feature, self.lambda_u),
            terms | used_terms(labels, sure, seen, guess.shape[1]),
        )

    def _mixes(self, weak: Images, rng: Randomness) -> tuple[CutMix, CutMix]:
        n, _, n_rows, n_cols = weak.pixels.shape
        generator = rng.torch("unimatch.cutmix", device=weak.pixels.device)
        first, second = (draw_cutmix((n, n_rows, n_cols), generator, probability=self.cutmix) for _ in range(2))
        return first, second

    def _answers(
        self, net: SplitNet, shown: list[Tensor], step: Step, rng: Randomness
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """Return logits of all that is `shown`, the last (the weak view) with dropped channels, and what labels it."""
        pixels, sizes = torch.cat(shown), [len(x) for x in shown]
        features, first = net.encode(pixels), sum(sizes[:-1])
        generator = rng.torch("unimatch.drop", device=pixels.device)
        weak = [x[first:] for x in features]
        kept = [x is pixels or not x.is_floating_point() for x in features]  # no features: pixels, places of maxima
        dropped = [x if as_is else drop_channels(x, self.drop, generator) for x, as_is in zip(weak, kept, strict=True)]
        shown_features = [torch.cat([x[:first], y]) for x, y in zip(features, dropped, strict=True)]
        logits = net.restore(net.classify(net.decode(shown_features)), pixels).split(sizes)
        if self.q_from == "teacher" and len(shown[-1]):
            return logits, taught(self, step, shown[-1])
        with torch.no_grad(), frozen_statistics(cast(nn.Module, net)):
            return logits, net.restore(net.classify(net.decode(weak)), shown[-1])
