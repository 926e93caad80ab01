"""SSL-MAE: labelled images are classified from the patches that are visible, the hidden ones are guessed in all."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from berunda import losses
from berunda.data.order import Randomness
from berunda.errors import ConfigError
from berunda.methods._masking import draw_hidden, encoder_of, masked_passes
from berunda.methods._settings import balance_setting
from berunda.methods._weighting import Weighting, rates_of, weighting_setting
from berunda.methods.contract import Batch, Loss, Method, Needs, NetSpec, SplitNet, Step, View, setting
from berunda.models.patch_decoder import LinearGuess, PatchDecoder, fill_patches
from berunda.models.transformer import VisionTransformer, patches_of, taken

__all__ = ["SslMae"]

_PAPER = "Stoimchev et al. 2025 (SSL-MAE)"
_MAE = "He et al. 2022 (masked autoencoders), section 3"


@dataclass(frozen=True)
class SslMae(Method):
    """Classification from the visible patches of labelled images, and the hidden patches of all images guessed.

    A share of each image's patches is hidden, each image its own. Only the visible ones enter the transformer, so a
    step costs a fraction of one on whole images. The mean of their tokens is classified; a light decoder guesses the
    pixels of the hidden ones. Prediction sees all patches and leaves the decoder out; the bundle keeps it to fill gaps
    and to draw pictures. It has no pseudo-labels and no teacher. mu=0 trains both tasks on the labelled images alone.

    The weight w between the tasks is fixed (search it on validation data) or learned: "raw" drifts to whichever loss is
    numerically smaller, "normalised" stays near its start, "uncertainty" has a minimum inside. The log tells its curve.

    Source: Stoimchev et al. 2025 (SSL-MAE), IEEE JSTARS; He et al. 2022 (masked autoencoders).
    Deviations: no class token; positions are fixed sines; views are the project's weak ones; a raw weight stays within
        0.01 to 0.99; every class of a batch counts once in the supervised loss of single labels (`balance`).
    """

    name: ClassVar[str] = "ssl_mae"

    mask_ratio: float = setting(0.75, "share of the patches that is hidden", valid=(0.01, 0.99), source=_PAPER)
    weighting: str = weighting_setting()
    w: float = setting(
        0.5, "weight of the supervised loss; where it is learned, its start", valid=(0, 1), source=_PAPER
    )
    mu: float = setting(1.0, "unlabelled images for each labelled one", valid=(0, 64), source=_PAPER)
    normalise: bool = setting(
        False,
        "guess each patch less its mean, over its deviation; it cannot fill gaps then",
        valid=(False, True),
        source=_MAE,
    )
    encoder_sees: str = setting(
        "visible",
        "patches in the encoder: the visible ones, or all, hidden ones as mask tokens with a linear decoder (slower)",
        valid=("visible", "all"),
        source="all: Xie et al. 2022 (SimMIM), section 3",
    )
    decoder_depth: int = setting(1, "attention blocks of the decoder", valid=(1, 12), unit="blocks")
    decoder_heads: int = setting(4, "heads of the decoder, of 32 features each", valid=(1, 32), unit="heads")
    balance: bool = balance_setting("labels", ("scene",))

    def __post_init__(self) -> None:
        """Refuse values outside their ranges, and a decoder's size where there is no decoder of that kind.

        Raises:
            ConfigError: naming the options.
        """
        super().__post_init__()
        sizes = {item.name: item.default for item in fields(self) if item.name.startswith("decoder_")}
        given = [name for name, default in sizes.items() if getattr(self, name) != default]
        if given and self.encoder_sees == "all":
            raise ConfigError(
                f"method '{self.name}': found {', '.join(given)} with encoder_sees=all, whose decoder is one linear "
                "layer; leave it out"
            )

    def needs(self) -> Needs:
        """Ask for one weak view of both streams and an encoder of patches."""
        is_whole = self.encoder_sees == "all"
        passes = 1.0 if is_whole else masked_passes(self.mask_ratio, self.decoder_depth, self.decoder_heads)
        return Needs(
            tasks=("scene", "multilabel"),
            unlabelled=(View("weak", "weak"),) if self.mu else (),
            unlabelled_ratio=self.mu,
            encoder="vit",
            labelled_passes=passes,
            trained_passes=passes,
            parameter_groups=rates_of(self.weighting),
        )

    def init(self, net: nn.Module, spec: NetSpec) -> nn.Module:
        """Return the decoder and the weighting.

        Raises:
            ConfigError: the encoder has no patches, or the images have a single one.
        """
        encoder = encoder_of(self.name, net, spec)
        extra = nn.Module()
        decoder = PatchDecoder(encoder, self.decoder_depth, 32 * self.decoder_heads)
        extra.add_module("decoder", decoder if self.encoder_sees == "visible" else LinearGuess(encoder))
        extra.add_module("weighting", Weighting(self.weighting, self.w))
        return extra

    def kept(self) -> tuple[str, ...]:
        """Keep the decoder too: it fills gaps and draws what it guesses."""
        return ("net", "extra")

    def loss(self, net: nn.Module, extra: nn.Module, batch: Batch, step: Step, rng: Randomness) -> Loss:
        """Return w * supervised + (1 - w) * reconstruction, both streams in one pass of the visible patches."""
        labelled, streams = batch.labelled["weak"], [batch.labelled["weak"], *batch.unlabelled.values()]
        pixels, valid = torch.cat([x.pixels for x in streams]), torch.cat([x.valid for x in streams])
        encoder, parts = cast(Any, net).encoder, cast(Any, extra)
        seen, hidden = self._drawn(encoder, [x.pixels for x in streams], rng)
        tokens, guess = parts.decoder(encoder, pixels, seen, hidden)
        n = len(labelled.pixels)
        logits = cast(SplitNet, net).classify(tokens[:n].mean(1))
        supervised = losses.supervised_loss(logits, labelled.labels, labelled.valid, balance=self.balance)
        target, counted = (taken(patches_of(x, encoder.patch_px), hidden) for x in (pixels, valid[:, None]))
        if self.normalise:
            target = losses.normalised_patches(target, counted)
        guessed = losses.patch_l1(guess, target, counted)
        joint = parts.weighting(supervised, guessed, step)
        terms = {"supervised": supervised.detach(), "unsupervised": guessed.detach(), **joint.terms}
        return Loss(joint.total, terms, joint.updates)

    def can_fill(self) -> bool:
        """Say yes, unless what it guesses lacks brightness and contrast."""
        return not self.normalise

    def fill(self, net: nn.Module, extra: nn.Module, pixels: Tensor, known: Tensor, rng: Randomness) -> Tensor:
        """Return `pixels` with a guess of each patch that is not wholly known, from the patches that are."""
        del rng
        return fill_patches(cast(Any, net).encoder, cast(Any, extra).decoder, pixels, known)

    def hidden_share(self) -> float:
        """Return the mask ratio."""
        return self.mask_ratio

    def rebuild(self, net: nn.Module, extra: nn.Module, pixels: Tensor, known: Tensor, rng: Randomness) -> Tensor:
        """Return what `fill` does; normalised guesses get mean and deviation of the patches themselves."""
        del rng
        finish = losses.with_contrast_of if self.normalise else None
        return fill_patches(cast(Any, net).encoder, cast(Any, extra).decoder, pixels, known, finish)

    def _drawn(self, encoder: VisionTransformer, streams: list[Tensor], rng: Randomness) -> tuple[Tensor, Tensor]:
        """Return the places (N, K) of the visible patches and (N, M) of the hidden ones, of all streams."""
        generator = rng.torch("ssl_mae.mask", device=streams[0].device)
        return draw_hidden(encoder, streams, self.mask_ratio, generator)
