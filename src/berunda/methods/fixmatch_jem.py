"""FixMatch with JEM: consistent answers on unlabelled images, and logits that say how likely an image is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor, nn

from berunda import losses
from berunda.data.order import Randomness
from berunda.methods import _energy as energy_parts
from berunda.methods.contract import Batch, Loss, Method, Needs, NetSpec, Stage, Step, same_setting, setting
from berunda.methods.fixmatch import FixMatch
from berunda.methods.jem import JEM

__all__ = ["FixMatchJEM"]


@dataclass(frozen=True)
class FixMatchJEM(Method):
    """FixMatch, then JEM on the labels that it predicts; or both losses at once, end to end.

    Pipeline: the first part of the training is `fixmatch`; its model then labels images, and the second part is `jem`
    on given and predicted labels. Joint: L = L_supervised + lambda_u L_consistency + lambda_p L_likelihood, where the
    weak views of some unlabelled images are also those that are to be likely; the likelihood joins after the first part
    of the training (`share`). Costs what its parts cost; `mu_p` unlabelled images for each labelled one bear the cost
    of chains, joint only from when the likelihood counts.

    Source: Castillo-Navarro 2022, section 4.3.5 (pipeline); Sohn et al. 2020 (FixMatch); Grathwohl et al. 2020 (JEM).
    Deviations: the joint loss is our own; it takes no more than its chains from `variant`: its weights are not
        sharpness-aware, and the likelihood sees weak views. The pipeline goes on with the weights of FixMatch instead
        of fresh ones; half of the images of its second part carry given labels, and the others, drawn from all
        images, what FixMatch predicts, however unsure it is, where the thesis shows every image once with its label.
        Those of `jem` and `fixmatch`.
    """

    name: ClassVar[str] = "fixmatch_jem"

    form: str = setting("joint", "one after the other, or both losses at once", valid=("joint", "pipeline"))
    share: float = setting(
        0.5, "share of the training with FixMatch alone, before the likelihood", valid=(0, 0.95), unit="share"
    )
    ramp: float = setting(0.2, "share, from then on, over which its weight rises", valid=(0, 1), unit="share")
    variant: str = setting("sada", "how chains move, as in `jem`", valid=("jem", "jem++", "sada"))
    n_steps: int = same_setting(JEM, "n_steps")
    step_size: float = same_setting(JEM, "step_size")
    lambda_p: float = setting(0.1, "weight of the likelihood", valid=(0, 100))
    mu_p: float = setting(0.5, "unlabelled images of the likelihood for each labelled one", valid=(0.01, 64))
    replay: int = setting(500, "chains that are kept", valid=(1, 100_000), unit="images")
    rho: float = setting(JEM.rho, "as in `jem` (pipeline, sada)", valid=(0, 1))
    rate: float = setting(
        0.0, "factor on the learning rate of JEM's part (pipeline); 0 for the variant's", valid=(0, 10)
    )
    clip_norm: float = setting(
        5.0,
        "largest norm of the gradient (pipeline: of JEM's part), where the recipe's is larger; 0 for the recipe's",
        valid=(0, 1e6),
    )
    threshold: float = same_setting(FixMatch, "threshold")
    lambda_u: float = same_setting(FixMatch, "lambda_u")
    mu: float = same_setting(FixMatch, "mu")
    q_from: str = same_setting(FixMatch, "q_from")
    align: str = same_setting(FixMatch, "align")

    @property
    def _likely(self) -> JEM:
        """JEM as the second part of the pipeline, and as what the joint loss takes its chains from."""
        taken = ("variant", "n_steps", "step_size", "lambda_p", "ramp", "replay", "rho", "rate", "clip_norm")
        return JEM(mu=self.mu_p, **{name: getattr(self, name) for name in taken})

    @property
    def _given(self) -> dict[str, Any]:
        """What FixMatch is told, as the first part of the pipeline and in the joint loss."""
        return {name: getattr(self, name) for name in ("threshold", "lambda_u", "mu", "q_from", "align")}

    @property
    def _consistent(self) -> FixMatch:
        return FixMatch(**self._given)

    def needs(self) -> Needs:
        """Ask for what FixMatch asks for, and passes of the likelihood (joint); for what JEM asks for (pipeline)."""
        likely = self._likely.needs()
        if self.form == "pipeline":  # the labels of half of the images are predicted, in a forward pass
            return replace(likely, labelled_passes=likely.labelled_passes + 0.5 / 3)
        needs = replace(self._consistent.needs(), tasks=("scene",))
        each = (1 - self.share) * (2.0 + self._likely.chains.moves.n_steps * 2 / 3)
        return replace(
            needs,
            labelled_passes=needs.labelled_passes + (0.0 if self.mu else each),
            trained_passes=needs.trained_passes + (min(1.0, self.mu_p / self.mu) * each if self.mu else 0.0),
            clip_norm=self.clip_norm,
            watched=likely.watched,
            bounds=likely.bounds,
            returns=likely.returns,
        )

    def init(self, net: nn.Module, spec: NetSpec) -> nn.Module:
        """Return the buffers of the chains, and (joint) FixMatch's running class distributions."""
        extra = nn.Module() if self.form == "pipeline" else self._consistent.init(net, spec)
        self._likely.chains.add_to(extra, spec)
        return extra

    def loss(self, net: nn.Module, extra: nn.Module, batch: Batch, step: Step, rng: Randomness) -> Loss:
        """Return JEM's loss (pipeline), or FixMatch's plus, after a while, ramped weight * likelihood (joint)."""
        if self.form == "pipeline":
            return self._likely.loss(net, extra, batch, step, rng)
        found = self._consistent.loss(net, extra, batch, step, rng)
        if step.progress < self.share:
            return found
        seen, chains = self._seen(batch), self._likely.chains
        images = (energy_parts.noisy(*seen, self._likely.input_noise, rng), seen[1])
        samples, updates = chains.draw(energy_parts.energies_of(self, (net, extra)), extra, images, step, rng)
        gap, terms = energy_parts.likelihood(self, (net, extra), images, samples)
        risen = losses.ramp_up(step.progress - self.share, self.ramp)
        parts = {**found.terms, "likelihood": gap.detach(), "gap": risen * gap.detach(), **terms}
        return Loss(found.total + self.lambda_p * risen * gap, parts, {**found.updates, **updates})

    def _seen(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the weak views that shall be likely, and where they hold data: of some unlabelled images, if any."""
        labelled, unlabelled = batch.labelled["weak"], batch.unlabelled.get("weak")
        if unlabelled is None or not len(unlabelled.pixels):
            return labelled.pixels, labelled.valid
        n = max(1, round(self.mu_p * len(labelled.pixels)))
        return unlabelled.pixels[:n], unlabelled.valid[:n]

    def stages(self) -> tuple[Stage, ...]:
        """FixMatch and then JEM on predicted labels, or one."""
        if self.form == "joint":
            return (Stage("fixmatch_jem", 1.0),)
        first = Stage("fixmatch", self.share, method="fixmatch", options=self._given)
        return (first, Stage("jem", 1 - self.share, labels="predicted"))

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
        """Halve the step of the chains, and begin anew those that are lost."""
        return self._likely.calmed(extra)

    def kept(self) -> tuple[str, ...]:
        """Keep the chains too: images are generated from where they are."""
        return ("net", "extra")
