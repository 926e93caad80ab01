"""The figures of README and of its page come from the committed rows."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("figures", ROOT / "benchmarks" / "figures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(method: str, seed: int, **metrics: float) -> dict[str, object]:
    return {
        "suite": "demo",
        "dataset": "scene",
        "method": method,
        "labels": 5,
        "labels_unit": "polygons_per_class",
        "seed": seed,
        "metrics": metrics,
        "wall_s": 60.0,
        "hardware": "2 cores",
    }


def test_means_and_deviations_over_seeds(tmp_path: Path) -> None:
    rows = [row("random_forest", 0, oa=0.4, miou=0.3), row("random_forest", 1, oa=0.6, miou=0.5)]
    rows.append(row("berunda", 0, oa=0.7, miou=0.6, other=1.0))
    (tmp_path / "demo.json").write_text(json.dumps(rows))
    text = _script().tables(tmp_path).splitlines()
    assert text[0] == "**demo** (scene; 2 cores; mean ± standard deviation over seeds)"
    assert text[2] == "| method | labels | seeds | OA | mIoU | time a run |"
    assert text[4] == "| random forest | 5 polygons per class | 2 | 0.500 ± 0.141 | 0.400 ± 0.141 | 60 s |"
    assert len(text) == 7
    assert text[6] == "Fewer seeds, so not comparable in a mean: berunda; see `benchmarks/results/demo.json`."


def test_one_seed_has_no_deviation(tmp_path: Path) -> None:
    (tmp_path / "demo.json").write_text(json.dumps([row("berunda", 0, oa=0.7, miou=0.6, other=1.0)]))
    text = _script().tables(tmp_path).splitlines()
    assert text[4] == "| berunda | 5 polygons per class | 1 | 0.7 | 0.6 | 60 s |"


def test_without_results(tmp_path: Path) -> None:
    assert _script().tables(tmp_path) == "No benchmark has been run yet."


def test_several_numbers_of_labels_become_columns(tmp_path: Path) -> None:
    rows = [
        {**row("fixmatch", seed, oa=0.5 + labels / 100 + seed / 10), "labels": labels, "labels_unit": "per_class"}
        for labels in (20, 5)
        for seed in (0, 1)
    ]
    rows.append({**row("supervised", 0, oa=0.4), "labels": 5, "labels_unit": "per_class"})
    (tmp_path / "demo.json").write_text(json.dumps(rows))
    text = _script().tables(tmp_path).splitlines()
    assert text[2] == "| method | OA, 5 per class | OA, 20 per class | seeds | time a run |"
    assert text[4] == "| fixmatch | 0.600 ± 0.071 | 0.750 ± 0.071 | 2 | 60 s |"
    assert text[6] == "Fewer seeds, so not comparable in a mean: supervised; see `benchmarks/results/demo.json`."
    assert len(text) == 7


def test_chosen_tables_in_the_order_asked_for(tmp_path: Path) -> None:
    for name in ("demo", "other", "third"):
        (tmp_path / f"{name}.json").write_text(json.dumps([row("berunda", 0, oa=0.7)]))
    (tmp_path / "note.json").write_text(json.dumps({"labels": [1, 2]}))
    text = _script().tables(tmp_path, ["third", "demo", "absent"])
    assert [line.split("**")[1] for line in text.splitlines() if line.startswith("**")] == ["third", "demo"]
