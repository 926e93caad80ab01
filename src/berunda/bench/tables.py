"""Tables of a benchmark, generated from the rows of its finished runs and from nothing else.

Figures that others published stand in a table of their own, each with its protocol. The same rows give the same texts,
byte for byte.
"""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

from berunda.assess.classify import N_BINS, right_of
from berunda.assess.intervals import Interval, accuracy_difference
from berunda.assess.label_intervals import auprc_difference
from berunda.bench.cells import (
    HEADLINE,
    LEAST_SEEDS,
    Cell,
    Setting,
    cells_of,
    labels_order,
    markdown_table,
    scalar_metrics,
    with_spread,
)
from berunda.bench.diverged import DivergedRuns
from berunda.bench.grids import write_grids
from berunda.bench.mask_tables import mask_parts, stronger_baseline
from berunda.bench.pictures import write_pictures
from berunda.bench.published import Published, published_for
from berunda.bench.rows import WALL_TIME, RowFile
from berunda.bench.sample_tables import sample_part
from berunda.bench.search_tables import search_part
from berunda.bench.weight_tables import weight_part
from berunda.errors import DataError

__all__ = ["BASELINE", "published_parts", "write_tables"]

BASELINE = "supervised"
"""The method that the others are compared with, image by image."""
_NOTE = (
    "Mean ± standard deviation over seeds; a cell of fewer than "
    f"{LEAST_SEEDS} seeds says how many. The model is the last one of its training, never the best on test."
)


def write_tables(rows_path: Path | str, out_dir: Path | str) -> list[Path]:
    """Write the tables and pictures of a benchmark.

    Args:
        rows_path: file of rows, `<suite>.json`, see `berunda.bench.rows`.
        out_dir: folder for `<suite>.md`, `<suite>.csv` and `<suite>_*.png`; made where it is missing.

    Returns:
        The files written, tables first.

    Raises:
        DataError: the file holds no row with the metric that its task is judged by.
    """
    rows_path, out_dir = Path(rows_path), Path(out_dir)
    rows = RowFile(rows_path).rows()
    cells = cells_of(rows)
    if not cells:
        raise DataError(
            f"{rows_path}: {len(rows)} rows found, none with the metric of its task (oa for scenes); run the benchmark "
            "first"
        )
    out_dir.mkdir(parents=True, exist_ok=True)
    pictures = [*write_pictures(cells, out_dir, rows_path.stem), *write_grids(rows, rows_path, out_dir)]
    texts = {".md": _markdown(cells, rows_path, pictures), ".csv": _csv(cells)}
    written = []
    for ending, text in texts.items():
        path = out_dir / f"{rows_path.stem}{ending}"
        path.write_text(text, encoding="utf-8", newline="\n")
        written.append(path)
    return [*written, *pictures]


def _markdown(cells: Sequence[Cell], rows_path: Path, pictures: Sequence[Path]) -> str:
    parts = [f"# Benchmark {rows_path.stem}", f"Generated from `{rows_path.name}`. {_NOTE}"]
    for setting, group in groupby(cells, key=lambda cell: cell.setting):
        parts += _setting_part(setting, list(group))
    parts += _diverged_part(rows_path)
    for dataset, task in dict.fromkeys((cell.setting.dataset, cell.setting.task) for cell in cells):
        parts += published_parts(dataset, task)
    if pictures:
        parts.append("## Pictures")
        parts += [f"![{path.stem.replace('_', ' ')}]({path.name})" for path in pictures]
    return "\n\n".join(parts) + "\n"


def _diverged_part(rows_path: Path) -> list[str]:
    """Return the part on runs that came to no end, nothing where all did."""
    told = DivergedRuns.beside(rows_path).told()
    title = "**Runs that diverged**, and so have no row; those that went back and came to their end are among the rows"
    return [title, markdown_table(["run", "what happened"], told.items())] if told else []


def _setting_part(setting: Setting, cells: Sequence[Cell]) -> list[str]:
    key, title = setting.headline
    unit = setting.labels_unit.replace("_", " ")
    parts = [f"## {setting.dataset}, {setting.task}, {setting.encoder or 'no encoder'}", _protocol(cells)]
    parts += [f"**{title}, %**, by labels ({unit})", _pivot(cells, [(c, c.percent(key)) for c in cells])]
    if any(cell.values("macro_f1") for cell in cells):
        parts += [f"**Macro F1, %**, by labels ({unit})", _pivot(cells, [(c, c.percent("macro_f1")) for c in cells])]
    if any(cell.values("macro_f1_tuned") for cell in cells):
        title = f"**Macro F1 at thresholds tuned on validation images, %**, by labels ({unit})"
        parts += [title, _pivot(cells, [(c, c.percent("macro_f1_tuned")) for c in cells])]
    if setting.task == "segmentation":
        parts += [f"**Overall accuracy, %**, by labels ({unit})", _pivot(cells, [(c, c.percent("oa")) for c in cells])]
    chosen_by = [(cell, cell.share("validation")) for cell in cells]
    if any(text for _, text in chosen_by):
        title = f"**{title} on the validation images, %**, by which nets and options are chosen, by labels ({unit})"
        parts += [title, _pivot(cells, chosen_by)]
    calibrated = [cell for cell in cells if cell.values("classwise_ece")]
    if calibrated:
        parts += [_CALIBRATION, _calibration(calibrated)]
    unlike = list(_unlike(cells))
    if unlike:
        parts += [_OOD, markdown_table(["method", "labels", "against", "score", "AUROC", "AUPR", "FPR95"], unlike)]
    if setting.task == "segmentation":
        return [*parts, *mask_parts(cells, BASELINE), *weight_part(cells), _COST, _cost(cells)]
    parts += sample_part(cells)
    differences = list(_differences(cells))
    if differences:
        paired = _PAIRED.format(title=_headline_words(setting))
        parts += [paired, markdown_table(["method", "labels", "against", "difference", "95% interval"], differences)]
    parts += [*search_part(cells), *weight_part(cells)]
    return [*parts, _COST, _cost(cells)]


_CALIBRATION = (
    f"**Calibration**, before and after temperature scaling fitted on validation images ({N_BINS} equal-width bins; "
    "ECE and class-wise ECE in %; of one view: where a net answers over symmetries of an image, the same net without)"
)
_OOD = (
    "**Images unlike the training ones**, %: AUROC and AUPR (of finding them) are better high, FPR95 (those that pass "
    "where 95% of the others pass) low"
)
_COST = f"**Cost of a run** (means; {WALL_TIME})"
_PAIRED = (
    f"**Difference in {{title}} to {BASELINE}**, in points: paired bootstrap over the test images, of the "
    f"mean over the seeds; against that {BASELINE} run of the same net which has the highest mean, chosen by the test "
    "itself, which favours the baseline"
)


def _headline_words(setting: Setting) -> str:
    """Return what the first metric is called within a sentence."""
    return "accuracy" if setting.task == "scene" else setting.headline[1]


def _protocol(cells: Sequence[Cell]) -> str:
    """Return what the runs say of their protocol: each statement once, with hardware and versions."""
    rows = [row for cell in cells for row in cell.rows]

    def said(name: str) -> str:
        return "; ".join(sorted({str(row[name]) for row in rows if row.get(name)}))

    tested = sorted({int(row["metrics"]["n_test"]) for row in rows if row["metrics"].get("n_test")})
    held = sorted({int(row["metrics"]["n_validation"]) for row in rows if "n_validation" in row["metrics"]})
    facts = [said("protocol")]
    facts += [f"test images: {', '.join(map(str, tested))}"] if tested else []
    facts += [f"validation labels used: {', '.join(map(str, held))}"] if held else []
    skipped = sorted({int(row["n_skipped"]) for row in rows if row.get("n_skipped")})
    facts += [f"broken images left out: {', '.join(map(str, skipped))}"] if skipped else []
    facts += [f"hardware: {said('hardware')}", f"version {said('version')}"]
    return "Protocol: " + "; ".join(fact for fact in facts if fact) + "."


def _pivot(cells: Sequence[Cell], shown: Iterable[tuple[Cell, str]]) -> str:
    """Return a table of methods by numbers of labels."""
    labels = sorted({cell.labels for cell in cells}, key=labels_order)
    by_method: dict[str, dict[str, str]] = {}
    for cell, text in shown:
        by_method.setdefault(cell.method, {})[cell.labels] = text
    return markdown_table(
        ["method", *labels], ([name, *(found.get(n, "") for n in labels)] for name, found in by_method.items())
    )


def _calibration(cells: Sequence[Cell]) -> str:
    head = ["method", "labels", "temperature", "ECE before", "ECE after", "class-wise before", "class-wise after"]
    head += ["Brier before", "Brier after", "NLL before", "NLL after"]
    has_views = any(cell.values("ece_single_view") for cell in cells)
    head += ["ECE of one view before", "ECE of one view after"] if has_views else []
    lines = []
    for cell in cells:
        line = [cell.method, cell.labels, cell.number("temperature", 2)]
        line += [cell.percent(name + end) for name in ("ece", "classwise_ece") for end in ("_before", "")]
        line += [cell.number(name + end) for name in ("brier", "nll") for end in ("_before", "")]
        line += [cell.percent(f"ece{end}_single_view") for end in ("_before", "")] if has_views else []
        lines.append(line)
    return markdown_table(head, lines)


def _cost(cells: Sequence[Cell]) -> str:
    """Return wall time and passes of each cell, and where rows tell them the net, its steps and its batch."""
    has_steps = any(cell.fields("steps") for cell in cells)
    head = ["method", "labels", "seeds", "wall time, s", "training, s", "images/s", "image passes"]
    head += ["steps", "crops a step, labelled + unlabelled", "decoder, stages"] if has_steps else []
    has_returns = any(row.get("returned") for cell in cells for row in cell.rows)
    head += ["times it went back"] if has_returns else []
    lines = (
        [
            *(cell.method, cell.labels, ", ".join(str(row["seed"]) for row in cell.rows)),
            *(cell.mean(name) for name in ("wall_s", "training_s", "images_per_s", "image_passes")),
            *(_steps(cell) if has_steps else ()),
            *([_returns(cell)] if has_returns else ()),
            cell.texts("hardware"),
        ]
        for cell in cells
    )
    return markdown_table([*head, "hardware"], lines)


def _returns(cell: Cell) -> str:
    """Return how often each seed diverged and went back to a checkpoint, "" of what cannot."""
    return ", ".join(str(len(row["returned"])) for row in cell.rows if row.get("returned") is not None)


def _steps(cell: Cell) -> list[str]:
    """Return steps, crops a step and net of a cell; empty texts where nothing is trained step by step."""
    if not cell.fields("steps"):
        return ["", "", ""]
    batch = " + ".join(cell.mean(f"{kind}_a_step") for kind in ("labelled", "unlabelled"))
    net = f"{cell.texts('decoder')}, {cell.mean('encoder_depth')}"
    from_scratch = not all(row.get("is_pretrained", True) for row in cell.rows)
    return [cell.mean("steps"), batch, net + (", from scratch" if from_scratch else "")]


def _differences(cells: Sequence[Cell]) -> Iterable[list[str]]:
    for cell in cells:
        other = stronger_baseline(cell, cells, BASELINE)
        found = None if other is None or other is cell else _difference(cell, other)
        if other is not None and found is not None:
            interval = f"{100 * found.low:+.1f} to {100 * found.high:+.1f}"
            yield [cell.method, cell.labels, other.method, f"{100 * found.estimate:+.1f}", interval]


def _unlike(cells: Sequence[Cell]) -> Iterable[list[str]]:
    """Yield a line for each method, set of unlike images and score of unlikeness."""
    for cell in cells:
        found = [row["metrics"].get("ood") or {} for row in cell.rows]
        for name, score in sorted({(outside, kind) for sets in found for outside in sets for kind in sets[outside]}):
            figures = [sets[name][score] for sets in found if score in sets.get(name, {})]
            means = [with_spread([100 * x[f] for x in figures if x[f] is not None], 1) for f in _OOD_FIGURES]
            yield [cell.method, cell.labels, name, score.replace("_", " "), *means]


_OOD_FIGURES = ("auroc", "aupr", "fpr95")


def _difference(cell: Cell, other: Cell) -> Interval | None:
    """Return the paired difference, None where the rows do not hold the same test images."""
    metrics = [row["metrics"] for row in (*cell.rows, *other.rows)]
    kept = "scores" if cell.setting.task == "multilabel" else "right"
    if any(kept not in found for found in metrics) or len({found.get("test_key") for found in metrics}) != 1:
        return None
    n = len(cell.rows)
    if cell.setting.task == "multilabel":
        return auprc_difference(metrics[:n], metrics[n:])
    right = [right_of(found) for found in metrics]
    return accuracy_difference(right[:n], right[n:])


def published_parts(dataset: str, task: str) -> list[str]:
    """Return the tables, in Markdown, of what others published on a data set, with protocols and sources."""
    parts = []
    of_several = [("macro_f1", "Macro F1")] if task == "multilabel" else []
    for metric, title in (HEADLINE.get(task, ("", "")), *of_several, ("ece", "ECE before scaling")):
        for is_of_shares, told in ((False, "labels per class"), (True, "share of the images that are labelled")):
            found = [one for one in published_for(dataset, metric) if one.is_of_shares is is_of_shares]
            if found:
                parts += [f"**{title}, %**, by {told}", _published(found)]
    if parts:
        parts.insert(0, f"## Published on {dataset}, under other protocols")
    return parts


def _published(found: Sequence[Published]) -> str:
    labels = sorted({labels for one in found for labels in one.values}, key=labels_order)
    lines = (
        [
            one.method,
            *(f"{100 * one.values[n]:.2f}" if n in one.values else "" for n in labels),
            *(one.protocol, one.source),
        ]
        for one in found
    )
    return markdown_table(["method", *labels, "protocol", "source"], lines)


def _csv(cells: Sequence[Cell]) -> str:
    """Return one line a cell with mean and standard deviation of every metric that is a number."""
    metrics = scalar_metrics(cells)
    head = ["dataset", "task", "encoder", "method", "labels", "labels_unit", "n_seeds", "seeds"]
    head += [f"{name}_{what}" for name in metrics for what in ("mean", "sd")]
    head += ["wall_s_mean", "training_s_mean", "images_per_s_mean", "hardware", "version", "protocol"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    for cell in cells:
        setting = cell.setting
        line = [setting.dataset, setting.task, setting.encoder, cell.method, cell.labels, setting.labels_unit]
        line += [str(len(cell.rows)), " ".join(str(row["seed"]) for row in cell.rows)]
        line += [figure for name in metrics for figure in _mean_sd(cell.values(name))]
        line += [_mean_sd(cell.fields(name))[0] for name in ("wall_s", "training_s", "images_per_s")]
        writer.writerow([*line, *(cell.texts(name) for name in ("hardware", "version", "protocol"))])
    return text.getvalue()


def _mean_sd(values: Sequence[float]) -> tuple[str, str]:
    if not values:
        return "", ""
    return f"{statistics.mean(values):.6g}", f"{statistics.stdev(values):.6g}" if len(values) > 1 else ""
