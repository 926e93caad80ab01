"""Views: random renderings of the same images, for any number of bands and any radiometry.

A recipe is a geometric part (turns, whole-pixel shifts, optionally zoom and rotation) and a photometric
part. All of it is batched and drawn for each sample on its own, on the device of the pixels, from a
generator that is passed in; nothing waits for the device. It is not RandAugment: posterize, solarize and
colour jitter presume three 8-bit bands, while these act on standardised real numbers (about zero mean and
unit range in each band).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from berunda.augment.draws import Draws
from berunda.augment.geometry import Geometry, draw_geometry
from berunda.augment.mix import boxes
from berunda.errors import ConfigError

__all__ = ["RECIPES", "Photometry", "Recipe", "change_photometry", "make_view", "recipe_named"]


@dataclass(frozen=True)
class Photometry:
    """Largest photometric changes; each sample draws its own within them. Zero switches a change off.

    Attributes:
        gain: each band is multiplied by a factor in exp(-gain) .. exp(gain). Range 0 to 1.
        offset: each band is shifted by up to this, in units of standardised pixels. Range 0 to 2.
        brightness: all bands are shifted together by up to this, same units. Range 0 to 2.
        contrast: distances from the image's mean are multiplied by exp(-contrast) .. exp(contrast). Range
            0 to 1.
        tone: bend of the tone curve u + tone * u * (1 - u) over mean -+ 2 standard deviations of each
            band, a gamma correction that needs no positive numbers and keeps the order of values. Range 0
            to 1.
        blur: weight of a 5 x 5 binomial kernel (1 px standard deviation) against the sharp image. Range 0
            to 1.
        noise: largest standard deviation of added Gaussian noise, in units of standardised pixels. Range 0
            to 1.
        band_drop: chance of a band to be set to 0, the mean of the data; one band always stays. Range 0 to 1.
        cutout: largest share of the image's area that a box of zeros covers; its pixels stay valid. Range
            0 to 1.
        haze: largest opacity of a smooth bright veil. Range 0 to 1.
        probability: that tone, blur, noise, band drop, cutout and haze, each on its own, touch a sample.
    """

    gain: float = 0.0
    offset: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    tone: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    band_drop: float = 0.0
    cutout: float = 0.0
    haze: float = 0.0
    probability: float = 0.5

    def scaled(self, strength: float) -> Photometry:
        """Return all largest changes times `strength`, those that are shares of one kept at most 1."""
        free = {name: getattr(self, name) * strength for name in ("gain", "offset", "brightness", "contrast", "noise")}
        shares = {
            name: min(1.0, getattr(self, name) * strength) for name in ("tone", "blur", "band_drop", "cutout", "haze")
        }
        return replace(self, **free, **shares)


@dataclass(frozen=True)
class Recipe:
    """How a view is drawn.

    Attributes:
        turns: draw one of the eight symmetries of the square.
        shift: largest whole-pixel shift, as a share of the image's side.
        log_scale: enlargement between exp(-log_scale) and exp(log_scale); interpolates pixels.
        rotation_deg: largest rotation in degrees; interpolates pixels.
        photometry: what happens to the values, or None.
    """

    turns: bool = False
    shift: float = 0.0
    log_scale: float = 0.0
    rotation_deg: float = 0.0
    photometry: Photometry | None = None

    def scaled(self, strength: float) -> Recipe:
        """Return the recipe with its photometric part times `strength`; the geometry stays."""
        return self if self.photometry is None else replace(self, photometry=self.photometry.scaled(strength))

    def draw_geometry(self, shape: tuple[int, int, int], generator: torch.Generator) -> Geometry:
        """Draw the geometry of a batch of shape (samples, rows, cols)."""
        if not self.turns and self.shift == self.log_scale == self.rotation_deg == 0:
            return Geometry.identity(shape[0], generator.device)
        return draw_geometry(
            shape,
            generator,
            turns=self.turns,
            max_shift_px=int(self.shift * min(shape[1:])),
            log_scale=self.log_scale,
            rotation_deg=self.rotation_deg,
        )


_MEDIUM = Photometry(gain=0.1, offset=0.1, brightness=0.2, contrast=0.2, tone=0.2, noise=0.05)
_STRONG = Photometry(
    gain=0.25,
    offset=0.25,
    brightness=0.4,
    contrast=0.4,
    tone=0.5,
    blur=1.0,
    noise=0.2,
    band_drop=0.1,
    cutout=0.15,
    haze=0.5,
)

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "identity": Recipe(),
        "weak": Recipe(turns=True, shift=1 / 16),
        "medium": Recipe(turns=True, shift=1 / 16, photometry=_MEDIUM),
        "strong": Recipe(turns=True, shift=1 / 16, photometry=_STRONG),
    }
)
"""The recipes by name: unchanged, geometric only, geometric with mild and with strong photometric changes.

None of them scales or rotates freely. On EuroSAT (validation part, 5 labels per class, one seed) zooms in strong views
up to exp(.2) and rotations up to 20 degrees cost FixMatch 2.3 points of accuracy and propagation 1.3.
"""


def recipe_named(name: str, strength: float = 1.0) -> Recipe:
    """Return the recipe of this name, its photometric part times `strength`.

    Raises:
        ConfigError: if there is no such recipe.
    """
    if name not in RECIPES:
        raise ConfigError(f"view recipe: found '{name}', expected one of {', '.join(RECIPES)}")
    return RECIPES[name].scaled(strength)


@torch.no_grad()
def make_view(
    pixels: Tensor,
    valid: Tensor,
    labels: Tensor | None,
    recipe: Recipe | str,
    generator: torch.Generator | Draws,
    *,
    geometry: Geometry | None = None,
) -> tuple[Tensor, Tensor, Tensor | None, Geometry]:
    """Render a batch as `recipe` says.

    Args:
        pixels: (N, B, H, W) real, standardised; values where `valid` is false are never read.
        valid: (N, H, W) bool.
        labels: (N, H, W) integer label maps move with the pixels (-1 outside); labels of whole images,
            (N,) or (N, C), and None are passed on.
        recipe: the recipe or its name.
        generator: on the device of `pixels`; as `Draws` where these samples are a slice of a larger batch.
        geometry: use this geometry instead of drawing one, so that two views agree pixel by pixel.

    Returns:
        pixels (0 where invalid), valid, labels and geometry of the view.
    """
    if isinstance(recipe, str):
        recipe = recipe_named(recipe)
    draws = generator if isinstance(generator, Draws) else Draws(generator)
    n, _, n_rows, n_cols = pixels.shape
    if geometry is None:
        geometry = recipe.draw_geometry((draws.total(n), n_rows, n_cols), draws.generator)
        if draws.place is not None:
            geometry = geometry.select(draws.place.positions.to(pixels.device))
    view, valid_view = geometry.apply_masked(pixels, valid)
    labels_view = labels
    if labels is not None and labels.ndim == 3:
        labels_view = geometry.apply(labels, fill=-1)
    if recipe.photometry is not None:
        _change_in_place(view, valid_view, recipe.photometry, draws)
    return view, valid_view, labels_view, geometry


@torch.no_grad()
def change_photometry(pixels: Tensor, valid: Tensor, photometry: Photometry, generator: torch.Generator) -> Tensor:
    """Change the values of a batch and leave every pixel where it is.

    Args:
        pixels: (N, B, H, W) real, standardised, 0 where invalid.
        valid: (N, H, W) bool.
        photometry: the largest changes.
        generator: on the device of `pixels`.

    Returns:
        A new tensor, 0 where invalid. Invalid pixels influence no valid one.
    """
    changed = pixels.clone(memory_format=torch.contiguous_format)
    _change_in_place(changed, valid, photometry, Draws(generator))
    return changed


def _change_in_place(pixels: Tensor, valid: Tensor, photometry: Photometry, draws: Draws) -> None:
    """Overwrite contiguous `pixels`: a fresh buffer would cost more than most of these operations."""
    n, n_bands, n_rows, n_cols = pixels.shape

    def draw(*shape: int) -> Tensor:
        whole = (draws.total(n), *shape)
        return draws.own(torch.rand(whole, generator=draws.generator, device=pixels.device, dtype=pixels.dtype))

    def draw_six() -> Tensor:
        whole = (6, draws.total(n))
        return draws.own(torch.rand(whole, generator=draws.generator, device=pixels.device, dtype=pixels.dtype), 1)

    size = draw_six() * (draw_six() < photometry.probability)
    bend, blur, noise, drop, cutout, haze = size.unbind()
    if photometry.blur > 0:
        _blur(pixels, valid, photometry.blur * blur)
    _stretch(pixels, valid, photometry, bend * draw().sub_(0.5).sign_(), draw(n_bands + 1, 2))
    if photometry.noise > 0:
        pixels.addcmul_(_noise(pixels, draws), _column(photometry.noise * noise))
    if photometry.haze > 0:
        opacity = _smooth_field(pixels, draws) * _column(photometry.haze * haze)
        pixels.lerp_(1 + draw(n_bands, 1, 1), opacity)
    if photometry.band_drop > 0:
        pixels.mul_(_band_factors(draw(n_bands), photometry.band_drop * (drop > 0)))
    if photometry.cutout > 0:
        valid = valid & ~boxes(photometry.cutout * cutout, draw(3), (n_rows, n_cols))
    pixels.mul_(valid[:, None].to(pixels.dtype))


def _column(x: Tensor) -> Tensor:
    """Shape (N,) or (N, B) so that it multiplies (N, B, H, W)."""
    return x.view(*x.shape, *[1] * (4 - x.ndim))


def _blur(pixels: Tensor, valid: Tensor, weight: Tensor) -> None:
    """Blend with a 5 x 5 binomial blur by `weight` (N,); invalid and outside pixels enter no mean."""
    share = _binomial(valid[:, None].to(pixels.dtype)).clamp_(min=1 / 256)
    pixels.lerp_(_binomial(pixels).div_(share), _column(weight))


def _binomial(x: Tensor) -> Tensor:
    """Blur twice by (1 2 1)/4 in rows and in columns, zeros outside.

    The whole batch, padded, is one line of memory, so that a shift by a row or a column is a shift along
    it; the padding of two pixels keeps neighbouring rows and images apart.
    """
    n, n_bands, n_rows, n_cols = x.shape
    line = F.pad(x, (2, 2, 2, 2)).view(-1)
    other = torch.empty_like(line)
    other[: n_cols + 4] = other[-n_cols - 4 :] = 0  # no pass writes the ends; they only border on padding
    for step in (n_cols + 4, n_cols + 4, 1, 1):
        inner = torch.add(line[: -2 * step], line[2 * step :], out=other[step:-step])
        inner.add_(line[step:-step], alpha=2)
        line, other = other, line
    return line.mul_(1 / 256).view(n, n_bands, n_rows + 4, n_cols + 4)[:, :, 2:-2, 2:-2]


def _stretch(pixels: Tensor, valid: Tensor, photometry: Photometry, bend: Tensor, uniform: Tensor) -> None:
    """Bend the tone curve, then apply gain, offset, brightness and contrast as one line a band.

    `bend` is (N,) in -1..1; `uniform` (N, B + 1, 2) gives gain and offset of each band, then contrast and
    brightness.
    """
    signed = 2 * uniform - 1
    n_valid = valid.sum(dim=(1, 2)).to(pixels.dtype).clamp_(min=1)[:, None]
    mean = pixels.sum(dim=(2, 3)) / n_valid
    gain = torch.exp(photometry.gain * signed[:, :-1, 0])
    contrast = torch.exp(photometry.contrast * signed[:, -1:, 0])
    offset = photometry.offset * signed[:, :-1, 1] + photometry.brightness * signed[:, -1:, 1]
    # contrast * (gain * x + offset - (gain * mean + offset)) + (gain * mean + offset)
    slope, intercept = gain * contrast, gain * mean * (1 - contrast) + offset
    if photometry.tone <= 0:
        pixels.mul_(_column(slope)).add_(_column(intercept))
        return
    square = torch.linalg.vector_norm(pixels, dim=(2, 3)).square() / n_valid
    spread = 4 * (square - mean.square()).clamp_(min=1e-6).sqrt()
    bulge = torch.addcmul(_column(0.5 - mean / spread), pixels, _column(1 / spread)).clamp_(0, 1)
    bulge.addcmul_(bulge, bulge, value=-1)
    pixels.mul_(_column(slope)).add_(_column(intercept))
    pixels.addcmul_(bulge, _column(photometry.tone * bend[:, None] * spread * slope))


def _noise(pixels: Tensor, draws: Draws) -> Tensor:
    """Return standard normal noise shaped like `pixels`.

    One pool a sample serves all its bands, each band reading it from further on: independent between the
    bands of a pixel, at a fraction of the draws.
    """
    n, n_bands, n_rows, n_cols = pixels.shape
    stride = 2 * n_cols + 5
    size = (draws.total(n), n_rows * n_cols + (n_bands - 1) * stride)
    pool = draws.own(torch.randn(size, generator=draws.generator, device=pixels.device, dtype=pixels.dtype))
    return pool.unfold(1, n_rows * n_cols, stride).view(pixels.shape)


def _smooth_field(pixels: Tensor, draws: Draws) -> Tensor:
    """Return (N, 1, H, W) in 0..1 that varies over about a quarter of the image."""
    size = (draws.total(pixels.shape[0]), 1, 4, 4)
    coarse = draws.own(torch.rand(size, generator=draws.generator, device=pixels.device, dtype=pixels.dtype))
    return F.interpolate(coarse, size=pixels.shape[2:], mode="bilinear", align_corners=False)


def _band_factors(uniform: Tensor, chance: Tensor) -> Tensor:
    """Return (N, B, 1, 1), 0 for dropped bands, of `chance` (N,); the band of the largest draw stays."""
    kept = (uniform >= chance[:, None]) | (uniform == uniform.amax(1, keepdim=True))
    return _column(kept.to(uniform.dtype))
