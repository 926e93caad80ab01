"""Which sites to label and which to keep for the test, chosen in two steps, each with its reason.

First the test: the sites that stand best for all (their classes and their appearance), among the choices that leave
the appearance of the test covered by the rest. It is chosen without a look at what is easy for the labels, so that the
figures are not flattered. Then the labels: the sites whose classes come closest to the test's proportions and whose
appearance covers most of the test. Small problems are searched through; large ones are started greedily and improved
by exchanges until none helps.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from berunda.assess.full_space import FullSpace
from berunda.assess.representativeness import jensen_shannon
from berunda.data.order import Randomness
from berunda.errors import ConfigError

__all__ = ["Candidates", "SplitChoice", "choose_split"]

MAX_SEARCHED = 20_000
"""So many choices are all looked at; of more, exchanges find a good one."""
WEIGHT_MISSING = 0.5
"""What a class that the labelled sites lack costs, beside distances and uncovered shares of 0 to 1."""
WEIGHT_HIDDEN = 2.0
"""What test appearance that no other site covers costs: such sites cannot be mapped by any method."""
_N_RANDOM = 200
_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1, dtype=np.uint8)


@dataclass(frozen=True)
class Candidates:
    """What a choice is judged by.

    Attributes:
        names: of the S sites.
        space: distances of images to sites.
        counts: (S, C) classes of each site; None where classes are not known.
        classes: names of the C classes.
    """

    names: tuple[str, ...]
    space: FullSpace
    counts: np.ndarray | None = None
    classes: tuple[str, ...] = ()

    @property
    def has_classes(self) -> bool:
        """Whether the class of anything is known."""
        return self.counts is not None and bool(self.counts.any())

    @cached_property
    def _covered(self) -> npt.NDArray[np.uint8]:
        """Which images each site covers, (S, bytes), a bit an image: a union of sites is one "or" of a few rows."""
        return np.packbits(self.space.is_covered.T, axis=1)

    @cached_property
    def _members(self) -> npt.NDArray[np.uint8]:
        """Which images each site has, (S, bytes) likewise."""
        return np.packbits(self.space.site_of == np.arange(len(self.names))[:, None], axis=1)

    def uncovered(self, sites: Sequence[int], target: Sequence[int]) -> float:
        """Return the share of the images of `target` that `sites` do not cover; 1 where there is no image."""
        of_target = np.bitwise_or.reduce(self._members[list(target)], axis=0)
        n_images = _n_bits(of_target)
        if not len(sites) or not n_images:
            return 1.0
        covered = np.bitwise_or.reduce(self._covered[list(sites)], axis=0)
        return 1.0 - _n_bits(covered & of_target) / n_images

    def class_distance(self, first: Sequence[int], second: Sequence[int]) -> float:
        """Return the Jensen-Shannon distance between the classes of two groups of sites, 0..1.

        0 where no class is known at all, 1 where those of one group are not.
        """
        distance = self.known_distance(first, second)
        return (1.0 if self.has_classes else 0.0) if math.isnan(distance) else distance

    def known_distance(self, first: Sequence[int], second: Sequence[int]) -> float:
        """Return that distance; NaN where the classes of one group are not known."""
        if self.counts is None:
            return math.nan
        return jensen_shannon(self.counts[list(first)].sum(axis=0), self.counts[list(second)].sum(axis=0))

    def missing(self, first: Sequence[int], second: Sequence[int]) -> tuple[str, ...]:
        """Return the classes that `second` has and `first` lacks."""
        if self.counts is None:
            return ()
        lacks = (self.counts[list(first)].sum(axis=0) == 0) & (self.counts[list(second)].sum(axis=0) > 0)
        return tuple(name for name, is_missing in zip(self.classes, lacks, strict=True) if is_missing)


def _n_bits(packed: npt.NDArray[np.uint8]) -> int:
    return int(_BITS[packed].sum(dtype=np.int64))


@dataclass(frozen=True)
class SplitChoice:
    """A split of sites.

    Attributes:
        labelled, unlabelled, test: indices of sites, ascending.
        cost: of the choice of labels, lower is better.
        random_cost: mean cost of random choices of as many sites.
        figures: class distance, covered shares and so on, fractions of 1.
        reasons: why, in plain sentences.
    """

    labelled: tuple[int, ...]
    unlabelled: tuple[int, ...]
    test: tuple[int, ...]
    cost: float
    random_cost: float
    figures: dict[str, float] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()

    def role(self, site: int) -> str:
        """Return the role of a site."""
        return "labelled" if site in self.labelled else "test" if site in self.test else "unlabelled"


def choose_split(
    candidates: Candidates,
    *,
    n_labelled: int,
    n_test: int,
    given: Mapping[str, Sequence[int]] | None = None,
    seed: int = 0,
    beside_test: Callable[[tuple[int, ...]], Candidates] | None = None,
) -> SplitChoice:
    """Choose the sites to label and those to keep for the test.

    Args:
        candidates: the sites.
        n_labelled: how many to label, those given included.
        n_test: how many to test on, those given included.
        given: role -> sites that have it in any case.
        seed: of the random choices that the choice is compared with, and of the exchanges' order.
        beside_test: from the sites chosen for the test to the candidates as they are then, without images that lie too
            near to the test; the labels are chosen from those, and all figures are theirs. None leaves nothing out.

    Raises:
        ConfigError: there are not so many sites, or none would be left.
    """
    labelled, unlabelled, test = (tuple((given or {}).get(role, ())) for role in ("labelled", "unlabelled", "test"))
    n_labelled, n_test = max(n_labelled, len(labelled)), max(n_test, len(test))
    everything = [s for s in range(len(candidates.names)) if s not in unlabelled]
    if n_labelled < 1 or n_test < 1 or n_labelled + n_test > len(everything):
        kept = f" ({len(unlabelled)} of them stay unlabelled)" if unlabelled else ""
        raise ConfigError(
            f"{len(candidates.names)} sites found{kept}, {n_labelled} to label and {n_test} to test on asked for, "
            "expected at least one of each and no more than there are; change --n-labelled and --n-test, or cut the "
            "scene into smaller sites (--site-px)"
        )
    rng = Randomness(seed).numpy("choose split")
    free = [s for s in everything if s not in labelled]
    chosen_test = _search(_test_cost(candidates), free, n_test, test, rng)
    left = candidates if beside_test is None else beside_test(chosen_test)
    beside = [s for s in everything if s not in chosen_test]
    open_sites = [s for s in beside if s in labelled or (left.space.site_of == s).any()]
    if len(open_sites) < n_labelled:  # sites without an image that is left would be labelled in vain
        open_sites = beside
    cost = _label_cost(left, chosen_test)
    chosen = _search(cost, open_sites, n_labelled, labelled, rng)
    drawn = [cost(tuple(sorted(rng.choice(open_sites, n_labelled, replace=False).tolist()))) for _ in range(_N_RANDOM)]
    rest = tuple(s for s in range(len(candidates.names)) if s not in {*chosen, *chosen_test})
    figures = _figures(left, chosen, rest, chosen_test)
    made = SplitChoice(chosen, rest, chosen_test, cost(chosen), float(np.mean(drawn)), figures)
    return replace(made, reasons=tuple(_reasons(left, made, cost)))


def _test_cost(candidates: Candidates) -> Callable[[tuple[int, ...]], float]:
    everything = range(len(candidates.names))

    def cost(test: tuple[int, ...]) -> float:
        chosen = set(test)
        rest = [s for s in everything if s not in chosen]
        return (
            candidates.class_distance(test, everything)
            + candidates.uncovered(test, everything)
            + WEIGHT_HIDDEN * candidates.uncovered(rest, test)
        )

    return cost


def _label_cost(candidates: Candidates, test: Sequence[int]) -> Callable[[tuple[int, ...]], float]:
    def cost(chosen: tuple[int, ...]) -> float:
        n_missing = len(candidates.missing(chosen, test))
        return candidates.class_distance(chosen, test) + candidates.uncovered(chosen, test) + WEIGHT_MISSING * n_missing

    return cost


def _search(
    cost: Callable[[tuple[int, ...]], float],
    free: Sequence[int],
    n: int,
    fixed: Sequence[int],
    rng: np.random.Generator,
) -> tuple[int, ...]:
    """Return the `n` sites of least cost, `fixed` among them."""
    open_sites = [s for s in free if s not in fixed]
    n_open = n - len(fixed)
    if math.comb(len(open_sites), n_open) <= MAX_SEARCHED:
        choices = (tuple(sorted((*fixed, *extra))) for extra in itertools.combinations(open_sites, n_open))
        return min(choices, key=lambda choice: (cost(choice), choice))
    chosen = list(fixed)
    for _ in range(n_open):
        left = [s for s in open_sites if s not in chosen]
        chosen.append(min(left, key=lambda s: (cost(tuple(sorted((*chosen, s)))), s)))
    return _exchanged(cost, chosen, open_sites, rng)


def _exchanged(
    cost: Callable[[tuple[int, ...]], float],
    chosen: list[int],
    open_sites: Sequence[int],
    rng: np.random.Generator,
) -> tuple[int, ...]:
    """Exchange one site at a time while that helps; at most 2000 exchanges are tried."""
    best, least = sorted(chosen), cost(tuple(sorted(chosen)))
    movable = [s for s in chosen if s in open_sites]
    others = [s for s in open_sites if s not in chosen]
    pairs = [(a, b) for a in movable for b in others]
    for turn in rng.permutation(len(pairs))[:2000]:
        out, new = pairs[int(turn)]
        if out not in best or new in best:
            continue
        trial = sorted([s for s in best if s != out] + [new])
        if (found := cost(tuple(trial))) < least:
            best, least = trial, found
    return tuple(best)


def _figures(
    candidates: Candidates, labelled: Sequence[int], unlabelled: Sequence[int], test: Sequence[int]
) -> dict[str, float]:
    """Return the figures of a choice; those of classes only where these are known."""
    everything = range(len(candidates.names))
    of_classes = {
        "class_distance_labelled_test": candidates.known_distance(labelled, test),
        "class_distance_test_all": candidates.known_distance(test, everything),
    }
    found = {name: value for name, value in of_classes.items() if not math.isnan(value)}
    if len(found) == len(of_classes):
        found["n_classes_missing"] = float(len(candidates.missing(labelled, test)))
    return found | {
        "test_covered_by_labelled": 1 - candidates.uncovered(labelled, test),
        "test_covered_by_all_training": 1 - candidates.uncovered([*labelled, *unlabelled], test),
        "all_covered_by_test": 1 - candidates.uncovered(test, everything),
    }


def _reasons(candidates: Candidates, made: SplitChoice, cost: Callable[[tuple[int, ...]], float]) -> Sequence[str]:
    figures, names = made.figures, candidates.names
    test, labelled = (", ".join(names[s] for s in group) for group in (made.test, made.labelled))
    told = [
        f"Test: {test}. Together these look like {figures['all_covered_by_test']:.0%} of all images, and "
        f"{figures['test_covered_by_all_training']:.0%} of their images have a like in the other sites."
    ]
    distance = figures.get("class_distance_test_all")
    if distance is not None:
        told[0] += f" The distance of their classes from those of all sites is {distance:.2f}."
    told.append(f"Labels: {labelled}. They cover {figures['test_covered_by_labelled']:.0%} of the test's appearance.")
    distance = figures.get("class_distance_labelled_test")
    if distance is not None:
        told[1] += f" The distance of their classes from the test's is {distance:.2f} (0 equal, 1 nothing in common)."
    if len(made.labelled) > 1:
        told += [_share_of(candidates, made, site, cost) for site in made.labelled]
    told.append(
        f"The cost of this choice is {made.cost:.2f}; that of random choices of as many sites is "
        f"{made.random_cost:.2f} on "
        "average."
    )
    missing = candidates.missing(made.labelled, made.test)
    if missing:
        told.append(f"No site that could be labelled has {', '.join(missing)}, or none within this number; label more.")
    return told


def _share_of(candidates: Candidates, made: SplitChoice, site: int, cost: Callable[[tuple[int, ...]], float]) -> str:
    """Return what a labelled site adds to the others."""
    without = tuple(s for s in made.labelled if s != site)
    lost = candidates.uncovered(without, made.test) - candidates.uncovered(made.labelled, made.test)
    lacking = candidates.missing(made.labelled, made.test)
    classes = [c for c in candidates.missing(without, made.test) if c not in lacking]
    alone = f", and is the only one with {', '.join(classes)}" if classes else ""
    return (
        f"{candidates.names[site]} covers {lost:.0%} of the test that the other labelled sites do not{alone}; without "
        "it "
        f"the cost would be {cost(without):.2f}."
    )
