"""VAE: a classifier whose features must also tell a generator what the image looks like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from berunda import losses
from berunda.augment.mix import draw_normal
from berunda.data.order import Randomness
from berunda.data.scaling import CLIP
from berunda.methods._generators import AT_ONCE, WholeImage, weighted_rows
from berunda.methods.contract import Batch, Loss, Method, Needs, NetSpec, SplitNet, Step, View, setting

__all__ = ["VAE", "elbo"]

_GRID = 4
_CANDIDATES = 64


def elbo(log_pixels: Tensor, divergence: Tensor, valid: Tensor) -> Tensor:
    """Return the evidence lower bound of images over their number of valid pixels.

    Args:
        log_pixels: (N, H, W) log p(x_i | z) of each pixel.
        divergence: (N,) KL(q(z | x) || p(z)).
        valid: (N, H, W) bool.

    Source: Kingma and Welling 2014, eq. 7.
    """
    return losses.per_pixel(log_pixels, valid) - losses.per_pixel(divergence, valid)


@dataclass(frozen=True)
class VAE(Method):
    """Cross-entropy on labelled images, and the evidence lower bound of all images on the same encoder.

    The encoder's coarsest features give a normal distribution over a latent vector; a generator rebuilds the pixels
    from a draw of it. A linear classifier reads the latent vector too: images of a class are generated from draws of
    the prior, chosen by what it says of them. It is the plain baseline of the generative methods: samples are blurred.
    Costs about one and a half passes of every image, and no teacher.

    Source: Kingma and Welling 2014; Castillo-Navarro 2022, section 4.2 (baseline).
    Deviations: the encoder is that of the classifier; the scale of the pixels' noise is learned, one a band; every
        class of a batch counts once in the supervised loss (`balance`).
    """

    name: ClassVar[str] = "vae"

    latent: int = setting(64, "numbers that describe an image", valid=(1, 4096))
    width: int = setting(32, "channels of the generator at full resolution", valid=(4, 512), unit="channels")
    lambda_p: float = setting(1.0, "weight of the bound, in nats a pixel", valid=(0, 100))
    mu: float = setting(1.0, "unlabelled images for each labelled one", valid=(0, 64))
    balance: bool = setting(
        True, "let every class of a batch count once, however many labels it has", valid=(False, True)
    )

    def needs(self) -> Needs:
        """Ask for one weak view of both streams."""
        return Needs(
            tasks=("scene",),
            unlabelled=(View("weak", "weak"),) if self.mu else (),
            unlabelled_ratio=self.mu,
            labelled_passes=1.5,
            trained_passes=1.5,
            returns=5,
        )

    def init(self, net: nn.Module, spec: NetSpec) -> nn.Module:
        """Return the way from features to the latent vector, the generator, and the classifier of latent vectors."""
        extra = nn.Module()
        n_features = cast(SplitNet, net).feature_dim * _GRID**2
        extra.add_module("describe", nn.Linear(n_features, 2 * self.latent))
        extra.add_module("generator", WholeImage(self.latent, self.width, spec.n_bands, spec.crop_px))
        extra.add_module("classifier", nn.Linear(self.latent, spec.n_classes))
        return extra

    def loss(self, net: nn.Module, extra: nn.Module, batch: Batch, step: Step, rng: Randomness) -> Loss:
        """Return supervised - lambda_p * bound, with all images in one forward pass."""
        del step
        labelled, streams = batch.labelled["weak"], [batch.labelled["weak"], *batch.unlabelled.values()]
        pixels, valid = torch.cat([x.pixels for x in streams]), torch.cat([x.valid for x in streams])
        parts, more, n = cast(SplitNet, net), cast(Any, extra), len(labelled.pixels)
        features = parts.encode(pixels)
        logits = parts.classify(parts.decode(features))[:n]
        mean, log_scale = self._described(more, features[-1])
        latent = mean + log_scale.exp() * draw_normal(mean, rng.torch("vae.latent", device=pixels.device))
        rebuilt = more.generator(latent)
        divergence = losses.kl_to_normal(mean, log_scale)
        bound = elbo(losses.gaussian_log(pixels, rebuilt, more.generator.noise), divergence, valid)
        answers = (logits, more.classifier(latent[:n]))
        own, read = (losses.supervised_loss(a, labelled.labels, labelled.valid, balance=self.balance) for a in answers)
        terms = {"supervised": own + read, "bound": bound, "divergence": losses.per_pixel(divergence, valid)}
        return Loss(own + read - self.lambda_p * bound, {name: term.detach() for name, term in terms.items()})

    def generate(self, net: nn.Module, extra: nn.Module, labels: Tensor, rng: Randomness) -> Tensor:
        """Return means of images whose latent vectors are draws of p(z | y), by resampling draws of p(z)."""
        del net
        more: Any = extra
        generator = rng.torch("vae.generate", device=labels.device)
        like = more.classifier.weight.new_empty(len(labels) * _CANDIDATES, self.latent)
        latent = draw_normal(like, generator)
        said = more.classifier(latent).log_softmax(1).gather(1, labels.repeat_interleave(_CANDIDATES)[:, None])
        own = said.view(len(labels), _CANDIDATES)  # each image chooses among candidates of its own
        chosen = weighted_rows(own.exp(), generator)
        rows = chosen + _CANDIDATES * torch.arange(len(labels), device=labels.device)
        images = torch.cat([more.generator(some) for some in latent[rows].split(AT_ONCE)])
        return images.clamp(-CLIP, CLIP)

    def kept(self) -> tuple[str, ...]:
        """Keep the generator too."""
        return ("net", "extra")

    def _described(self, extra: Any, coarsest: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and logarithm of the scale of the latent vector."""
        pooled = F.adaptive_avg_pool2d(losses.real(coarsest), _GRID).flatten(1)
        mean, log_scale = losses.real(extra.describe(pooled.to(extra.describe.weight.dtype))).chunk(2, dim=1)
        return mean, log_scale.clamp(-6, 2)
