"""The two players of the hierarchical VAE: what each draws for the other, and how well each explains it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from berunda import losses
from berunda.augment.mix import draw_cutmix, draw_normal, draw_uniform
from berunda.data.scaling import CLIP
from berunda.methods._generators import Latent, halved, one_hot
from berunda.methods.contract import IGNORE, Images

__all__ = ["Hierarchy", "completed_maps", "drawn_classes", "mixed_maps"]


def completed_maps(logits: Tensor, images: Images, generator: torch.Generator) -> Tensor:
    """Return one-hot maps (N, C, H, W) of the images' labels; what has none is drawn from softmax(logits)."""
    chosen = drawn_classes(logits, generator)
    if images.labels is not None:
        chosen = torch.where(_known(images), images.labels, chosen)
    return F.one_hot(chosen, logits.shape[1]).movedim(-1, 1).to(logits.dtype)


def drawn_classes(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Return classes (N, H, W) int64 drawn from softmax(logits), pixel by pixel."""
    uniform = draw_uniform(logits.shape, generator).clamp(1e-12, 1 - 1e-7).to(logits.dtype)
    return (logits - (-uniform.log()).log()).argmax(dim=1)


def mixed_maps(images: Images, maps: Tensor, chance: float, generator: torch.Generator) -> tuple[Images, Tensor]:
    """Return the images' labels and gaps, and their maps (N, C, H, W), some with a box of another image's.

    Pixels stay as they are and so belong to the labels no more: they have to be drawn anew. A few labelled maps stand
    for many layouts then; the weak view has turned each already.
    """
    n, rows, cols = images.valid.shape
    mix = draw_cutmix((n, rows, cols), generator, probability=chance)
    labels = None if images.labels is None else mix.apply(images.labels)
    return replace(images, labels=labels, valid=mix.apply(images.valid)), mix.apply(maps)


@dataclass(frozen=True)
class Hierarchy:
    """The latent maps of the hierarchy; `extra` holds the nets "generator" (p) and "inference" (q but for q(s | x)).

    Attributes:
        deep: family of l.
        middle: family of z_1.
        shares: whether q(z_1 | x, s, l) adds to the numbers of p(z_1 | s, l), which it leaves as they are.
        balance: whether every class of the labelled maps counts once in log q(s | x).
    """

    deep: Latent
    middle: Latent
    shares: bool
    balance: bool = False

    def log_p(self, extra: nn.Module, images: Images, maps: Tensor, generator: torch.Generator) -> Tensor:
        """Return E_q log p(x, z_1 | s, l) over the number of valid pixels; only p gets a gradient.

        Args:
            extra: the nets.
            images: x.
            maps: (N, C, H, W) s, one-hot, given or drawn.
            generator: on the device of the pixels.
        """
        parts: Any = extra
        pixels = losses.real(images.pixels)
        with torch.no_grad():
            seen = parts.inference.seen(pixels)
            deep = self.deep.draw(parts.inference.deep(seen), generator)
            middle = self.middle.draw(self.q_middle(parts, seen, maps, deep), generator)
        log_middle = self.middle.log(middle, parts.generator.middle(maps, deep))
        log_pixels = losses.gaussian_log(pixels, parts.generator.pixels(middle, maps, deep), parts.generator.noise)
        return losses.per_pixel(log_middle, images.valid) + losses.per_pixel(log_pixels, images.valid)

    def log_q(
        self,
        extra: nn.Module,
        segment: Callable[[Tensor], Tensor],
        images: Images,
        maps: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """Return E_p log q(s, l, z_1 | x) over the number of labelled pixels; only q gets a gradient.

        Args:
            extra: the nets.
            segment: from pixels to logits of s.
            images: whose labels are pi(s); x is drawn anew for them.
            maps: (N, C, H, W) s, one-hot: the labels, and where there are none any other, which count nowhere.
            generator: on the device of the pixels.
        """
        parts: Any = extra
        known = _known(images)
        with torch.no_grad():
            pixels, deep, middle = self.drawn(parts.generator, maps, images.valid, generator)
        said, seen = losses.real(segment(pixels)), parts.inference.seen(pixels)
        log_map = -losses.supervised_loss(said, images.labels, images.valid, balance=self.balance)
        log_deep = losses.per_pixel(self.deep.log(deep, parts.inference.deep(seen)), known)
        return (
            log_map
            + log_deep
            + losses.per_pixel(self.middle.log(middle, self.q_middle(parts, seen, maps, deep)), known)
        )

    def q_middle(self, extra: Any, seen: Tensor, maps: Tensor, deep: Tensor) -> Tensor:
        """Return the numbers of q(z_1 | x, s, l)."""
        found: Tensor = extra.inference.middle(seen, maps, deep)
        if not self.shares:
            return found
        with torch.no_grad():
            known = extra.generator.middle(maps, deep)
        return found + known

    def remade(self, extra: Any, pixels: Tensor, logits: Tensor, generator: torch.Generator) -> Tensor:
        """Return what p makes of draws of q for images (N, B, H, W) and what the net says of them (N, C, H, W)."""
        seen, maps = extra.inference.seen(pixels), one_hot(drawn_classes(logits, generator), extra.generator)
        deep = self.deep.draw(extra.inference.deep(seen), generator)
        middle = self.middle.draw(self.q_middle(extra, seen, maps, deep), generator)
        images: Tensor = extra.generator.pixels(middle, maps, deep)
        return images

    def drawn_deep(self, maps: Tensor, generator: torch.Generator) -> Tensor:
        """Return a draw of p(l), standard normal or fair bits, for segmentations (N, C, H, W)."""
        rows, cols = (-(-n // 2) for n in halved(maps))
        return self.deep.draw(maps.new_zeros(len(maps), self.deep.n_numbers, rows, cols), generator)

    def drawn(
        self, generates: Any, maps: Tensor, valid: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return draws of x, l and z_1 from p for the segmentations `maps`; x has the gaps of the images."""
        deep = self.drawn_deep(maps, generator)
        middle = self.middle.draw(generates.middle(maps, deep), generator)
        means = generates.pixels(middle, maps, deep)
        pixels = (means + generates.noise.exp() * draw_normal(means, generator)).clamp(-CLIP, CLIP)
        return pixels * valid[:, None].to(pixels.dtype), deep, middle


def _known(images: Images) -> Tensor:
    """Return (N, H, W) bool: which pixels carry a label and hold data."""
    if images.labels is None:
        return torch.zeros_like(images.valid)
    return images.valid & (images.labels != IGNORE)
