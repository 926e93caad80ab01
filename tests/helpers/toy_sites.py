"""Small sites of made-up pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int, tone: tuple[int, int, int] = (90, 120, 60), side: int = 32) -> np.ndarray:
    """Return a smooth random picture (side, side, 3) uint8 around a colour."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.normal(size=(6, 6)).astype(np.float32))
    smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))
    values = np.array(tone, float) + 30 * smooth[..., None] + rng.normal(scale=3, size=(side, side, 3))
    return np.clip(values, 0, 255).astype(np.uint8)


def write_site(
    folder: Path, seed: int, n: int, tone: tuple[int, int, int] = (90, 120, 60), side: int = 32
) -> list[Path]:
    """Write `n` pictures of a site."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for k in range(n):
        paths.append(folder / f"{k:03d}.png")
        Image.fromarray(picture(1000 * seed + k, tone, side)).save(paths[-1])
    return paths


def write_sites(root: Path, n: int = 12) -> Path:
    """Write four sites: two alike, one a little off, one of another world."""
    tones = {"east": (90, 120, 60), "north": (90, 120, 60), "south": (120, 120, 60), "west": (20, 40, 230)}
    for seed, (name, tone) in enumerate(tones.items()):
        write_site(root / name, seed, n, tone)
    return root
