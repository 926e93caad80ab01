"""Tables and pictures of images with masks: the stronger supervised net is the baseline, settings stay apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from berunda.bench.cells import cells_of
from berunda.bench.grids import ABOUT, shown_folder, write_grids
from berunda.bench.mask_tables import difference_lines, stronger_baseline, swept
from berunda.bench.pictures import write_pictures
from berunda.bench.rows import RowFile
from berunda.bench.tables import write_tables


def row(method: str, miou: float, variant: str = "", **more: Any) -> dict[str, Any]:
    """Return a row of three test images, whose pixels are right in a share of `miou`."""
    right = round(100 * miou)
    matrix = np.array([[right, 100 - right], [100 - right, right]])
    options = dict(text.split("=") for text in variant.split(", ") if "=" in text)
    return {
        "suite": "s",
        "dataset": "town",
        "task": "segmentation",
        "method": method,
        "variant": variant,
        "encoder": "net",
        "labels": 4,
        "labels_unit": "images",
        "seed": 0,
        "metrics": {"miou": miou, "oa": miou, "by_image": [matrix.tolist()] * 3, "iou": {"a": miou, "b": miou}},
        "wall_s": 1.0,
        "images_per_s": 1.0,
        "image_passes": 100,
        "hardware": "h",
        "command": "c",
        "version": "v",
        "decoder": "slim",
        "encoder_depth": 3,
        "steps": 10,
        "labelled_a_step": 4,
        "unlabelled_a_step": 4,
        "options": {name: value for name, value in options.items() if name != "decoder"},
        **more,
    }


def against(rows: list[dict[str, Any]]) -> dict[str, tuple[str, str]]:
    """Return what each method is compared with, and the difference."""
    return {name: (other, gap) for name, _, other, gap, _ in difference_lines(cells_of(rows), "supervised")}


def test_collapsed_runs_and_returns_are_counted(tmp_path: Path) -> None:
    rows = RowFile(tmp_path / "s.json")
    for seed, (miou, is_collapsed, returned) in enumerate([(0.6, False, ["once", "again"]), (0.3, True, [])]):
        made = row("hvae", miou, seed=seed, returned=returned)
        made["metrics"] |= {"is_collapsed": is_collapsed, "majority_miou": 0.25}
        rows.add([made])
    rows.add([row("supervised", 0.5)])  # of an earlier version, which did not tell
    write_tables(rows.path, tmp_path)
    lines = (tmp_path / "s.md").read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("**Stability**"))
    assert lines[start + 2] == "| method | labels | runs | collapsed | mean IoU, % | commonest class, % | went back |"
    assert lines[start + 4] == "| hvae | 4 | 2 | 1 | 30.0 to 60.0 | 25.0 | 2 |"
    assert lines[start + 5] == ""


@pytest.mark.parametrize(
    ("large", "small", "stronger"), [(0.5, 0.6, "supervised small batch"), (0.7, 0.6, "supervised")]
)
def test_the_stronger_supervised_net_is_the_baseline(large: float, small: float, stronger: str) -> None:
    found = against([row("supervised", large), row("supervised", small, "small batch"), row("fixmatch", 0.8)])
    assert found["fixmatch"] == (stronger, f"{100 * np.subtract(*map(iou, (0.8, max(large, small)))):+.1f}")
    assert set(found) == {"fixmatch", *({"supervised", "supervised small batch"} - {stronger})}


def iou(share: float) -> float:
    return share / (2 - share)


def test_a_net_is_compared_with_the_supervised_one_of_its_decoder() -> None:
    unet = {"decoder": "unet"}
    rows = [row("supervised", 0.9), row("supervised", 0.5, "decoder=unet", **unet)]
    rows += [row("berunda", 0.6, "decoder=unet", **unet), row("cotrain", 0.6, decoder="slim4")]
    found = against(rows)
    assert found["berunda decoder=unet"][0] == "supervised decoder=unet"
    assert found["cotrain"][0] == "supervised", "there is none of its decoder"


def test_labels_of_one_site_are_compared_with_those_of_the_same() -> None:
    rows = [row("supervised", 0.9, site="")]
    rows += [row(m, 0.5, f"labels of {site}", site=site) for m in ("supervised", "fixmatch") for site in ("A", "B")]
    cells = cells_of(rows)
    told = {c.method: getattr(stronger_baseline(c, cells, "supervised"), "method", None) for c in cells}
    assert told["fixmatch labels of A"] == "supervised labels of A"
    assert told["fixmatch labels of B"] == "supervised labels of B"
    assert told["supervised"] == "supervised"


def test_the_page_names_baseline_steps_and_batch(tmp_path: Path) -> None:
    RowFile(tmp_path / "s.json").add([row("supervised", 0.5), row("fixmatch", 0.8, is_pretrained=False)])
    write_tables(tmp_path / "s.json", tmp_path)
    page = (tmp_path / "s.md").read_text()
    assert "| method | labels | against | difference | 95% interval |" in page
    assert "| fixmatch | 4 | supervised |" in page
    assert "| 10 | 4 + 4 | slim, 3, from scratch |" in page
    assert "| 10 | 4 + 4 | slim, 3 |" in page


def weights(labels: int, variant: str, **more: Any) -> list[dict[str, Any]]:
    return [row("berunda", 0.5, f"aux=l1, lambda_u={w}{variant}", labels=labels, **more) for w in (0.1, 1.0)]


def test_weights_of_other_forms_and_numbers_of_labels_are_other_lines(tmp_path: Path) -> None:
    rows = weights(4, "") + weights(4, ", split=early") + weights(4, ", decoder=unet", decoder="unet")
    assert set(swept(cells_of(rows))) == {"l1", "l1, split=early", "l1, decoder=unet"}
    assert all(len(pairs) == 2 for pairs in swept(cells_of(rows)).values())
    names = {path.name for path in write_pictures(cells_of([*rows, *weights(8, "")]), tmp_path, "s")}
    assert {"s_weights_4.png", "s_weights_8.png"} <= names
    assert {path.name for path in write_pictures(cells_of(rows), tmp_path, "t")} == {"t_weights.png"}


def keep(folder: Path, run: str) -> None:
    """Write one picture of each kind, as a benchmark keeps them."""
    for part in ("images", "truth", run):
        (folder / part).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / part / "0.png")
    (folder / ABOUT).write_text('{"classes": ["a"], "colors": ["#ff0000"], "images": {"0": "x"}}')


def test_data_sets_of_one_folder_have_grids_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    rows = [row("supervised", 0.5, dataset=name, shown=f"run_{i}") for i, name in enumerate(("town", "open land"))]
    for one in rows:
        keep(shown_folder(path, one["dataset"]), one["shown"])
    found = {one.name for one in write_grids(rows, path, tmp_path)}
    assert found == {"s_town_grid_4.png", "s_open_land_grid_4.png"}
    assert [one.name for one in write_grids(rows[:1], path, tmp_path)] == ["s_grid_4.png"]


def test_nets_of_other_encoders_are_columns_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    rows = [row("supervised", 0.5, encoder=name, shown=f"run_{name}") for name in ("a", "b")]
    for one in rows:
        keep(shown_folder(path, "town"), one["shown"])
    with Image.open(write_grids(rows, path, tmp_path)[0]) as both:
        width = both.width
    with Image.open(write_grids(rows[:1], path, tmp_path)[0]) as one_alone:
        assert one_alone.width < width
