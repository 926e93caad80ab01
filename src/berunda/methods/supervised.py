"""Training on labelled images only: the baseline to beat at equal compute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from berunda.data.order import Randomness
from berunda.losses import supervised_loss
from berunda.methods._settings import balance_setting
from berunda.methods.contract import Batch, Loss, Method, Needs, NetSpec, Step, View, setting

__all__ = ["Supervised"]


@dataclass(frozen=True)
class Supervised(Method):
    """Cross-entropy on labelled images; binary cross-entropy for several labels an image.

    It uses no unlabelled image. Compared with a semi-supervised method it gets the same net and as many
    image passes.

    Source: Castillo-Navarro 2022, section 2.2.
    """

    name: ClassVar[str] = "supervised"

    recipe: str = setting(
        "weak",
        "how labelled images are shown",
        valid=("identity", "weak", "medium", "strong"),
        source="Castillo-Navarro 2022, section 2.2",
    )
    balance: bool = balance_setting("labelled pixels", ("segmentation", "scene"))

    def needs(self) -> Needs:
        """Ask for one view of the labelled images."""
        return Needs(tasks=("segmentation", "scene", "multilabel"), labelled=(View("weak", self.recipe),))

    def init(self, net: nn.Module, spec: NetSpec) -> nn.Module:
        """Add nothing."""
        del net, spec
        return nn.Module()

    def loss(self, net: nn.Module, extra: nn.Module, batch: Batch, step: Step, rng: Randomness) -> Loss:
        """Return the mean loss over the labelled positions."""
        del step, rng
        images = batch.labelled["weak"]
        logits = self.predict(net, extra, images.pixels)
        loss = supervised_loss(logits, images.labels, images.valid, balance=self.balance)
        return Loss(total=loss, terms={"supervised": loss.detach()})
