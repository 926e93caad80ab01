"""SegJEM: a net for maps whose logits also say how likely an image is, pixel by pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from berunda.methods._energy_method import EnergyMethod
from berunda.methods.contract import Task, setting

__all__ = ["SegJEM"]


@dataclass(frozen=True)
class SegJEM(EnergyMethod):
    """Cross-entropy on labelled pixels, and the likelihood of all images under the energy of the maps.

    E(X, Y) = -sum_i f(X)_i[Y_i] and E(X) = -sum_i logsumexp_k f(X)_i[k] over the valid pixels i. The loss is divided by
    the number of pixels, the gradient that the chains follow is not. Pixels without data are the same for images and
    for samples, and count nowhere. Otherwise, and in what it costs, it is `jem`.

    Source: Castillo-Navarro 2022, eq. 4.15 to 4.19; Grathwohl et al. 2020 (JEM).
    Deviations: those of `jem`, `balance` among them; still fewer chains are kept, since crops of maps are larger.
    """

    name: ClassVar[str] = "segjem"
    served: ClassVar[tuple[Task, ...]] = ("segmentation",)

    replay: int = setting(200, "chains that are kept", valid=(1, 100_000), unit="images")
