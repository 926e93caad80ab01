"""An honest split: which sites to label, which to keep for the test, with the reasons; and the audit of any split."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from berunda.api.choices import check_encoder
from berunda.api.site_outcome import AuditOutcome, SplitOutcome
from berunda.data.sites import NO_ROLE, ROLES
from berunda.data.tables import LEFT_OUT
from berunda.errors import ConfigError, DataError
from berunda.options.analyze import SplitOptions
from berunda.progress import Progress, Silent

if TYPE_CHECKING:
    from berunda.api.site_pipeline import Described
    from berunda.assess.description import Description
    from berunda.assess.site_split import Candidates, SplitChoice
    from berunda.data.sites import SiteSet

__all__ = ["audit", "choose_sites", "split"]

_WORD = {"labelled": "train", "unlabelled": "unlabelled", "test": "test"}
MAX_LISTED = 100_000
"""Images of an input up to which all stand in the table of a split; of more, those that the draw keeps."""


def audit(
    table: Path | str, *, buffer_px: int | None = None, skip_broken: bool = False, progress: Progress | None = None
) -> AuditOutcome:
    """Audit a split for leaks; see `berunda.api.split_audit.audit_split`, which this calls.

    Example:
        >>> audit("split.csv").is_clean  # doctest: +SKIP
    """
    from berunda.api.split_audit import audit_split

    return audit_split(table, buffer_px=buffer_px, skip_broken=skip_broken, progress=progress)


def split(options: SplitOptions, out: Path | str, *, progress: Progress | None = None) -> SplitOutcome:
    """Propose which sites to label and which to keep for the test, and write the split as a table.

    The test is chosen first. Images of other sites that lie nearer to a test image than the buffer, overlap one or show
    the same picture are then left out: the labels are chosen from what remains, and all figures are of that. Every
    image of the input stands in the table, those that are left out as such; of an input of more than `MAX_LISTED`
    images those that `max_per_site` keeps.

    Args:
        options: every option, see `SplitOptions`.
        out: the table, a .csv above all images; beside it goes a .gpkg of outlines where images have a place, and
            rasters of classes where `labels` are given.
        progress: told of every batch.

    Returns:
        The choice, its reasons and figures.

    Raises:
        BerundaError: the input is wrong, there are too few sites, or the table cannot be written.

    Example:
        >>> split(SplitOptions(inputs=["sites"], n_labelled=2), "sites/split.csv")  # doctest: +SKIP
    """
    path = Path(out).absolute()
    if path.suffix.lower() != ".csv":
        raise ConfigError(f"--out {out}: expected the name of a .csv table, such as split.csv")
    if not options.inputs:
        raise ConfigError("SITES: found none, expected a folder of sites, a .csv table or scenes; or --audit FILE")
    _check_table(path, options)
    check_encoder(options.encoder, options.device)
    from berunda.api.site_pipeline import Stages, check_several, cutting_of, describe_sites
    from berunda.api.site_tables import relative_path
    from berunda.data.site_maker import thinned

    told = progress or Silent()
    sites = _listed(options)
    check_several(sites)
    if sites.arrays:
        raise DataError(
            f"data set {sites.name} comes with a split of its own, expected a folder of sites, a table or scenes"
        )
    relative_path(path, sites, sites.items[0])
    try:
        described = describe_sites(thinned(sites, cutting_of(options)), options, Stages(), told)
        pictures = _all_pictures(sites, described, options, told)
        left_out: set[str] = set()

        def beside_test(test: tuple[int, ...]) -> Candidates:
            left_out.update(_too_near(pictures, test, options.buffer_px))
            return candidates_of(described, options.nu, left_out)

        choice = choose_sites(described, options, beside_test)
        unknown = _unknown(pictures, described, options)
        sites = _with_truths(sites, options, path)
        return _written(_Proposal(sites, pictures, described, choice, frozenset(left_out), unknown), path)
    finally:
        for scene in sites.scenes:
            scene.close()


@dataclass(frozen=True)
class _Proposal:
    """A choice with what is written beside it.

    Attributes:
        sites: the images that the table lists.
        pictures: what the buffer rests on, of all that can be read.
        described: what the choice rests on: the images that were looked at.
        choice: of the sites.
        too_near: names of the images that are left out for a test image's sake.
        unknown: names of the images in which nothing is labelled, where others are.
    """

    sites: SiteSet
    pictures: Description
    described: Described
    choice: SplitChoice
    too_near: frozenset[str]
    unknown: frozenset[str]


def _listed(options: SplitOptions) -> SiteSet:
    """Return the images that the table lists, all up to `MAX_LISTED`, with the roles that are settled.

    Sites that the input itself calls unlabelled are open: they may be the ones to label.
    """
    from berunda.api.site_pipeline import cutting_of
    from berunda.data.site_layouts import find_sites

    found = find_sites(options.inputs, replace(cutting_of(options), whole_up_to=MAX_LISTED))
    roles = (replace(site, role=NO_ROLE) if site.role == "unlabelled" else site for site in found.sites)
    return replace(found, sites=tuple(roles)).with_roles(options.roles, others=NO_ROLE)


def _all_pictures(sites: SiteSet, described: Described, options: SplitOptions, progress: Progress) -> Description:
    """Return places and pictures of all listed images, those included that the choice does not look at."""
    from berunda.api.split_audit import pictures_of
    from berunda.assess.description import refuse_broken

    if described.found.n_images == len(sites):
        return described.found
    found = pictures_of(sites, progress, options.bands, min_valid=options.min_valid)
    if not options.skip_broken:
        refuse_broken(found, len(sites))
    return found


def _too_near(pictures: Description, test: Sequence[int], buffer_px: int | None) -> set[str]:
    """Return the names of the images of other sites that share ground or pictures with those of the test."""
    from berunda.api.split_audit import leaks_of

    roles = ("test" if i in test else "unlabelled" for i in range(len(pictures.sites.sites)))
    sites = tuple(replace(site, role=role) for site, role in zip(pictures.sites.sites, roles, strict=True))
    return {leak.first for leak in leaks_of(replace(pictures, sites=replace(pictures.sites, sites=sites)), buffer_px)}


def _unknown(pictures: Description, described: Described, options: SplitOptions) -> frozenset[str]:
    """Return the names of the images in which nothing is labelled; none where no class of any image is known."""
    from berunda.data.site_classes import count_classes

    sites, classes = pictures.sites, described.classes
    if pictures is not described.found:
        classes = count_classes(sites, options.labels, options.field or "", zero_is_class=options.zero_is_class)
    if classes is None:
        return frozenset()
    return frozenset(item.name for item, of in zip(sites.items, classes.counts, strict=True) if not of.any())


def _with_truths(sites: SiteSet, options: SplitOptions, path: Path) -> SiteSet:
    """Return the images with rasters of classes, which are written beside the table where --labels are given."""
    from berunda.api.split_truth import write_truths

    if options.labels is None:
        return sites
    return write_truths(path, sites, options.labels, options.field or "", zero_is_class=options.zero_is_class)


def _check_table(path: Path, options: SplitOptions) -> None:
    """Refuse to write over an input, or over outlines that no earlier split wrote.

    Raises:
        ConfigError: naming the file.
    """
    from berunda.api.split_truth import truth_paths

    written = [path, path.with_suffix(".gpkg"), *truth_paths(path, 1)]
    inputs = {os.path.realpath(text) for text in (*options.inputs, options.labels) if text is not None}
    for file in written:
        if os.path.realpath(file) in inputs:
            raise ConfigError(f"--out {path}: {file.name} is an input and would be overwritten; choose another name")
    if written[1].exists() and not path.exists():
        raise ConfigError(
            f"--out {path}: {written[1].name} is there and would be overwritten by the outlines of the split; choose "
            "another name"
        )


def choose_sites(
    described: Described,
    options: SplitOptions,
    beside_test: Callable[[tuple[int, ...]], Candidates] | None = None,
) -> SplitChoice:
    """Return the choice of sites; roles that were given stay.

    Args:
        described: the images.
        options: how many sites; where no numbers are given, shares of those that do not stay unlabelled.
        beside_test: see `berunda.assess.site_split.choose_split`.
    """
    from berunda.assess.site_split import choose_split

    sites = described.found.sites
    given = {role: sites.of_role(role).tolist() for role in ROLES}
    n = len(sites.sites) - len(given["unlabelled"])
    return choose_split(
        candidates_of(described, options.nu),
        n_labelled=options.n_labelled or max(1, round(0.25 * n)),
        n_test=options.n_test or max(1, round(options.test_share * n)),
        given=given,
        seed=options.seed,
        beside_test=beside_test,
    )


def candidates_of(described: Described, nu: float, left_out: Collection[str] = ()) -> Candidates:
    """Return what a choice of sites is judged by, without the images that are left out, by name."""
    from berunda.assess.full_space import measure_full_space
    from berunda.assess.site_split import Candidates

    sites, counts = described.found.sites, described.classes
    kept = np.array([i for i, item in enumerate(sites.items) if item.name not in left_out], np.int64)
    site_of, n = sites.site_of[kept], len(sites.sites)
    space = measure_full_space(described.components[kept], site_of, n, nu=nu)
    if counts is None:
        return Candidates(sites.site_names, space)
    return Candidates(sites.site_names, space, counts.subset(kept).by_site(site_of, n), counts.classes)


def _written(made: _Proposal, path: Path) -> SplitOutcome:
    """Write every image; those that are left out last, so that readers who skip them count rows alike."""
    from berunda.api.site_tables import WINDOW_COLUMNS, below_table, relative_path, window_cells, write_csv

    roles = tuple(replace(site, role=made.choice.role(i)) for i, site in enumerate(made.sites.sites))
    sites = replace(made.sites, sites=roles)
    states = _states(made, sites)
    rows = []
    for i in sorted(range(len(sites)), key=lambda i: states[i] == LEFT_OUT):
        item, site = sites.items[i], sites.sites[sites.items[i].site]
        truth = "" if item.truth is None or item.name in made.unknown else below_table(path, item.truth)
        known = [item.label, _WORD.get(states[i], LEFT_OUT), site.name, site.role, truth]
        rows.append([relative_path(path, sites, item), *known, *window_cells(item)])
    write_csv(path, ("file", "label", "split", "site", "role", "truth", *WINDOW_COLUMNS), rows)
    return SplitOutcome(
        table=path,
        outlines=_outlines(path.with_suffix(".gpkg"), sites, states),
        roles={site.name: site.role for site in sites.sites},
        counts={kind: states.count(kind) for kind in (*ROLES, LEFT_OUT)},
        figures={**made.choice.figures, "cost": made.choice.cost, "random_cost": made.choice.random_cost},
        reasons=made.choice.reasons,
        warnings=tuple(_warnings(made, states)),
    )


def _states(made: _Proposal, sites: SiteSet) -> list[str]:
    """Return what each image is for: its site's role, if it is of use for that, or that it is left out."""
    pictures = made.pictures
    gone = made.too_near | {name for name, _ in pictures.broken} | {*pictures.blank}
    states = []
    for item in sites.items:
        role = sites.sites[item.site].role
        # of a site to label, an image in which nothing is labelled can only be looked at
        role = "unlabelled" if role == "labelled" and item.name in made.unknown else role
        states.append(LEFT_OUT if item.name in gone else role)
    return states


def _warnings(made: _Proposal, states: Sequence[str]) -> list[str]:
    from berunda.assess.support import MIN_IMAGES

    described, looked_at = made.described, made.described.found.sites
    told = list(described.notes)
    if described.found.n_images < len(made.sites):
        told.append(
            "Those that the draw left out stand in the table too: their site's role and the buffer hold for them."
        )
    if made.too_near:
        told.append(
            f"{len(made.too_near)} training images are left out: they lie too near to a test image, or show the same. "
            "All figures are of what remains."
        )
    few = [site.name for site, n in zip(looked_at.sites, looked_at.counts, strict=True) if n < MIN_IMAGES]
    if few:
        more = f" and {len(few) - 5} more" if len(few) > 5 else ""
        told.append(
            f"{', '.join(few[:5])}{more}: fewer than {MIN_IMAGES} images are too few to tell what a site covers."
        )
    if described.classes is None or not described.classes.counts.any():
        told.append(
            "The classes of the images are not known: the choice rests on appearance alone; give labels for a better "
            "one."
        )
    if made.pictures.broken:
        told.append(f"{len(made.pictures.broken)} images cannot be read and are in no part of the split.")
    if len(made.pictures.blank) > len(described.found.blank):
        told.append(
            f"{len(made.pictures.blank)} images of the whole table hold too little data, see --min-valid, and are in "
            "no part of the split."
        )
    if not states.count("labelled"):
        told.append("No labelled image is left beyond the buffer: give a smaller --buffer-px, or larger sites.")
    return told


def _outlines(path: Path, sites: SiteSet, states: Sequence[str]) -> Path | None:
    from berunda.api.site_tables import places_of
    from berunda.geo.outlines import write_outlines
    from berunda.geo.reproject import footprint

    grids = places_of(sites)
    placed = [i for i, grid in enumerate(grids) if grid is not None]
    crs = {grid.crs for grid in grids if grid is not None}
    if not placed or ("" in crs and len(crs) > 1):
        path.unlink(missing_ok=True)  # those of an earlier split
        return None
    target = next(grid.crs for grid in grids if grid is not None)
    shapes = np.array([footprint(grid, target or None) for grid in grids if grid is not None], dtype=object)
    columns = {
        "image": np.array([sites.items[i].name for i in placed], dtype=object),
        "site": np.array([sites.sites[sites.items[i].site].name for i in placed], dtype=object),
        "role": np.array([states[i] for i in placed], dtype=object),
    }
    return write_outlines(path, shapes, columns, target, "split")
