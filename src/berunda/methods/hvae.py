"""HVAE: a segmenter and a generator of images that learn from each other's samples, in symmetric equilibrium."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from berunda import losses
from berunda.data.order import Randomness
from berunda.data.scaling import CLIP
from berunda.methods._filling import redrawn
from berunda.methods._generators import AT_ONCE, Generator, Inference, Latent, one_hot
from berunda.methods._hierarchy import Hierarchy, completed_maps, mixed_maps
from berunda.methods.contract import Batch, Loss, Method, Needs, NetSpec, Step, View, setting
from berunda.models.frozen import frozen_statistics, in_evaluation

__all__ = ["HVAE"]

_SLIDES = "Hruska 2023"
_FACTOR = 20.0
"""On the first level of each player's loss; they fall by some nats a band and latent map, and rise only for a while."""


@dataclass(frozen=True)
class HVAE(Method):
    """Two players: p makes images of segmentations, q finds segmentations (and what else there is) in images.

    z = (z_0, z_1, x), z_0 = (s, l): the segmentation s, further latent maps l at a quarter of the resolution, latent
    maps z_1 at half of it, the pixels x. p(l) is fixed, p(z_1 | s, l) and p(x | z_1, s, l) are the generator; q(s | x)
    is the net, q(l | x) and q(z_1 | x, s, l) stand beside it. The generator learns from images completed by q, with the
    labels where there are some; q learns from labels, and from images that p draws for labelled maps. No gradient goes
    through a draw, so latent variables may be bits. What the net says predicts. Costs nearly four passes of a labelled
    image and one and a half of an unlabelled one, with those of the generator and of q's own parts.

    Source: Hruska 2023, L_p and L_q; Kingma and Welling 2014 for what it is not (there is no reparametrisation).
    Deviations: sums over an image are divided by its valid pixels; unlabelled pixels of a labelled map take what q
        draws; the generator's parameters inside q are held fast, as q's are while images are completed; every class of
        a batch counts once in what the net learns of labels, also of those for which images are drawn (`balance`).
        Images that are drawn teach q more and more (`ramp`): the first ones are noise, and the net's weights are those
        of the segmenter. They are drawn for labelled maps with boxes of each other (`mix`), since a few maps show few
        layouts. The scale of the pixels' noise has a floor.
    """

    name: ClassVar[str] = "hvae"

    latent: str = setting("bernoulli", "family of the latent maps", valid=("gaussian", "bernoulli"), source=_SLIDES)
    n_deep: int = setting(8, "latent maps l beside the segmentation", valid=(1, 512), unit="maps")
    n_middle: int = setting(16, "latent maps z_1", valid=(1, 512), unit="maps")
    width: int = setting(32, "channels of the generator and of q's own parts", valid=(4, 512), unit="channels")
    shares: bool = setting(
        True, "q(z_1) adds to what p says of z_1, whose parameters it leaves alone", valid=(False, True), source=_SLIDES
    )
    lambda_q: float = setting(1.0, "weight of what q learns from generated images", valid=(0, 100), source=_SLIDES)
    ramp: float = setting(0.3, "share of the training over which that weight rises", valid=(0, 1), unit="share")
    mix: float = setting(0.5, "chance that a map gets a box of another, before an image is drawn for it", valid=(0, 1))
    rate: float = setting(1.0, "factor on the generator's learning rate", valid=(0, 100))
    mu: float = setting(1.0, "unlabelled images for each labelled one", valid=(0, 64))
    balance: bool = setting(
        True, "let every class of a batch count once, however many labelled pixels it has", valid=(False, True)
    )

    def needs(self) -> Needs:
        """Ask for one weak view of both streams, and for players: the net, q's own parts, and the generator.

        q's own parts explain all latent maps, in nats a pixel: in one norm with the net they would set its step.
        """
        return Needs(
            tasks=("segmentation",),
            unlabelled=(View("weak", "weak"),) if self.mu else (),
            unlabelled_ratio=self.mu,
            labelled_passes=3.8,  # of the slim net at 128 px, by processor time
            forward_passes=1.0,
            trained_passes=1.25,
            parameter_groups=(("extra.generator", self.rate),),
            players=("extra.generator", "extra.inference"),
            watched=(("generator", _FACTOR), ("inference", _FACTOR)),
            returns=5,
        )

    def init(self, net: nn.Module, spec: NetSpec) -> nn.Module:
        """Return the generator, and q's own parts."""
        del net
        extra = nn.Module()
        sizes = (spec.n_classes, self.hierarchy.deep, self.hierarchy.middle, self.width, spec.n_bands)
        extra.add_module("generator", Generator(*sizes, side_px=spec.crop_px))
        extra.add_module("inference", Inference(*sizes))
        return extra

    def loss(self, net: nn.Module, extra: nn.Module, batch: Batch, step: Step, rng: Randomness) -> Loss:
        """Return -(L_p + L_q) over the number of valid pixels, L_q's draws of p with a ramped weight."""
        labelled = batch.labelled["weak"]
        generator = rng.torch("hvae", device=labelled.pixels.device)
        own = self.predict(net, extra, labelled.pixels)
        first = losses.supervised_loss(own, labelled.labels, labelled.valid, balance=self.balance)
        maps = completed_maps(losses.real(own).detach(), labelled, generator)
        likely = self.hierarchy.log_p(extra, labelled, maps, generator)
        for images in batch.unlabelled.values():
            with torch.no_grad(), in_evaluation(net):
                said = losses.real(self.predict(net, extra, images.pixels))
            likely = likely + self.hierarchy.log_p(extra, images, completed_maps(said, images, generator), generator)

        def segment(pixels: Tensor) -> Tensor:
            with frozen_statistics(net):
                return self.predict(net, extra, pixels)

        shown, maps = mixed_maps(labelled, maps, self.mix, generator)
        found = self.hierarchy.log_q(extra, segment, shown, maps, generator)
        terms = {"supervised": first, "generator": -likely, "inference": -found}
        weight = self.lambda_q * losses.ramp_up(step.progress, self.ramp)
        return Loss(first - likely - weight * found, {name: term.detach() for name, term in terms.items()})

    def rebuilt(self, net: nn.Module, extra: nn.Module, pixels: Tensor) -> Tensor:
        """Return what p makes of the likeliest z_0 that q finds in `pixels` (N, B, H, W)."""
        parts: Any = extra
        maps = one_hot(self.predict(net, extra, pixels).argmax(1), parts.generator)
        deep = self.hierarchy.deep.mean(parts.inference.deep(parts.inference.seen(pixels)))
        middle = self.hierarchy.middle.mean(parts.generator.middle(maps, deep))
        images: Tensor = parts.generator.pixels(middle, maps, deep)
        return images

    def generate(self, net: nn.Module, extra: nn.Module, labels: Tensor, rng: Randomness) -> Tensor:
        """Return draws of p for maps that are of one class everywhere; the pixels' own noise is left out."""
        del net
        parts: Any = extra
        generator, side = rng.torch("hvae.generate", device=labels.device), parts.generator.side_px
        images = []
        for some in labels.split(AT_ONCE):
            maps = one_hot(some.view(-1, 1, 1).expand(-1, side, side), parts.generator)
            deep = self.hierarchy.drawn_deep(maps, generator)
            middle = self.hierarchy.middle.draw(parts.generator.middle(maps, deep), generator)
            images.append(parts.generator.pixels(middle, maps, deep))
        return torch.cat(images).clamp(-CLIP, CLIP)

    def can_fill(self) -> bool:
        """Say yes: hidden pixels are drawn from p, of what q finds in the image."""
        return True

    def fill(self, net: nn.Module, extra: nn.Module, pixels: Tensor, known: Tensor, rng: Randomness) -> Tensor:
        """Return `pixels` with the rest drawn from p of what q draws, again and again; without the pixels' noise."""
        generator = rng.torch("hvae.fill", device=pixels.device)

        def rebuild(image: Tensor) -> Tensor:
            return self.hierarchy.remade(extra, image, losses.real(self.predict(net, extra, image)), generator)

        return redrawn(pixels, known, rebuild)

    def kept(self) -> tuple[str, ...]:
        """Keep both players."""
        return ("net", "extra")

    @property
    def hierarchy(self) -> Hierarchy:
        """The families of the latent maps, and how q is made of p."""
        return Hierarchy(
            Latent(self.latent, self.n_deep), Latent(self.latent, self.n_middle), self.shares, self.balance
        )
