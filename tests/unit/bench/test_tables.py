"""Tables and pictures come from the rows alone, the same every time, and published figures stay apart."""

from __future__ import annotations

import csv
import io
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from berunda.assess.classify import Classified, classifier_figures
from berunda.bench.cells import Cell, Setting, cells_of
from berunda.bench.pictures import accuracy_lines, confusion_panels, half_interval, pooled_bins
from berunda.bench.published import PUBLISHED, published_for
from berunda.bench.rows import RowFile
from berunda.bench.tables import published_parts, write_tables
from berunda.data.catalog import entries
from berunda.errors import DataError

NAMES = ("forest", "river", "sea|lake")


def row(method: str, labels: int | str, seed: int, skill: float, **more: Any) -> dict[str, Any]:
    """Return a row whose figures were measured on made-up logits."""
    rng = np.random.default_rng([seed, len(method)])
    truth = np.arange(90) % 3

    def part(n: int) -> Classified:
        return Classified(skill * np.eye(3)[truth[:n]] + rng.normal(size=(n, 3)), truth[:n])

    return {
        "suite": "eurosat",
        "dataset": "eurosat",
        "task": "scene",
        "method": method,
        "encoder": "net",
        "labels": labels,
        "labels_unit": "per_class",
        "seed": seed,
        "metrics": classifier_figures(part(30), part(90), class_names=NAMES),
        "wall_s": 10.0 + seed,
        "training_s": 8.0,
        "images_per_s": 1000.0,
        "image_passes": 64_000,
        "hardware": "one core",
        "command": "berunda bench eurosat",
        "version": "0.1.0",
        "protocol": "index.csv's split, averaged model",
        **more,
    }


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "eurosat.json"
    found = [row("supervised", n, seed, 1.0) for n in (5, 20, "all") for seed in range(3)]
    found += [row("fixmatch", n, seed, 3.0) for n in (5, 20) for seed in range(3)]
    found += [row("mixmatch", 5, seed, 2.0) for seed in range(2)]
    found += [row("propagate", 5, 0, 2.0, is_transductive=True), row("fixmatch", 5, 0, 3.0, variant="tau .8")]
    RowFile(path).add(found)
    return path


def lines_of(text: str, title: str) -> list[list[str]]:
    """Return the cells of the table that follows `title`."""
    after = text[text.index(title) :].splitlines()
    start = next(i for i, line in enumerate(after) if line.startswith("| "))
    lines = []
    for line in after[start:]:
        if not line.startswith("|"):
            break
        lines.append([cell.strip() for cell in line.strip("|").split(" | ")])
    assert len({len(line) for line in lines}) == 1, "as many heads as cells"
    return [lines[0], *lines[2:]]


def test_means_deviations_and_few_seeds(rows: Path, tmp_path: Path) -> None:
    write_tables(rows, tmp_path / "out")
    text = (tmp_path / "out" / "eurosat.md").read_text()
    head, *lines = lines_of(text, "Overall accuracy, %")
    assert head == ["method", "5", "20", "all"]
    by_method = {line[0]: line[1:] for line in lines}
    assert list(by_method) == ["fixmatch", "fixmatch tau .8", "mixmatch", "propagate (transductive)", "supervised"]
    values = [
        100 * r["metrics"]["oa"] for r in RowFile(rows).rows() if r["method"] == "supervised" and r["labels"] == 5
    ]
    assert by_method["supervised"][0] == f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"
    assert by_method["mixmatch"][0].endswith("(2 seeds)")
    assert "±" in by_method["mixmatch"][0]
    assert by_method["propagate (transductive)"][0].endswith("(1 seed)")
    assert by_method["mixmatch"][1:] == ["", ""]


def test_a_title_takes_the_place_of_method_and_variant() -> None:
    found = [row("fixmatch", 5, 0, 3.0, variant="tau .8", title="Match"), row("fixmatch", 5, 0, 3.0, title="")]
    assert [cell.method for cell in cells_of(found)] == ["Match", "fixmatch"]


def test_protocol_cost_calibration_and_differences(rows: Path, tmp_path: Path) -> None:
    write_tables(rows, tmp_path)
    text = (tmp_path / "eurosat.md").read_text()
    assert "Protocol: index.csv's split, averaged model; test images: 90; validation labels used: 30;" in text
    assert lines_of(text, "Cost of a run")[1] == ["fixmatch", "5", "0, 1, 2", "11", "8", "1,000", "64,000", "one core"]
    head, *lines = lines_of(text, "**Calibration**")
    assert head[3:5] == ["ECE before", "ECE after"]
    assert len(lines) == 8
    differences = {tuple(line[:2]): line[2:] for line in lines_of(text, "Difference in accuracy")[1:]}
    against, gap, interval = differences["fixmatch", "5"]
    assert against == "supervised"
    low, high = (float(end) for end in interval.split(" to "))
    assert low < float(gap) < high
    assert low > 0
    assert ("supervised", "5") not in differences


def test_differences_are_to_the_stronger_run_of_the_baseline(rows: Path, tmp_path: Path) -> None:
    RowFile(rows).add([row("supervised", 5, seed, 2.0, variant="small batch") for seed in range(3)])
    write_tables(rows, tmp_path)
    lines = lines_of((tmp_path / "eurosat.md").read_text(), "Difference in accuracy")[1:]
    assert {tuple(line[:3]) for line in lines if line[0] in ("fixmatch", "supervised")} == {
        ("fixmatch", "5", "supervised small batch"),
        ("fixmatch", "20", "supervised"),
        ("supervised", "5", "supervised small batch"),
    }


def test_the_calibration_of_one_view_stands_beside(rows: Path, tmp_path: Path) -> None:
    write_tables(rows, tmp_path)
    assert "ECE of one view before" not in lines_of((tmp_path / "eurosat.md").read_text(), "**Calibration**")[0]
    viewed = row("vat", 5, 0, 3.0)
    viewed["metrics"] |= {"ece_before_single_view": 0.4912, "ece_single_view": 0.0312}
    RowFile(rows).add([viewed])
    write_tables(rows, tmp_path)
    head, *lines = lines_of((tmp_path / "eurosat.md").read_text(), "**Calibration**")
    assert head[-2:] == ["ECE of one view before", "ECE of one view after"]
    of_method = {line[0]: line[-2:] for line in lines}
    assert of_method["vat"] == ["49.1 (1 seed)", "3.1 (1 seed)"]
    assert of_method["supervised"] == ["", ""]
    assert "ece_single_view_mean" in (tmp_path / "eurosat.csv").read_text()


def test_methods_tested_on_other_images_are_not_compared(rows: Path, tmp_path: Path) -> None:
    other = row("flexmatch", 5, 0, 3.0)
    other["metrics"]["test_key"] = "another"
    bare = row("vat", 5, 0, 3.0)
    del bare["metrics"]["right"]
    RowFile(rows).add([other, bare])
    write_tables(rows, tmp_path)
    compared = [line[0] for line in lines_of((tmp_path / "eurosat.md").read_text(), "Difference in accuracy")]
    assert "fixmatch" in compared
    assert not {"flexmatch", "vat"} & set(compared)


def test_published_figures_stand_apart_with_their_protocol(rows: Path, tmp_path: Path) -> None:
    write_tables(rows, tmp_path)
    text = (tmp_path / "eurosat.md").read_text()
    measured, published = text.split("## Published on eurosat")
    assert "94.45" not in measured
    head, *lines = lines_of(published, "Overall accuracy")
    assert head[-2:] == ["protocol", "source"]
    assert all(line[-1] and line[-2] for line in lines)
    thesis = next(line for line in lines if line[0] == "FixMatch (Wide-ResNet)")
    assert thesis[head.index("5")] == "94.45"
    assert lines_of(published, "ECE before scaling")[2][1:3] == ["49.24", "50.24"]


def test_the_same_rows_give_the_same_files(rows: Path, tmp_path: Path) -> None:
    first = write_tables(rows, tmp_path / "a")
    RowFile(rows).path.write_text(RowFile(rows).path.read_text())
    second = write_tables(rows, tmp_path / "b")
    assert [p.name for p in first] == [p.name for p in second]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_csv_has_a_line_a_cell(rows: Path, tmp_path: Path) -> None:
    write_tables(rows, tmp_path)
    found = list(csv.DictReader(io.StringIO((tmp_path / "eurosat.csv").read_text())))
    assert len(found) == 8
    line = next(r for r in found if r["method"] == "fixmatch" and r["labels"] == "20")
    values = [r["metrics"]["oa"] for r in RowFile(rows).rows() if r["method"] == "fixmatch" and r["labels"] == 20]
    assert float(line["oa_mean"]) == pytest.approx(statistics.mean(values), rel=1e-5)
    assert float(line["oa_sd"]) == pytest.approx(statistics.stdev(values), rel=1e-4)
    assert (line["n_seeds"], line["seeds"], line["wall_s_mean"]) == ("3", "0 1 2", "11")
    assert "reliability_mean" not in line
    assert next(r for r in found if r["method"].startswith("propagate"))["oa_sd"] == ""


def test_pictures_are_drawn_for_what_there_is(rows: Path, tmp_path: Path) -> None:
    names = {path.name for path in write_tables(rows, tmp_path) if path.suffix == ".png"}
    expected = {"accuracy", *(f"{kind}_{n}" for kind in ("reliability", "confusion") for n in (5, 20, "all"))}
    assert names == {f"eurosat_{name}.png" for name in expected}
    text = (tmp_path / "eurosat.md").read_text()
    for name in names:
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) > 200
        assert f"]({name})" in text


def test_settings_of_one_file_get_pictures_of_their_own(rows: Path, tmp_path: Path) -> None:
    RowFile(rows).add([row("fixmatch", 5, 0, 3.0, encoder="hf/other:net")])
    names = {path.name for path in write_tables(rows, tmp_path)}
    assert {"eurosat_net_reliability_5.png", "eurosat_hf_other_net_reliability_5.png"} <= names


def test_floors_stand_beside_every_net_under_their_own_encoder(rows: Path, tmp_path: Path) -> None:
    found = [row("features_logreg", n, seed, 1.0, encoder="packaged") for n in (5, 20) for seed in range(3)]
    RowFile(rows).add([*found, row("fixmatch", 5, 0, 3.0, encoder="another")])
    write_tables(rows, tmp_path)
    text = (tmp_path / "eurosat.md").read_text()
    for net in ("net", "another"):
        methods = [line[0] for line in lines_of(text[text.index(f"## eurosat, scene, {net}") :], "Overall accuracy, %")]
        assert "features logreg (packaged)" in methods
        assert "fixmatch" in methods
    assert "## eurosat, scene, packaged" not in text


def test_floors_alone_are_a_table(tmp_path: Path) -> None:
    RowFile(tmp_path / "eurosat.json").add([row("features_logreg", 5, 0, 1.0, encoder="packaged")])
    (cell,) = cells_of(RowFile(tmp_path / "eurosat.json").rows())
    assert (cell.setting.encoder, cell.method) == ("packaged", "features logreg (packaged)")


def test_the_order_of_the_rows_does_not_matter(rows: Path, tmp_path: Path) -> None:
    RowFile(rows).add([row("features_logreg", 5, 0, 1.0, encoder="packaged"), row("vat", 5, 0, 1.0, encoder="other")])
    first = write_tables(rows, tmp_path / "a")
    found = RowFile(rows).rows()
    np.random.default_rng(3).shuffle(found)  # type: ignore[arg-type]
    rows.write_text(json.dumps(found))
    second = write_tables(rows, tmp_path / "b")
    assert [p.name for p in first] == [p.name for p in second]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_images_left_out_are_counted(rows: Path, tmp_path: Path) -> None:
    RowFile(rows).add([row("supervised", 5, 0, 1.0, n_skipped=7)])
    write_tables(rows, tmp_path)
    assert "validation labels used: 30; broken images left out: 7; hardware" in (tmp_path / "eurosat.md").read_text()


def test_bars_are_intervals_of_the_mean(rows: Path) -> None:
    assert half_interval([0.80, 0.82, 0.87]) == pytest.approx(4.302653 * statistics.stdev([0.80, 0.82, 0.87]) / 3**0.5)
    assert np.isnan(half_interval([0.8]))
    cells = [cell for cell in cells_of(RowFile(rows).rows()) if cell.method == "fixmatch"]
    figure = accuracy_lines(cells)
    ((segment, *_), *_) = (bars.get_segments() for bars in figure.axes[0].collections)
    values = cells[0].values("oa")
    assert segment[1, 1] - segment[0, 1] == pytest.approx(2 * half_interval(values))
    assert "95% t-interval" in figure.legends[0].get_title().get_text()


def test_every_method_has_its_confusion_matrix(rows: Path) -> None:
    cells = [cell for cell in cells_of(RowFile(rows).rows()) if cell.labels == "5"]
    figure = confusion_panels(cells)
    titles = [ax.get_title(loc="left").split("\n") for ax in figure.axes if ax.axison]
    assert titles == [[cell.method, f"{len(cell.rows)} seed{'s' * (len(cell.rows) > 1)}"] for cell in cells]
    pooled = np.sum([r["metrics"]["confusion"] for r in cells[0].rows], axis=0)
    shown = np.asarray(figure.axes[0].images[0].get_array())
    np.testing.assert_allclose(shown, pooled / pooled.sum(1, keepdims=True))


def test_bins_of_several_seeds_are_pooled_by_their_images() -> None:
    one = [{"low": 14 / 15, "n": 3, "confidence": 0.95, "accuracy": 1.0}]
    other = [
        {"low": 14 / 15, "n": 1, "confidence": 0.99, "accuracy": 0.0},
        {"low": 0.0, "n": 2, "confidence": 0.05, "accuracy": 0.5},
    ]
    np.testing.assert_allclose(pooled_bins([one, other]), [[0.05, 0.5, 2], [0.96, 0.75, 4]])


def test_rows_of_other_tasks_are_told_by_their_own_metric(tmp_path: Path) -> None:
    path = tmp_path / "dubai.json"
    short = {"metrics": {"miou": 0.5}, "task": "segmentation", "dataset": "dubai", "labels_unit": "images"}
    RowFile(path).add([row("fixmatch", 4, 0, 1.0, **short), row("vat", 4, 0, 1.0, metrics={"fid": 3.0})])
    write_tables(path, tmp_path)
    text = (tmp_path / "dubai.md").read_text()
    assert lines_of(text, "Mean IoU, %") == [["method", "4"], ["fixmatch", "50.0 (1 seed)"]]
    assert "Published" not in text


def test_a_file_without_figures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="0 rows found"):
        write_tables(tmp_path / "none.json", tmp_path)


def test_published_figures_are_fractions_with_a_source() -> None:
    for found in PUBLISHED:
        assert found.protocol
        assert found.source
        assert all(0 < value < 1 for value in found.values.values())
    assert len(published_for("EuroSAT RGB", "oa")) == 11
    assert len(published_for("So2Sat-LCZ42", "oa")) == 3
    assert {found.dataset for found in PUBLISHED} <= {entry.name for entry in entries()}
    assert len(published_for("so2sat", "oa")) == 3
    assert published_for("aid", "oa") == ()


def test_published_figures_of_several_labels_are_by_share_and_of_their_task_alone() -> None:
    text = "\n\n".join(published_parts("ucmerced", "multilabel"))
    assert "per class" not in text
    for title, value in (
        ("Macro AUPRC, %**, by share of the images that are labelled", "76.40"),
        ("Macro F1", "60.50"),
    ):
        head, *lines = lines_of(text, title)
        assert head[:5] == ["method", "0.01", "0.05", "0.1", "0.25"]
        assert next(line for line in lines if line[0] == "SSL-MAE")[2] == value
    assert published_parts("ucmerced", "scene") == []
    assert "by labels per class" in "\n".join(published_parts("eurosat", "scene"))


def test_cells_keep_the_order_of_their_seeds() -> None:
    cells = cells_of([row("m", 5, seed, 1.0) for seed in (2, 0, 1)])
    assert [r["seed"] for r in cells[0].rows] == [0, 1, 2]
    assert Cell(Setting("d", "scene", "e", "per_class"), "m", "5", ()).percent("oa") == ""
