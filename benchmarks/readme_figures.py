"""Write the figures of README.md between its markers, from benchmarks/results/*.json.

Usage: python benchmarks/readme_figures.py [--check]      (--check only fails when README.md is out of date)
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"

SHOWN = {
    "oa": "OA",
    "miou": "mIoU",
    "macro_f1": "macro F1",
    "macro_auprc": "macro AUPRC",
    "ece": "ECE",
    "ood_auroc": "OOD AUROC",
    "auroc_msp": "AUROC, MSP",
    "auroc_energy": "AUROC, energy",
    "auroc_knn": "AUROC, kNN",
    "auroc_mahalanobis": "AUROC, Mahalanobis",
    "step": "step (s)",
    "share_data_and_views": "data and views",
    "share_of_bare": "share of the bare step",
    "times_supervised": "times the supervised step",
    "mpx_per_s": "scene Mpx/s",
    "times_one_worker": "times one worker",
    "torchgeo_mpx_per_s": "torchgeo's Mpx/s",
    "times_torchgeo": "times torchgeo",
    "share_of_model": "share of the bare forward pass",
    "share_of_model_in_a_window_cpu": "share in a window",
    "peak_small_gib": "peak, small scene (GiB)",
    "peak_large_gib": "peak, large scene (GiB)",
}
"""Metrics that a table shows, in this order; a suite that has none of them shows its first four."""

Row = dict[str, Any]


def tables(results: Path = RESULTS) -> str:
    """Return a table for each suite that has results, with means and standard deviations over the seeds."""
    suites = [
        (path.stem, json.loads(path.read_text(encoding="utf-8"))) for path in sorted(results.glob("*.json"))
    ]
    parts = [
        _table(f"{suite}, {part}" if part else suite, [row for row in rows if row.get("part", "") == part], suite)
        for suite, rows in suites
        if isinstance(rows, list)
        for part in dict.fromkeys(row.get("part", "") for row in rows)
    ]
    return "\n\n".join(parts) or "No benchmark has been run yet."


def _table(title: str, rows: list[Row], suite: str) -> str:
    metrics = _metrics(rows)
    head = ["method", "labels", "seeds", *(SHOWN.get(metric, metric) for metric in metrics), "time a run"]
    lines = [f"**{title}** ({_protocol(rows)})", "", _line(head), _line(["---"] * len(head))]
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        labels = f"{row['labels']} {str(row['labels_unit']).replace('_', ' ')}" if row["labels"] else ""
        name = f"{row['method']} {row.get('variant', '')}".strip().removeprefix("none ")
        groups.setdefault((name, labels), []).append(row)
    most = max(len(runs) for runs in groups.values())
    fewer = [method for (method, _), runs in groups.items() if len(runs) < most]
    for (method, labels), runs in groups.items():
        if len(runs) < most:
            continue
        figures = [_figure(run["metrics"].get(metric) for run in runs) for metric in metrics]
        seconds = statistics.mean(float(run["wall_s"]) for run in runs)
        lines.append(_line([method.replace("_", " "), labels, str(len(runs)), *figures, f"{seconds:.0f} s"]))
    if fewer:
        names = ", ".join(dict.fromkeys(fewer))
        lines += ["", f"Fewer seeds, so not comparable in a mean: {names}; see `benchmarks/results/{suite}.json`."]
    return "\n".join(lines)


def _metrics(rows: list[Row]) -> list[str]:
    present = dict.fromkeys(
        name for row in rows for name, value in row["metrics"].items() if isinstance(value, int | float)
    )
    return [name for name in SHOWN if name in present] or list(present)[:4]


def _figure(values: Iterable[float | None]) -> str:
    known = [float(value) for value in values if value is not None]
    if not known:
        return ""
    if len(known) == 1:
        return f"{known[0]:.3g}"
    digits = 3 if max(abs(value) for value in known) < 10 else 0
    return f"{statistics.mean(known):.{digits}f} ± {statistics.stdev(known):.{digits}f}"


def _protocol(rows: list[Row]) -> str:
    datasets = sorted({str(row["dataset"]) for row in rows})
    hardware = sorted({str(row["hardware"]) for row in rows})
    return f"{', '.join(datasets)}; {', '.join(hardware)}; mean ± standard deviation over seeds"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def main(arguments: list[str]) -> int:
    """Write the figures, or check them; return the exit code."""
    target = ROOT / "README.md"
    text = target.read_text(encoding="utf-8")
    before, after = text.index(BEGIN) + len(BEGIN), text.index(END)
    new = f"{text[:before]}\n{tables()}\n{text[after:]}"
    if "--check" in arguments:
        return int(new != text)
    target.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
