"""The report of an analysis of sites: one page without script or network, and the figures as JSON.

Thumbnails appear on hovering by style alone: every image shown is an element that cuts its picture out of one sprite.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from berunda.assess import pictures, site_plots
from berunda.assess.description import SPAN, THUMB_PX
from berunda.assess.embedding import N_COMPONENTS
from berunda.assess.overlap import Overlap
from berunda.assess.page import json_text, render_page
from berunda.assess.plots import figure_svg
from berunda.assess.report_parts import timing_view
from berunda.assess.representativeness import class_shares_on_plane, histogram_distances, role_histograms, shares
from berunda.assess.site_analysis import (
    BOTH,
    GROUP,
    MAX_SHOWN,
    Overlaps,
    SiteAnalysis,
    findings_of,
    is_drawn,
    smaller,
    warnings_of,
)
from berunda.assess.site_plots import Frame
from berunda.assess.support import MIN_IMAGES
from berunda.assess.verdicts import NOT_AVAILABLE, percent
from berunda.data.order import Randomness
from berunda.data.sites import ROLES
from berunda.files import write_text

__all__ = ["MAX_POINTS", "site_report_json", "site_view", "write_site_report"]

FORMAT = "berunda-site-report-1"
MAX_POINTS = 1600
"""Images that can be hovered over; of more a draw is shown, each site with its share of them."""
_SPRITE_COLS = 40
_MAX_NEXT = 24


def write_site_report(
    folder: Path, analysis: SiteAnalysis, provenance: Mapping[str, str], view: Mapping[str, Any] | None = None
) -> Path:
    """Write `report.json` and `report.html` into a folder, each whole or not at all; return the page.

    Args:
        folder: of the report.
        analysis: what it shows.
        provenance: label -> text: version, command, date.
        view: what `site_view` returns, where it was made before; its time can then stand in the report.

    Raises:
        OutputError: the folder cannot be written.
    """
    shown = site_view(analysis) if view is None else view
    html = render_page("sites.html.j2", **shown, timing=timing_view(analysis.timing), provenance=provenance)
    write_text(folder / "report.json", json_text(site_report_json(analysis, provenance)))
    write_text(folder / "report.html", html)
    return folder / "report.html"


def site_report_json(analysis: SiteAnalysis, provenance: Mapping[str, str]) -> dict[str, Any]:
    """Return the figures as JSON-ready values; shares and overlaps are fractions of 1, null where not known."""
    sites, figures, overlaps = analysis.sites, analysis.class_figures, analysis.overlaps
    return {
        "format": FORMAT,
        "title": sites.name,
        "findings": findings_of(analysis),
        "warnings": warnings_of(analysis),
        "sites": [
            {
                "name": s.name,
                "role": s.role,
                "images": int(n),
                "covered_by_others": overlaps.others[i],
                "covered_by_others_full": overlaps.others_full[i],
            }
            for i, (s, n) in enumerate(zip(sites.sites, sites.counts, strict=True))
        ],
        "overlap": {
            name: _overlap_json(overlap)
            for name, overlap in (
                ("sites_plane", overlaps.pairs),
                ("sites_full", overlaps.pairs_full),
                ("unions_plane", overlaps.unions),
                ("unions_full", overlaps.unions_full),
            )
        },
        "classes": None
        if figures is None
        else {
            "names": list(figures.classes),
            "unit": figures.unit,
            "by_site": {n: figures.by_site[i] for i, n in enumerate(sites.site_names)},
            "by_role": figures.by_role,
            "distance_by_role": {f"{a} to {b}": d for (a, b), d in figures.role_distance.items()},
            "distance_by_site": figures.site_distance,
            "missing_from_labelled": list(figures.missing) if "labelled" in figures.by_role else None,
            "rare_in_labelled": list(figures.rare) if "labelled" in figures.by_role else None,
            "only_in_one_site": figures.only_in_one,
        },
        "colours": _colours_json(analysis),
        "settings": dict(analysis.settings),
        "timing": dict(analysis.timing),
        "provenance": dict(provenance),
    }


def _overlap_json(overlap: Overlap | None) -> dict[str, Any] | None:
    if overlap is None:
        return None
    return {"s1": list(overlap.rows), "s2": list(overlap.cols), "iou": overlap.iou, "iot": overlap.iot}


def _colours_json(analysis: SiteAnalysis) -> dict[str, Any]:
    by_role = role_histograms(analysis.found.histograms, analysis.sites)
    return {
        "bands": list(analysis.found.bands),
        "span": SPAN,
        "low": analysis.found.scaling.low,
        "high": analysis.found.scaling.high,
        "distance": histogram_distances(by_role),
    }


def site_view(analysis: SiteAnalysis) -> dict[str, Any]:
    """Return what the page shows beside the time: words, tables and pictures, which take nearly all of its time."""
    sites, overlaps = analysis.sites, analysis.overlaps
    colors = site_plots.site_colors(len(sites.sites))
    return {
        "title": f"Know your data: {sites.name}",
        "subtitle": f"{len(sites.sites)} sites · {len(sites)} images · {len(analysis.found.bands)} bands",
        "tiles": list(_tiles(analysis)),
        "findings": findings_of(analysis),
        "warnings": warnings_of(analysis),
        "plane": _plane_view(analysis, colors),
        "supports": _supports(analysis, colors),
        "heats": list(_heats(analysis)),
        "union_rows": list(_union_rows(overlaps)),
        "site_rows": list(_site_rows(analysis, colors)),
        "classes": _classes_view(analysis),
        "colours": _colours_view(analysis),
        "next": list(_next_view(analysis)),
        "has_model": analysis.uncertainty is not None,
        "n_components": min(N_COMPONENTS, analysis.found.features.shape[1]),
        "settings": list(analysis.settings.items()),
    }


def _tiles(analysis: SiteAnalysis) -> Iterator[dict[str, str]]:
    sites, overlaps = analysis.sites, analysis.overlaps
    counts = ", ".join(f"{len(sites.of_role(role))} {role}" for role in ROLES if len(sites.of_role(role)))
    yield {"label": "Sites", "value": str(len(sites.sites)), "range": "", "note": counts or "no roles given"}
    yield {"label": "Images", "value": f"{len(sites):,}", "range": "", "note": "described by the encoder"}
    if "labelled" in overlaps.names and "test" in overlaps.names:
        share, where = smaller(*overlaps.iot_of("labelled", overlaps.names["test"]))
        note = f"IoT of all labelled with all test sites, {where}"
        yield {"label": "Test covered by labels", "value": _share(share), "range": "", "note": note}
    else:
        known = overlaps.least[np.isfinite(overlaps.least)]
        worst = float(known.min()) if len(known) else float("nan")
        note = "by all other sites, on the plane or in the full space"
        yield {"label": "Least covered site", "value": _share(worst), "range": "", "note": note}
    yield {"label": "Missing from the labels", "range": "", **_missing(analysis)}


def _missing(analysis: SiteAnalysis) -> dict[str, str]:
    """Return how many classes the labelled sites lack, and of how many; nothing where that is not known."""
    figures = analysis.class_figures
    if figures is None or not figures.by_site.any():
        return {"value": NOT_AVAILABLE, "note": "classes are not known"}
    if "labelled" not in figures.by_role:
        return {"value": NOT_AVAILABLE, "note": "no class of a labelled site is known"}
    return {"value": str(len(figures.missing)), "note": f"of {len(figures.classes)} classes"}


def _share(value: float) -> str:
    return NOT_AVAILABLE if not np.isfinite(value) else percent(value)


def _plane_view(analysis: SiteAnalysis, colors: list[str]) -> dict[str, Any]:
    """Return the sprite and, for each image shown, its place in percent and its cell of the sprite."""
    sites = analysis.sites
    frame = Frame.around(analysis.plane)
    shown = np.arange(len(sites))
    if len(shown) > MAX_POINTS:
        draw = Randomness(0).numpy("images shown").permutation(len(sites))[:MAX_POINTS]
        shown = np.sort(draw)
    thumbs = analysis.found.thumbs[shown]
    n_rows = -(-len(shown) // _SPRITE_COLS)
    sprite = np.zeros((n_rows * THUMB_PX, _SPRITE_COLS * THUMB_PX, 3), np.uint8)
    points = []
    for k, index in enumerate(shown.tolist()):
        row, col = divmod(k, _SPRITE_COLS)
        sprite[row * THUMB_PX : (row + 1) * THUMB_PX, col * THUMB_PX : (col + 1) * THUMB_PX] = thumbs[k]
        x, y = analysis.plane[index]
        item, site = sites.items[index], sites.sites[sites.items[index].site]
        points.append(
            {
                "left": f"{100 * (x - frame.x_low) / (frame.x_high - frame.x_low):.2f}",
                "top": f"{100 * (frame.y_high - y) / (frame.y_high - frame.y_low):.2f}",
                "color": colors[item.site],
                "col": col,
                "row": row,
                "text": f"{site.name}{f' ({site.role})' if site.role else ''}: {item.name}",
                "role": site.role or "none",
            }
        )
    return {
        "sprite": _sprite_uri(sprite),
        "points": points,
        "ratio": f"{(frame.x_high - frame.x_low) / (frame.y_high - frame.y_low):.3f}",
        "thumb_px": THUMB_PX,
        "cols": _SPRITE_COLS,
        "n_rows": n_rows,
        "n_all": len(sites),
        "legend": [(s.name, c, s.role) for s, c in zip(sites.sites, colors, strict=True)][:MAX_SHOWN],
    }


def _sprite_uri(sprite: np.ndarray) -> str:
    """Return the sprite whole: `pictures.jpeg_uri` would thin out a tall one."""
    import base64
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(sprite).save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _svg(figure: Any) -> str:
    return pictures.svg_uri(figure_svg(figure))


def _supports(analysis: SiteAnalysis, colors: list[str]) -> list[dict[str, str]]:
    support, sites = analysis.support, analysis.sites
    made = []
    roles = {role: support.union(sites.of_role(role)) for role in ROLES if len(sites.of_role(role))}
    if roles:
        chart = site_plots.support_map(roles, support.grid, [site_plots.ROLE_COLORS[r] for r in roles], analysis.plane)
        made.append({"uri": _svg(chart), "title": "Supports of the roles"})
    if len(sites.sites) <= MAX_SHOWN:
        masks = dict(zip(sites.site_names, support.masks, strict=True))
        chart = site_plots.support_map(masks, support.grid, colors, analysis.plane)
        made.append({"uri": _svg(chart), "title": "Supports of the sites"})
    return made


def _heats(analysis: SiteAnalysis) -> Iterator[dict[str, str]]:
    overlaps = analysis.overlaps
    for pair, where in ((overlaps.pairs, "on the plane"), (overlaps.pairs_full, "in the full space")):
        if pair is None or not is_drawn(pair):
            continue
        for values, what in ((pair.iot, "IoT, %"), (pair.iou, "IoU, %")):
            chart = site_plots.overlap_heat(pair, values, f"{what}, {where}")
            yield {"uri": _svg(chart), "title": f"{what} {where}", "wide": str(len(pair.cols) > 12)}


def _union_rows(overlaps: Overlaps) -> Iterator[dict[str, str]]:
    plane, full = overlaps.unions, overlaps.unions_full
    if plane is None or full is None:
        return
    unions = {name: union for union, name in overlaps.names.items()}
    for i, first in enumerate(plane.rows):
        for j, second in enumerate(plane.cols[:MAX_SHOWN]):
            if not _is_told(unions[first], unions.get(second)):
                continue
            yield {
                "first": first,
                "second": second,
                "iot": _share(float(plane.iot[i, j])),
                "iou": _share(float(plane.iou[i, j])),
                "iot_full": _share(float(full.iot[i, j])),
                "width": f"{100 * np.nan_to_num(plane.iot[i, j]):.1f}",
            }


def _is_told(first: str, second: str | None) -> bool:
    """Say whether the overlap of a union with another, or with a single site (None), is worth a line.

    No set with its own part, no test as what covers.
    """
    if first in (second, "test"):
        return False
    is_group = first.startswith(GROUP)
    if second is not None:
        return (is_group == second.startswith(GROUP) and first != BOTH) or second == "test"
    return not is_group


def _site_rows(analysis: SiteAnalysis, colors: list[str]) -> Iterator[dict[str, str]]:
    overlaps = analysis.overlaps
    order = np.argsort(np.nan_to_num(overlaps.least, nan=2.0), kind="stable")[:MAX_SHOWN]
    for i in order.tolist():
        site, has_few = analysis.sites.sites[i], analysis.sites.counts[i] < MIN_IMAGES
        yield {
            "name": site.name,
            "color": colors[i],
            "role": site.role or "none",
            "images": f"{int(analysis.sites.counts[i]):,}",
            "others": "too few images" if has_few else _share(float(overlaps.others[i])),
            "others_full": "too few images" if has_few else _share(float(overlaps.others_full[i])),
            "width": f"{100 * np.nan_to_num(overlaps.others[i]):.1f}",
        }


def _classes_view(analysis: SiteAnalysis) -> dict[str, Any] | None:
    figures, counts = analysis.class_figures, analysis.classes
    if figures is None or counts is None or not figures.by_site.sum():
        return None
    names = analysis.sites.site_names
    labelled = {n: figures.by_site[i] for i, n in enumerate(names) if figures.by_site[i].sum() > 0}
    shown = dict(list(labelled.items())[:MAX_SHOWN])
    maps = class_shares_on_plane(counts, analysis.plane, analysis.support.grid)
    keep = [i for i, n in enumerate(names) if n in shown]
    roles = list(figures.by_role)
    return {
        "unit": figures.unit,
        "by_role": _svg(site_plots.class_bars_by_site(figures.by_role, figures.classes)) if roles else None,
        "by_site": _svg(site_plots.class_bars_by_site(shown, figures.classes)),
        "distance": _svg(
            site_plots.distance_heat(
                [names[i] for i in keep], figures.site_distance[np.ix_(keep, keep)], "Jensen-Shannon distance"
            )
        ),
        "maps": _svg(site_plots.class_maps(maps, figures.classes, analysis.support.grid)),
        "n_classes": len(figures.classes),
        "n_maps_left_out": max(0, len(figures.classes) - site_plots.MAX_MAPS),
        "pairs": [(f"{a} and {b}", f"{d:.3f}") for (a, b), d in figures.role_distance.items() if np.isfinite(d)],
        "roles": roles,
        "rows": [
            {
                "name": c,
                "shares": [_share(float(shares(figures.by_role[r])[k])) for r in roles],
                "missing": c in figures.missing,
            }
            for k, c in enumerate(figures.classes)
        ],
    }


def _colours_view(analysis: SiteAnalysis) -> dict[str, Any]:
    found = analysis.found
    by_role = role_histograms(found.histograms, analysis.sites)
    chart = site_plots.band_histograms(by_role, found.bands, np.asarray(found.scaling, np.float64))
    distances = histogram_distances(by_role)
    rows = [
        {"band": band, "values": [f"{values[b]:.3f}" for values in distances.values()]}
        for b, band in enumerate(found.bands)
    ]
    return {"chart": _svg(chart), "heads": list(distances), "rows": rows if distances else []}


def _unsure_text(share: float) -> str:
    return "the model could not be asked" if np.isnan(share) else f"uncertainty {share:.0%}"


def _next_view(analysis: SiteAnalysis) -> Iterator[dict[str, str]]:
    ranked = analysis.ranked
    for rank in range(0 if ranked is None else min(_MAX_NEXT, len(ranked.index))):
        assert ranked is not None
        index = int(ranked.index[rank])
        item = analysis.sites.items[index]
        sure = analysis.uncertainty
        yield {
            "rank": str(rank + 1),
            "uri": pictures.jpeg_uri(analysis.found.thumbs[index]),
            "name": item.name,
            "site": analysis.sites.site_names[item.site],
            "note": f"distance {ranked.distance[rank]:.2f}"
            if np.isfinite(ranked.distance[rank])
            else "the middle of all images",
            "unsure": "" if sure is None else _unsure_text(float(sure[index])),
        }
