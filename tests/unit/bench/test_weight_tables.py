"""Learned weights between two losses: their curve in the rows, table and picture, and the suites that have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from berunda.bench.rows import RowFile
from berunda.bench.suites import load_suite
from berunda.bench.suites.weighting import LEARNED
from berunda.bench.tables import write_tables
from berunda.bench.weight_tables import N_POINTS, weight_field
from berunda.methods._weighting import FORMS

TASKS = {"segmentation": ("miou", "images"), "scene": ("oa", "per_class")}


def row(variant: str, seed: int, values: list[float] | None, task: str = "segmentation") -> dict[str, Any]:
    metric, unit = TASKS[task]
    curve = {} if values is None else {"learned_weight": {"step": list(range(len(values))), "value": values}}
    told = {"suite": "weighting", "dataset": "town", "task": task, "method": "berunda", "variant": variant}
    told |= {"encoder": "net", "labels": 4, "labels_unit": unit, "seed": seed}
    told |= {"metrics": {metric: 0.5, "iou": {}}, "wall_s": 1.0, "images_per_s": 1.0, "image_passes": 9}
    return told | {"hardware": "h", "command": "c", "version": "v"} | curve


def test_the_curve_keeps_its_ends_and_is_thinned() -> None:
    log = [{"step": i, "total": 1.0, "weight": 0.5 - i / 2000} for i in range(1000)]
    curve = weight_field(log)["learned_weight"]
    assert len(curve["step"]) == len(curve["value"]) == N_POINTS
    assert (curve["step"][0], curve["step"][-1]) == (0, 999)
    assert curve["value"] == [round(log[i]["weight"], 5) for i in curve["step"]]
    gaps = [b - a for a, b in zip(curve["step"], curve["step"][1:], strict=False)]
    assert max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize("log", [[], [{"total": 1.0}] * 3, [{"weight": 0.5}] * 3])
def test_a_weight_that_is_not_learned_has_no_curve(log: list[dict[str, float]]) -> None:
    assert weight_field(log) == {}


@pytest.mark.parametrize("task", TASKS)
def test_page_and_picture_tell_where_the_weight_went(task: str, tmp_path: Path) -> None:
    rows = [row("", seed, None, task) for seed in range(3)]
    rows += [row("weighting=raw", seed, [0.5, 0.4, 0.1 * seed], task) for seed in range(3)]
    RowFile(tmp_path / "weighting.json").add(rows)
    files = write_tables(tmp_path / "weighting.json", tmp_path)
    page = (tmp_path / "weighting.md").read_text()
    lines = page[page.index("**Learned weight**") :].splitlines()[2:6]
    assert lines[0] == "| method | labels | start | half way | end |"
    assert lines[2] == "| berunda weighting=raw | 4 | 0.500 ± 0.000 | 0.400 ± 0.000 | 0.100 ± 0.100 |"
    assert not lines[3]
    (picture,) = [path for path in files if "learned_weight" in path.name]
    assert picture.name == "weighting_learned_weight_4.png"
    with Image.open(picture) as image:
        assert image.size[0] > 300


def test_pages_without_learned_weights_say_nothing_of_them(tmp_path: Path) -> None:
    RowFile(tmp_path / "weighting.json").add([row("", 0, None)])
    files = write_tables(tmp_path / "weighting.json", tmp_path)
    assert "Learned weight" not in (tmp_path / "weighting.md").read_text()
    assert not [path for path in files if "learned_weight" in path.name]


@pytest.mark.parametrize(("suite", "method"), [("weighting", "berunda"), ("weighting_scenes", "fixmatch")])
def test_the_fixed_weight_stands_beside_every_learned_one(suite: str, method: str) -> None:
    own = [dict(arm.options) for arm in load_suite(suite).arms if arm.method == method]
    assert own == [{}, *({"weighting": form} for form in LEARNED)]
    assert set(FORMS) == {"fixed", *LEARNED}
