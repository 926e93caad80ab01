"""The analysis of sites put together: what is measured on a plane and beside it, and what it means in plain words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from berunda.assess.description import Description
from berunda.assess.full_space import FullSpace
from berunda.assess.next_labels import Ranked
from berunda.assess.overlap import Overlap, overlap_of
from berunda.assess.representativeness import ClassFigures
from berunda.assess.support import MIN_IMAGES, ROUGH_IMAGES, Support
from berunda.data.site_classes import ClassCounts
from berunda.data.sites import ROLES, SiteSet

__all__ = ["MAX_SHOWN", "Overlaps", "SiteAnalysis", "find_overlaps", "findings_of", "is_drawn", "warnings_of"]

GOOD, POOR = 0.8, 0.5
"""A site covered to more than GOOD counts as covered; to less than POOR, a model extrapolates there."""
DISAGREE = 0.35
MAX_SHOWN = 40
"""Rows and columns that a picture or a list of the page shows at most; the tables hold them all."""
MAX_PAIRS = 250_000
"""So many pairs of sites are compared; of more, which would be millions of lines, only unions and single sites are."""
_MAX_SENTENCES = 12
BOTH = "labelled + unlabelled"
GROUP = "data set "


@dataclass(frozen=True)
class Overlaps:
    """Overlaps of supports, on the plane and in the full space.

    Attributes:
        pairs, pairs_full: of training sites (rows) with test sites (columns); of all sites where no roles are given;
            None for more than `MAX_PAIRS` pairs.
        unions, unions_full: of unions of sites by role or by data set (rows) with these and single sites (columns).
        others: (S,) share of each site's support, on the plane, that all other sites cover.
        others_full: (S,) likewise in the full space.
        names: which union (a role, "labelled + unlabelled" or "data set X") -> its name in `unions`, that of no site.
    """

    pairs: Overlap | None
    pairs_full: Overlap | None
    unions: Overlap | None
    unions_full: Overlap | None
    others: np.ndarray
    others_full: np.ndarray
    names: Mapping[str, str] = field(default_factory=dict)

    @property
    def least(self) -> np.ndarray:
        """The smaller one of `others` and `others_full`, (S,); NaN where neither is known."""
        return np.fmin(self.others, self.others_full)

    def iot_of(self, first: str, second: str) -> tuple[float, float]:
        """Return IoT of a union with a site, or with another union by its name, on the plane and in the full space."""
        assert self.unions is not None
        assert self.unions_full is not None
        at = self.unions.rows.index(self.names[first]), self.unions.cols.index(second)
        return float(self.unions.iot[at]), float(self.unions_full.iot[at])


@dataclass(frozen=True)
class SiteAnalysis:
    """All that is known of the sites.

    Attributes:
        found: what is known of each image.
        plane: (N, 2) places.
        support: of the sites on the plane.
        space: distances in the full space.
        overlaps: of the sites.
        classes: of the images; None where they are not known.
        class_figures: of the sites; None likewise.
        ranked: which images to label next; None where that was not asked for, or there are none.
        uncertainty: (N,) 0..1 of a model about each image, NaN where it was not asked; None without a model.
        settings: label -> text.
        timing: seconds by stage.
        notes: what a reader should know of the data.
    """

    found: Description
    plane: np.ndarray
    support: Support
    space: FullSpace
    overlaps: Overlaps
    classes: ClassCounts | None = None
    class_figures: ClassFigures | None = None
    ranked: Ranked | None = None
    uncertainty: np.ndarray | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    timing: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def sites(self) -> SiteSet:
        """The images and their sites."""
        return self.found.sites


def unions_of(sites: SiteSet) -> dict[str, list[int]]:
    """Return the unions that are compared: roles, labelled and unlabelled together, and data sets; name -> sites."""
    by_role = {role: sites.of_role(role).tolist() for role in ROLES}
    unions = {role: members for role, members in by_role.items() if members}
    if by_role["labelled"] and by_role["unlabelled"]:
        together = sorted(by_role["labelled"] + by_role["unlabelled"])
        unions = {"labelled": unions["labelled"], BOTH: together} | unions
    groups = dict.fromkeys(site.group for site in sites.sites if site.group)
    return unions | {
        f"{GROUP}{name}": [i for i, site in enumerate(sites.sites) if site.group == name] for name in groups
    }


def _free_names(unions: Iterable[str], taken: Sequence[str]) -> dict[str, str]:
    """Return a name for each union that no site has: its own, or "all ..."."""
    names = {}
    for union in unions:
        name = union
        while name in taken:
            name = f"all {name}"
        names[union] = name
    return names


def smaller(plane: float, full: float) -> tuple[float, str]:
    """Return the smaller one of two shares and where it was counted; NaN where neither is known.

    A plane may show as one what lies apart in the full space, and may part what is one: a verdict rests on the less
    favourable of the two.
    """
    is_plane = np.isfinite(plane) and not full < plane
    return (plane, "on the plane") if is_plane else (full, "in the full space")


def find_overlaps(sites: SiteSet, support: Support, space: FullSpace) -> Overlaps:
    """Return all overlaps that the report shows."""
    n, names = len(sites.sites), sites.site_names
    training = [i for i, site in enumerate(sites.sites) if site.role in ("labelled", "unlabelled")]
    test = sites.of_role("test").tolist()
    rows = training if training and test else list(range(n))
    cols = test if training and test else list(range(n))
    pairs = pairs_full = None
    if len(rows) * len(cols) <= MAX_PAIRS:
        pairs = overlap_of({names[i]: support.masks[i] for i in rows}, {names[i]: support.masks[i] for i in cols})
        pairs_full = space.overlap({names[i]: [i] for i in rows}, {names[i]: [i] for i in cols})
    unions = unions_of(sites)
    called = _free_names(unions, names)
    of_unions = of_unions_full = None
    if unions:
        first = {called[union]: members for union, members in unions.items()}
        second = {called[union]: members for union, members in unions.items() if union != BOTH}
        second |= {names[i]: [i] for i in (test or range(n))}
        masks = {name: support.union(members) for name, members in (first | second).items()}
        of_unions = overlap_of({k: masks[k] for k in first}, {k: masks[k] for k in second})
        of_unions_full = space.overlap(first, second)
    n_covering = support.masks.sum(axis=0)
    return Overlaps(
        pairs,
        pairs_full,
        of_unions,
        of_unions_full,
        np.array([_share(support.masks[i], n_covering) for i in range(n)]),
        space.covered_by_others(),
        called,
    )


def _share(mask: np.ndarray, n_covering: np.ndarray) -> float:
    """Return the share of a support's cells that another one covers too."""
    return float((n_covering[mask] > 1).mean()) if mask.any() else float("nan")


def findings_of(analysis: SiteAnalysis) -> list[str]:
    """Return what the figures mean, in plain sentences, most urgent first."""
    told = sorted(_coverage(analysis), key=lambda pair: pair[0])
    sentences = [text for _, text in told]
    if len(sentences) > _MAX_SENTENCES:
        n_more = len(sentences) - _MAX_SENTENCES
        sentences = [*sentences[:_MAX_SENTENCES], f"{n_more} further sites are covered better; see overlap.csv."]
    return [*_class_findings(analysis), *sentences, *_group_findings(analysis)]


def _coverage(analysis: SiteAnalysis) -> Iterator[tuple[float, str]]:
    """Yield (coverage, sentence) of each site that is to be covered."""
    sites, overlaps = analysis.sites, analysis.overlaps
    labelled, test = sites.of_role("labelled"), sites.of_role("test")
    if len(labelled) and len(test):
        for site in test:
            name = sites.site_names[site]
            plane, full = overlaps.iot_of("labelled", name)
            more = smaller(*overlaps.iot_of(BOTH, name))[0] if BOTH in overlaps.names else float("nan")
            if np.isfinite(smaller(plane, full)[0]):
                yield smaller(plane, full)[0], _sentence(f"Site {name}", (plane, full), more)
        return
    for site, name in enumerate(sites.site_names):
        if np.isfinite(overlaps.least[site]):
            shares = float(overlaps.others[site]), float(overlaps.others_full[site])
            yield float(overlaps.least[site]), _sentence(f"Site {name}", shares, float("nan"), "the other sites")


def _sentence(what: str, shares: tuple[float, float], more: float, by: str = "the labelled sites") -> str:
    """Return what the shares of a site that is covered, on the plane and in the full space, mean."""
    share, where = smaller(*shares)
    told = {"on the plane": shares[0], "in the full space": shares[1]}
    beside = [f" ({value:.0%} {place})" for place, value in told.items() if place != where and np.isfinite(value)]
    text = f"{what} is covered to {share:.0%} by {by} {where}{''.join(beside)}: "
    if share < POOR:
        text += "a model trained on these labels will be extrapolating there"
        text += "." if by == "the labelled sites" else " if this site is not labelled."
    elif share < GOOD:
        text += "expect weaker results in the part that is not covered."
    else:
        text += "its appearance is known."
    if more - share >= 0.1:
        text += f" With the unlabelled sites it is {more:.0%}: methods that learn from them can use that."
    if abs(shares[0] - shares[1]) > DISAGREE:
        text += " Plane and full space disagree: look at the images."
    return text


def _class_findings(analysis: SiteAnalysis) -> Iterator[str]:
    figures = analysis.class_figures
    if figures is None:
        return
    if figures.missing:
        verb = "class is" if len(figures.missing) == 1 else "classes are"
        yield (
            f"{len(figures.missing)} {verb} missing from the labelled sites: {', '.join(figures.missing)}. No method "
            "can "
            "learn that from these labels."
        )
    if figures.rare:
        yield f"Far rarer in the labelled sites than in the test: {', '.join(figures.rare)}. Label more of them."
    distance = figures.role_distance.get(("labelled", "test"))
    if distance is not None and np.isfinite(distance):
        verdict = "much alike" if distance < 0.15 else "different" if distance < 0.4 else "very different"
        yield f"The classes of labelled and test sites are {verdict} (Jensen-Shannon distance {distance:.2f} of 1)."
    if figures.only_in_one:
        shown = "; ".join(f"{c} ({site})" for c, site in list(figures.only_in_one.items())[:6])
        yield f"Found in one site only, so that they cannot be both trained and tested: {shown}."


def _group_findings(analysis: SiteAnalysis) -> Iterator[str]:
    overlaps = analysis.overlaps
    groups = [union for union in overlaps.names if union.startswith(GROUP)]
    if len(groups) != 2:
        return
    for first, second in (groups, groups[::-1]):
        share, where = smaller(*overlaps.iot_of(first, overlaps.names[second]))
        if np.isfinite(share):
            yield f"{first[0].upper()}{first[1:]} covers {share:.0%} of the appearance of {second} {where}."


def warnings_of(analysis: SiteAnalysis) -> list[str]:
    """Return what limits the figures, in plain sentences."""
    found, sites = analysis.found, analysis.sites
    told = list(analysis.notes)
    if found.broken:
        named = ", ".join(name for name, _ in found.broken[:5])
        told.append(f"{len(found.broken)} images cannot be read and are left out: {named}.")
    few = [s.name for s, n in zip(sites.sites, sites.counts, strict=True) if n < MIN_IMAGES]
    if few:
        told.append(
            f"{_list(few)} have fewer than {MIN_IMAGES} images: they have no support, and their overlaps are not "
            "stated."
        )
    empty_names = [
        sites.site_names[i]
        for i in np.flatnonzero(~analysis.support.masks.any(axis=1))
        if sites.counts[i] >= MIN_IMAGES
    ]
    if empty_names:
        told.append(
            f"The support of {_list(empty_names)} on the plane is empty: images lie too far from each other, or too "
            "close together, for the grid. Overlaps there are not stated; try another --gamma or a larger --nu."
        )
    rough = [s.name for s, n in zip(sites.sites, sites.counts, strict=True) if MIN_IMAGES <= n < ROUGH_IMAGES]
    if rough:
        told.append(f"{_list(rough)} have fewer than {ROUGH_IMAGES} images: their supports are rough.")
    empty = [role for role in ROLES if len(sites.of_role(role)) and not len(sites.items_of(sites.of_role(role)))]
    told += [f"No image of the role {role} is left: its figures are not stated." for role in empty]
    sizes = np.unique(found.sizes, axis=0)
    if len(sizes) > 1:
        low, high = found.sizes.min(axis=0), found.sizes.max(axis=0)
        told.append(
            f"Images of {len(sizes)} sizes, {low[0]} x {low[1]} to {high[0]} x {high[1]} px: all are shown to the "
            "encoder at "
            "one side, so that scale counts as appearance."
        )
    return [*told, *_not_shown(analysis)]


def _not_shown(analysis: SiteAnalysis) -> Iterator[str]:
    """Yield what the page leaves out because there are many sites."""
    pairs, n = analysis.overlaps.pairs, len(analysis.sites.sites)
    if pairs is None:
        yield f"{n} sites are too many to compare pair by pair (over {MAX_PAIRS} pairs): unions and single sites only."
    elif not is_drawn(pairs):
        yield (
            f"The overlaps of {len(pairs.rows)} with {len(pairs.cols)} sites are too many for a picture: overlap.csv "
            "holds them all."
        )
    if n > MAX_SHOWN:
        yield f"The page shows at most {MAX_SHOWN} of {n} sites one by one: the tables beside it hold them all."


def is_drawn(pairs: Overlap) -> bool:
    """Say whether overlaps are few enough for a picture."""
    return max(len(pairs.rows), len(pairs.cols)) <= MAX_SHOWN


def _list(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
