"""An honest split: which sites to label, which to keep for the test, with the reasons; and the audit of any split."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from berunda.api.choices import check_encoder
from berunda.api.site_outcome import AuditOutcome, SplitOutcome
from berunda.errors import ConfigError, DataError
from berunda.options.analyze import SplitOptions
from berunda.progress import Progress, Silent

if TYPE_CHECKING:
    from berunda.api.site_pipeline import Described
    from berunda.assess.site_split import SplitChoice
    from berunda.data.sites import SiteSet

__all__ = ["audit", "choose_sites", "split"]

_WORD = {"labelled": "train", "unlabelled": "unlabelled", "test": "test"}


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

    Images that train and lie nearer to a test image than the buffer, overlap one or show the same picture are left out
    of the table, so that the split passes its own audit.

    Args:
        options: every option, see `SplitOptions`.
        out: the table, a .csv above all images; beside it goes a .gpkg of outlines where images have a place.
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
    from berunda.api.site_pipeline import Stages, check_several, describe_sites, open_sites
    from berunda.api.site_tables import relative_path

    told = progress or Silent()
    sites = open_sites(options.inputs, options)
    check_several(sites)
    if sites.arrays:
        raise DataError(
            f"data set {sites.name} comes with a split of its own, expected a folder of sites, a table or scenes"
        )
    relative_path(path, sites, sites.items[0])
    try:
        described = describe_sites(sites, options, Stages(), told)
        choice = choose_sites(described, options)
        return _written(described, choice, options, path)
    finally:
        for scene in sites.scenes:
            scene.close()


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


def choose_sites(described: Described, options: SplitOptions) -> SplitChoice:
    """Return the choice of sites; roles that were given stay."""
    from berunda.assess.full_space import measure_full_space
    from berunda.assess.site_split import Candidates, choose_split

    sites, counts = described.found.sites, described.classes
    n = len(sites.sites)
    space = measure_full_space(described.components, sites.site_of, n, nu=options.nu)
    by_site = None if counts is None else counts.by_site(sites.site_of, n)
    candidates = Candidates(sites.site_names, space, by_site, () if counts is None else counts.classes)
    n_test = options.n_test or max(1, round(options.test_share * n))
    n_labelled = options.n_labelled or max(1, round(0.25 * n))
    labelled, test = (sites.of_role(role).tolist() for role in ("labelled", "test"))
    return choose_split(
        candidates, n_labelled=n_labelled, n_test=n_test, labelled=labelled, test=test, seed=options.seed
    )


def _written(described: Described, choice: SplitChoice, options: SplitOptions, path: Path) -> SplitOutcome:
    from berunda.api.site_tables import WINDOW_COLUMNS, below_table, relative_path, window_cells, write_csv
    from berunda.api.split_audit import leaks_of
    from berunda.api.split_truth import write_truths

    found = described.found
    roles = tuple(replace(site, role=choice.role(i)) for i, site in enumerate(found.sites.sites))
    found = replace(found, sites=replace(found.sites, sites=roles))
    sites = found.sites
    if options.labels is not None:
        sites = write_truths(path, sites, options.labels, options.field or "", zero_is_class=options.zero_is_class)
    leaking = {leak.first for leak in leaks_of(found, options.buffer_px)}
    rows, states = [], []
    for index, item in enumerate(sites.items):
        site = sites.sites[item.site]
        states.append("left out" if item.name in leaking else site.role)
        if item.name not in leaking:
            is_known = described.classes is None or bool(described.classes.counts[index].any())
            truth = below_table(path, item.truth) if item.truth is not None and is_known else ""
            # of a site to label, an image in which nothing is labelled can only be looked at
            word = _WORD[site.role if is_known or site.role == "test" else "unlabelled"]
            known = [item.label, word, site.name, site.role, truth]
            rows.append([relative_path(path, sites, item), *known, *window_cells(item)])
    write_csv(path, ("file", "label", "split", "site", "role", "truth", *WINDOW_COLUMNS), rows)
    outlines = _outlines(path.with_suffix(".gpkg"), sites, states)
    kinds = ("labelled", "unlabelled", "test", "left out")
    return SplitOutcome(
        table=path,
        outlines=outlines,
        roles={site.name: site.role for site in sites.sites},
        counts={kind: states.count(kind) for kind in kinds},
        figures={**choice.figures, "cost": choice.cost, "random_cost": choice.random_cost},
        reasons=choice.reasons,
        warnings=tuple(_warnings(described, states)),
    )


def _warnings(described: Described, states: Sequence[str]) -> list[str]:
    told = list(described.notes)
    n_out = states.count("left out")
    if n_out:
        told.append(f"{n_out} training images are left out: they lie too near to a test image, or show the same.")
    if described.classes is None:
        told.append(
            "The classes of the images are not known: the choice rests on appearance alone; give labels for a better "
            "one."
        )
    if described.found.broken:
        told.append(f"{len(described.found.broken)} images cannot be read and are in no part of the split.")
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
