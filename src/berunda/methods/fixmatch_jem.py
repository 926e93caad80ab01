"""FixMatch with JEM: consistent answers on unlabelled images, and logits that say how likely an image is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from berunda.data.order import Randomness
from berunda.methods import _energy as energy_parts
from berunda.methods.contract import Batch, Loss, Method, Needs, NetSpec, Stage, Step, setting
from berunda.methods.fixmatch import FixMatch
from berunda.methods.jem import JEM

__all__ = ["FixMatchJEM"]

_THESIS = "Castillo-Navarro 2022, section 4.3.5"


@dataclass(frozen=True)
class FixMatchJEM(Method):
    """FixMatch, then JEM on the labels that it predicts; or both losses at once, end to end.

    Pipeline: the first part of the training is `fixmatch`; its model then labels images, and the second part is `jem`
    on given and predicted labels. Joint: L = L_supervised + lambda_u L_consistency + lambda_p L_likelihood, where the
    weak views of labelled and unlabelled images are also those that are to be likely. Costs what its parts cost; of the
    joint loss `mu_p` unlabelled images for each labelled one bear the cost of chains.

    Source: Castillo-Navarro 2022, section 4.3.5 (pipeline); Sohn et al. 2020 (FixMatch); Grathwohl et al. 2020 (JEM).
    Deviations: the joint loss is our own; the pipeline goes on with the weights of FixMatch instead of fresh ones.
    """

    name: ClassVar[str] = "fixmatch_jem"

    form: str = setting("joint", "one after the other, or both losses at once", valid=("joint", "pipeline"))
    share: float = setting(0.5, "share of the training before JEM (pipeline)", valid=(0.05, 0.95), unit="share")
    variant: str = setting("sada", "how chains move, as in `jem`", valid=("jem", "jem++", "sada"), source=_THESIS)
    lambda_p: float = setting(0.1, "weight of the likelihood (joint)", valid=(0, 100))
    mu_p: float = setting(1.0, "unlabelled images of the likelihood for each labelled one", valid=(0, 64))
    replay: int = setting(2000, "chains that are kept", valid=(1, 100_000), unit="images")
    threshold: float = setting(
        0.95, "confidence from which a prediction is a label", valid=(0, 1), source="Sohn et al. 2020 (FixMatch)"
    )
    lambda_u: float = setting(
        1.0, "weight of the consistency (joint)", valid=(0, 100), source="Sohn et al. 2020 (FixMatch)"
    )
    mu: float = setting(
        7.0, "unlabelled images for each labelled one (joint)", valid=(0, 64), source="Sohn et al. 2020 (FixMatch)"
    )
    q_from: str = setting("teacher", "which model labels the weak view (joint)", valid=("teacher", "student"))
    align: str = setting(
        "none",
        "class distribution to which pseudo-labels are aligned (joint)",
        valid=("none", "labelled", "uniform"),
        source="Berthelot et al. 2020 (ReMixMatch), section 3.1",
    )

    @property
    def _likely(self) -> JEM:
        """JEM as the second part of the pipeline, and as what the joint loss takes its chains from."""
        return JEM(variant=self.variant, mu=self.mu_p, replay=self.replay)

    @property
    def _consistent(self) -> FixMatch:
        return FixMatch(
            threshold=self.threshold, lambda_u=self.lambda_u, mu=self.mu, q_from=self.q_from, align=self.align
        )

    def needs(self) -> Needs:
        """Ask for what FixMatch asks for, and the passes of samples (joint); for what JEM asks for (pipeline)."""
        likely = self._likely.needs()
        if self.form == "pipeline":
            return likely
        needs = replace(self._consistent.needs(), tasks=("scene",))
        sampled = 1.0 + self._likely.chains.moves.n_steps * 2 / 3
        share = min(self.mu_p, self.mu) / self.mu if self.mu else 0.0
        return replace(
            needs,
            labelled_passes=needs.labelled_passes + 1.0 + sampled,
            trained_passes=needs.trained_passes + share * (1.0 + sampled),
            watched=likely.watched,
            returns=likely.returns,
        )

    def init(self, net: nn.Module, spec: NetSpec) -> nn.Module:
        """Return the buffers of the chains, and (joint) FixMatch's running class distributions."""
        extra = nn.Module() if self.form == "pipeline" else self._consistent.init(net, spec)
        self._likely.chains.add_to(extra, spec)
        return extra

    def loss(self, net: nn.Module, extra: nn.Module, batch: Batch, step: Step, rng: Randomness) -> Loss:
        """Return JEM's loss (pipeline), or FixMatch's plus lambda_p * likelihood (joint)."""
        if self.form == "pipeline":
            return self._likely.loss(net, extra, batch, step, rng)
        found = self._consistent.loss(net, extra, batch, step, rng)
        pixels, valid = self._weak(batch)
        shown = energy_parts.noisy(pixels, valid, self._likely.input_noise, rng)
        energies = energy_parts.energies_of(self, (net, extra))
        samples, updates = self._likely.chains.draw(energies, extra, (shown, valid), step, rng)
        logits = self.predict(net, extra, shown)
        gap, terms = energy_parts.likelihood(self, (net, extra), logits, valid, samples)
        parts = {**found.terms, "likelihood": gap.detach(), **terms}
        return Loss(found.total + self.lambda_p * gap, parts, {**found.updates, **updates})

    def _weak(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the weak views of the likelihood and where they hold data: all labelled, some unlabelled images."""
        labelled, unlabelled = batch.labelled["weak"], batch.unlabelled.get("weak")
        if unlabelled is None:
            return labelled.pixels, labelled.valid
        n = round(self.mu_p * len(labelled.pixels))
        pairs = ((labelled.pixels, unlabelled.pixels[:n]), (labelled.valid, unlabelled.valid[:n]))
        pixels, valid = (torch.cat(pair) for pair in pairs)
        return pixels, valid

    def stages(self) -> tuple[Stage, ...]:
        """FixMatch and then JEM on predicted labels, or one."""
        if self.form == "joint":
            return (Stage("fixmatch_jem", 1.0),)
        return (Stage("fixmatch", self.share, method="fixmatch"), Stage("jem", 1 - self.share, labels="predicted"))

    def generate(self, net: nn.Module, extra: nn.Module, labels: Tensor, rng: Randomness) -> Tensor:
        """Return samples of p(x | y), from the kept chains on."""
        return energy_parts.refined(self, (net, extra), labels, self._likely.chains, rng)

    def has_density(self) -> bool:
        """Say whether the likelihood, which trains that, has a weight."""
        return self.form == "pipeline" or self.lambda_p > 0

    def can_fill(self) -> bool:
        """Say yes: hidden pixels are sampled given the others."""
        return True

    def fill(self, net: nn.Module, extra: nn.Module, pixels: Tensor, known: Tensor, rng: Randomness) -> Tensor:
        """Return `pixels` with samples of those that are not known, given the others."""
        return energy_parts.refilled(self, (net, extra), (pixels, known), self._likely.chains, rng)

    def calmed(self, extra: nn.Module) -> Mapping[str, Tensor]:
        """Halve the step of the chains."""
        return self._likely.calmed(extra)

    def kept(self) -> tuple[str, ...]:
        """Keep the chains too: images are generated from where they are."""
        return ("net", "extra")
