"""JEM: a classifier whose logits also say how likely an image is, trained on both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from berunda.methods._energy_method import EnergyMethod
from berunda.methods.contract import Task

__all__ = ["JEM"]


@dataclass(frozen=True)
class JEM(EnergyMethod):
    """Cross-entropy on labelled images, and the likelihood of unlabelled ones under the classifier's own energy.

    The energy of an image is -logsumexp of its logits. Training lowers it on images and raises it on samples, which
    chains draw from the net itself by following the energy's gradient in the pixels. Chains are kept in a buffer and
    go on in later steps. `variant`: "jem", 20 plain steps; "jem++", 10 clamped ones; "sada", 5 clamped ones without
    noise, images as they are for the likelihood, sharpness-aware weights. The energy tells images unlike the training's
    (`ood`), and images of a class can be drawn (`berunda generate`). Costs a pass of a labelled image, and two passes
    of an unlabelled one with two thirds of one for each step of the chains; no teacher. A run that diverges goes back
    and goes on with smaller steps.

    Source: Grathwohl et al. 2020 (JEM); Yang and Ji 2021 (JEM++); Yang et al. 2023 (SADA-JEM); Castillo-Navarro 2022,
        section 4.2.
    Deviations: the likelihood is of the unlabelled stream, which holds the labelled images too, and of labelled images
        only where there is none: a few that are shown all the time would be learned by heart; its weight rises over the
        first part of the training (`ramp`); fewer chains are kept, which short trainings need; samples stay in the
        range of the images beside them; norm layers see images and samples together, and record labelled images alone;
        of JEM++ the inner steps, along a gradient that is held fast behind the first layer, are equal where that layer
        is linear and so are made in one; optimizer and norms are the recipe's and the encoder's, with a smaller rate
        and a bound on the gradient (`rate`, `clip_norm`); every class of a batch counts once in the supervised loss
        (`balance`).
    """

    name: ClassVar[str] = "jem"
    served: ClassVar[tuple[Task, ...]] = ("scene",)
