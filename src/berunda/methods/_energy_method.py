"""The settings and the loss that JEM for whole images and JEM for maps share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor, nn

from berunda import losses
from berunda.data.order import Randomness
from berunda.methods import _energy as energy_parts
from berunda.methods._weighting import SIGNED_FORMS, add_weighting, joined, rates_of, weighting_setting
from berunda.methods.contract import Batch, Images, Loss, Method, Needs, NetSpec, Step, Task, View, setting

__all__ = ["EnergyMethod"]

_PAPER = "Grathwohl et al. 2020 (JEM), appendix A"
_SADA = "Yang et al. 2023 (SADA-JEM), section 4"
_RATES = {"jem": 0.03, "jem++": 0.5, "sada": 0.5}
"""A small net ran away from chains that begin at noise within 30 steps at 0.3 of SGD's 0.03; the others bore 1."""


@dataclass(frozen=True)
class EnergyMethod(Method):
    """Cross-entropy on labels plus the likelihood of images under the energy of the logits; see `jem`."""

    served: ClassVar[tuple[Task, ...]]
    """The tasks that the method serves."""

    variant: str = setting(
        "jem", "how chains move, and how images and weights are shown to the likelihood", valid=("jem", "jem++", "sada")
    )
    n_steps: int = setting(0, "gradients that a chain follows in a step; 0 for the variant's", valid=(0, 1000))
    step_size: float = setting(0.0, "factor on the gradient of the chains; 0 for the variant's", valid=(0, 100))
    lambda_p: float = setting(1.0, "weight of the likelihood", valid=(0, 100), source=_PAPER)
    ramp: float = setting(0.3, "share of the training over which that weight rises", valid=(0, 1), unit="share")
    mu: float = setting(1.0, "unlabelled images of the likelihood for each labelled one", valid=(0, 64))
    replay: int = setting(
        1000, "chains that are kept (published: 10,000)", valid=(1, 100_000), unit="images", source="Berunda"
    )
    restart: float = setting(0.05, "chance of a chain to begin anew", valid=(0, 1), source=_PAPER)
    input_noise: float = setting(
        0.03, "deviation of the noise on images, where a band's low and high are -1 and 1", valid=(0, 1), source=_PAPER
    )
    weighting: str = weighting_setting(SIGNED_FORMS)
    rho: float = setting(
        0.05, "radius of sharpness-aware minimisation (sada); 0 for none, in half the time", valid=(0, 1), source=_SADA
    )
    rate: float = setting(0.0, "factor on the learning rate; 0 for the variant's", valid=(0, 10))
    clip_norm: float = setting(
        1.0, "largest norm of the gradient, where the recipe's is larger; 0 for the recipe's", valid=(0, 1e6)
    )
    balance: bool = setting(
        True, "let every class of a batch count once, however many labels it has", valid=(False, True)
    )

    @property
    def is_sharp(self) -> bool:
        """Whether weights may be sharpness-aware and the likelihood sees images without augmentation."""
        return self.variant == "sada"

    @property
    def chains(self) -> energy_parts.Chains:
        """The chains, with the variant's moves where the settings name none."""
        moves = energy_parts.VARIANTS[self.variant]
        moves = replace(moves, n_steps=self.n_steps or moves.n_steps, step=self.step_size or moves.step)
        return energy_parts.Chains(moves, self.replay, self.restart)

    def needs(self) -> Needs:
        """Ask for a weak view of labelled images, and one of unlabelled images for the likelihood.

        Without those the likelihood is of the labelled images, which are then shown in that view too.
        """
        seen = View("plain", "identity") if self.is_sharp else View("weak", "weak")
        rho = self.rho if self.is_sharp else 0.0
        n_gradients = 2 if rho else 1
        likely = 2.0 * n_gradients + self.chains.moves.n_steps * 2 / 3
        return Needs(
            tasks=self.served,
            labelled=(View("weak", "weak"), seen) if self.is_sharp else (seen,),
            unlabelled=(seen,) if self.mu else (),
            unlabelled_ratio=self.mu,
            labelled_passes=n_gradients + (0.0 if self.mu else likely),
            trained_passes=likely if self.mu else 0.0,
            rate=self.rate or _RATES[self.variant],
            clip_norm=self.clip_norm,
            parameter_groups=rates_of(self.weighting),
            sharpness_rho=rho,
            watched=energy_parts.WATCHED,
            bounds=energy_parts.bounds_of(self.lambda_p),
            returns=5,
        )

    def init(self, net: nn.Module, spec: NetSpec) -> nn.Module:
        """Return the buffers of the chains, and the weight if it is learned."""
        del net
        extra = nn.Module()
        self.chains.add_to(extra, spec)
        return add_weighting(extra, self.weighting)

    def loss(self, net: nn.Module, extra: nn.Module, batch: Batch, step: Step, rng: Randomness) -> Loss:
        """Return supervised + ramped weight * likelihood, labels in one forward pass and the likelihood in another."""
        labelled, nets, seen = batch.labelled["weak"], (net, extra), self._likely(batch)
        images = (energy_parts.noisy(seen.pixels, seen.valid, self.input_noise, rng), seen.valid)
        samples, updates = self.chains.draw(energy_parts.energies_of(self, nets), extra, images, step, rng)
        shown = labelled.pixels
        if not self.is_sharp:
            shown = energy_parts.noisy(shown, labelled.valid, self.input_noise, rng.at(1))
        logits = self.predict(net, extra, shown)
        supervised = losses.supervised_loss(logits, labelled.labels, labelled.valid, balance=self.balance)
        gap, terms = energy_parts.likelihood(self, nets, images, samples)
        risen = losses.ramp_up(step.progress, self.ramp)
        joint = joined(extra, supervised, self.lambda_p * risen * gap, step)
        felt = {"likelihood": gap.detach(), "gap": risen * gap.detach()}
        parts = {"supervised": supervised.detach(), **felt, **terms, **joint.terms}
        return Loss(joint.total, parts, {**updates, **joint.updates})

    def _likely(self, batch: Batch) -> Images:
        """Return the images that shall be likely: unlabelled ones, which few labelled ones cannot stand for."""
        for images in batch.unlabelled.values():
            if len(images.pixels):
                return images
        return batch.labelled["plain" if self.is_sharp else "weak"]

    def generate(self, net: nn.Module, extra: nn.Module, labels: Tensor, rng: Randomness) -> Tensor:
        """Return samples of p(x | y), from the kept chains on."""
        return energy_parts.refined(self, (net, extra), labels, self.chains, rng)

    def has_density(self) -> bool:
        """Say whether the likelihood, which trains that, has a weight."""
        return self.lambda_p > 0

    def can_fill(self) -> bool:
        """Say yes: hidden pixels are sampled given the others."""
        return True

    def fill(self, net: nn.Module, extra: nn.Module, pixels: Tensor, known: Tensor, rng: Randomness) -> Tensor:
        """Return `pixels` with samples of those that are not known, given the others."""
        return energy_parts.refilled(self, (net, extra), (pixels, known), self.chains, rng)

    def calmed(self, extra: nn.Module) -> Mapping[str, Tensor]:
        """Halve the step of the chains, and begin anew those that are lost."""
        return self.chains.calmed(extra)

    def kept(self) -> tuple[str, ...]:
        """Keep the chains too: images are generated from where they are."""
        return ("net", "extra")
