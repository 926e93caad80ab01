"""Know your data before you label: appearance and class representativeness between sites, and what to label next."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from berunda._version import __version__
from berunda.api.choices import check_encoder
from berunda.api.out_folder import check_no_map, check_out
from berunda.api.site_outcome import AnalyzeOutcome
from berunda.config import dump_config
from berunda.mapping.lock import output_lock
from berunda.options.analyze import AnalyzeOptions
from berunda.progress import Progress, Silent

if TYPE_CHECKING:
    import numpy as np

    from berunda.api.site_pipeline import Described, Stages
    from berunda.assess.next_labels import Ranked
    from berunda.assess.site_analysis import SiteAnalysis
    from berunda.data.sites import SiteSet
    from berunda.mapping.bundle import Bundle

__all__ = ["analyze"]


def analyze(options: AnalyzeOptions, out: Path | str, *, progress: Progress | None = None) -> AnalyzeOutcome:
    """Compare the sites of a data set by appearance and classes, and write a report.

    Nothing is written to `out` before all is measured, so that a wrong input leaves nothing there.

    Args:
        options: every option, see `AnalyzeOptions`.
        out: folder for `report.html`, `report.json`, `plane.csv`, `overlap.csv`, `classes.csv`, `label_next.csv`,
            `label_next.gpkg` and `run.yaml`.
        progress: told of every stage.

    Returns:
        Where the report is, all figures and what they mean.

    Raises:
        BerundaError: the input is wrong, or an output cannot be written.

    Example:
        >>> analyze(AnalyzeOptions(inputs=["sites"], test=["north"]), "out")  # doctest: +SKIP
    """
    start = time.perf_counter()
    folder = Path(out).absolute()
    check_out(folder, [*options.inputs, options.compare_with, options.labels, options.bundle])
    check_no_map(folder)
    check_encoder(options.encoder, options.device)
    analysis = measure_sites(options, progress or Silent())
    with output_lock(folder):
        return _written(analysis, options, folder, start)


def measure_sites(options: AnalyzeOptions, progress: Progress) -> SiteAnalysis:
    """Return all figures of an analysis; nothing is written but the cache of features."""
    from berunda.api.site_pipeline import (
        Stages,
        check_several,
        coarse_notes,
        common_ground,
        cutting_of,
        describe_sites,
        with_resolution,
    )
    from berunda.data.site_layouts import find_sites

    stages, ground = Stages(), None
    with stages.timed("list images"):
        sites = with_resolution(find_sites(options.inputs, cutting_of(options)), options.resolution)
        if options.compare_with is not None:
            other = find_sites([options.compare_with], cutting_of(options))
            sites = sites.joined(with_resolution(other, options.with_resolution))
        sites = sites.with_roles(options.roles)
        if options.compare_with is not None:
            ground = common_ground(sites, options.common_resolution, options.bands)
        check_several(sites)
    try:
        bundle = _model_of(options, sites)
        described = describe_sites(sites, options, stages, progress, ground)
        if ground is not None:
            told = f"Both data sets are shown at {ground.resolution_m:g} m, {ground.side_m:g} m wide."
            described = replace(described, notes=(*described.notes, told, *coarse_notes(ground)))
        return _measured(described, bundle, options, stages, progress)
    finally:
        for scene in sites.scenes:
            scene.close()


def _model_of(options: AnalyzeOptions, sites: SiteSet) -> Bundle | None:
    """Return the model of --bundle, checked before the long work begins; None where none is given."""
    if options.bundle is None:
        return None
    from berunda.api.uncertainty import check_model
    from berunda.mapping.bundle import load_bundle

    bundle = load_bundle(options.bundle)
    check_model(bundle, sites, options.bands)
    return bundle


def _measured(
    described: Described, bundle: Bundle | None, options: AnalyzeOptions, stages: Stages, progress: Progress
) -> SiteAnalysis:
    from berunda.assess.embedding import appearance_plane
    from berunda.assess.full_space import measure_full_space
    from berunda.assess.representativeness import class_figures
    from berunda.assess.site_analysis import SiteAnalysis, find_overlaps
    from berunda.assess.support import estimate_supports

    sites = described.found.sites
    n = len(sites.sites)
    progress.note(f"plane of {len(sites)} images")
    with stages.timed("plane (t-SNE)"):
        plane = appearance_plane(described.components, seed=options.seed, perplexity=options.perplexity)
    with stages.timed("supports"):
        support = estimate_supports(plane, sites.site_of, n, nu=options.nu, gamma=options.gamma, seed=options.seed)
    with stages.timed("full space"):
        space = measure_full_space(described.components, sites.site_of, n, nu=options.nu)
    with stages.timed("overlaps"):
        overlaps = find_overlaps(sites, support, space)
    unsure = None
    if bundle is not None and options.label_next:
        from berunda.api.uncertainty import measure_uncertainty

        with stages.timed("uncertainty"):
            unsure = measure_uncertainty(
                bundle, sites, _candidates(sites), names=options.bands, device=options.device, progress=progress
            )
    with stages.timed("ranking"):
        ranked = _ranked(described, options, unsure)
    counts = described.classes
    return SiteAnalysis(
        found=described.found,
        plane=plane,
        support=support,
        space=space,
        overlaps=overlaps,
        classes=counts,
        class_figures=None if counts is None else class_figures(counts, sites),
        ranked=ranked,
        uncertainty=unsure,
        settings=_settings(options, described),
        timing=stages.seconds,
        notes=described.notes,
    )


def _candidates(sites: SiteSet) -> np.ndarray:
    """Return the images that could be labelled next: those of unlabelled sites, and of sites without a role."""
    return sites.items_of([*sites.of_role("unlabelled").tolist(), *sites.of_role("").tolist()])


def _ranked(described: Described, options: AnalyzeOptions, unsure: np.ndarray | None) -> Ranked | None:
    """Return which images to label next."""
    from berunda.assess.next_labels import rank_next

    sites = described.found.sites
    labelled = sites.items_of(sites.of_role("labelled"))
    candidates = _candidates(sites)
    if not options.label_next or not len(candidates):
        return None
    weight = options.uncertainty_weight
    return rank_next(described.components, labelled, candidates, options.label_next, uncertainty=unsure, weight=weight)


def _settings(options: AnalyzeOptions, described: Described) -> dict[str, str]:
    from berunda.assess.support import GRID, MAX_FITTED

    found = described.found
    return {
        "Encoder": f"{options.encoder}, the means of all stages, {found.features.shape[1]} features",
        "Images are shown at": f"{options.image_px} px",
        "Bands": ", ".join(found.bands),
        "Principal components": str(described.components.shape[1]),
        "t-SNE": f"perplexity {options.perplexity:g}, seed {options.seed}",
        "Support": f"one-class SVM, nu {options.nu:g}, gamma {options.gamma:g}, at most {MAX_FITTED} images of a site",
        "Areas": f"counted on {GRID} x {GRID} cells",
        "Full space": f"the first {described.components.shape[1]} principal components; radius within which "
        f"{1 - options.nu:.0%} of a site's images have a neighbour",
    }


def _written(analysis: SiteAnalysis, options: AnalyzeOptions, folder: Path, start: float) -> AnalyzeOutcome:
    """Write everything; the page tells the time up to its writing, the outcome all of it since `start`."""
    from berunda.api.site_pipeline import Stages
    from berunda.api.site_tables import write_ranking, write_tables
    from berunda.assess.site_analysis import findings_of, warnings_of
    from berunda.assess.site_report import site_view, write_site_report

    stages = Stages(dict(analysis.timing))
    with stages.timed("tables"):
        write_tables(folder, analysis)
        write_ranking(folder, analysis)
    with stages.timed("report"):
        view = site_view(analysis)
    shown = replace(analysis, timing=stages.up_to_total(time.perf_counter() - start))
    with stages.timed("report"):
        page = write_site_report(folder, shown, {"Berunda": __version__, "Command": "berunda analyze"}, view)
        dump_config(options.resolved(), folder / "run.yaml", verb="analyze")
    done = replace(analysis, timing=stages.up_to_total(time.perf_counter() - start))
    return AnalyzeOutcome(folder, page, done, tuple(findings_of(done)), tuple(warnings_of(done)))
