"""Counter-based randomness: every random draw is a pure function of (seed, purpose, counters).

No sampler and no worker holds the state of a random generator, so the order of the data does not depend on the number
of workers and a resumed run needs no replay.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

__all__ = ["Randomness", "key_of"]


def key_of(seed: int, purpose: str, *counters: int) -> int:
    """Return a 63-bit key for (seed, purpose, counters); equal arguments give an equal key on every machine."""
    text = f"{seed}|{purpose}|" + ",".join(str(int(c)) for c in counters)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


@dataclass(frozen=True)
class Randomness:
    """A source of generators for one seed (and one attempt, when a run went back after divergence).

    Example:
        >>> Randomness(0).numpy("crops", 3).integers(10) == Randomness(0).numpy("crops", 3).integers(10)
        True
    """

    seed: int
    counters: tuple[int, ...] = ()

    def at(self, *counters: int) -> Randomness:
        """Return the source with further counters fixed (the step, the attempt, the rank)."""
        return Randomness(self.seed, (*self.counters, *counters))

    def numpy(self, purpose: str, *counters: int) -> np.random.Generator:
        """Return a fresh numpy generator for this purpose and these counters."""
        return np.random.Generator(np.random.Philox(key_of(self.seed, purpose, *self.counters, *counters)))

    def torch(self, purpose: str, *counters: int, device: torch.device | str = "cpu") -> torch.Generator:
        """Return a fresh torch generator on `device` for this purpose and these counters."""
        import torch

        generator = torch.Generator(device=device)
        generator.manual_seed(key_of(self.seed, purpose, *self.counters, *counters))
        return generator
