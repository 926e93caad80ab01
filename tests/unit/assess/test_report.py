"""The report: complete, self-contained, escaped, strict JSON, whole or not at all."""

from __future__ import annotations

import base64
import json
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from berunda.assess.calibration import calibration_figures, fit_temperature
from berunda.assess.colors import class_colors
from berunda.assess.intervals import bootstrap_interval, paired_bootstrap
from berunda.assess.metrics import score
from berunda.assess.report import summarize_comparison, write_report
from berunda.assess.report_data import (
    CalibrationFacts,
    ClassInfo,
    ComparisonDifference,
    LabelCount,
    LossCurve,
    OodFacts,
    PseudoLabels,
    ReportData,
    ScenePictures,
    TrainingFacts,
)
from berunda.assess.verdicts import to_beware, to_trust
from berunda.errors import OutputError

NAMES = ("farm", "forest", "water")
CLASSES = tuple(ClassInfo(n, c, 100, 1.0) for n, c in zip(NAMES, class_colors(NAMES), strict=True))


class Page(HTMLParser):
    """Collects what the checks look at."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def group_matrices(seed: int = 0) -> np.ndarray:
    """Return (12, 3, 3): water good, forest fair, farm bad and mostly taken for forest."""
    rng = np.random.default_rng(seed)
    rows = np.array([[3, 6, 1], [2, 7, 1], [0, 0.2, 9.8]]) / 10
    out = np.zeros((12, 3, 3), int)
    for g in range(12):
        out[g, g % 3] = rng.multinomial(200, rows[g % 3])
    return out


def scene(rows: int = 40, cols: int = 80) -> ScenePictures:
    rng = np.random.default_rng(0)
    confidence = rng.random((rows, cols)).astype(np.float32)
    confidence[0] = np.nan
    classes = rng.integers(1, 4, (rows, cols)).astype(np.uint8)
    classes[0] = 0
    return ScenePictures(
        name="T33UUU",
        rgb=rng.integers(0, 256, (rows, cols, 3)).astype(np.uint8),
        classes=classes,
        confidence=confidence,
        distance=np.where(np.isnan(confidence), np.nan, 8 * confidence).astype(np.float32),
        parts=rng.integers(0, 4, (rows, cols)).astype(np.uint8),
        test_blocks=np.indices((rows, cols)).sum(0) % 20 < 10,
        pixel_m=20.0,
        bounds=(330_000.0, 5_814_360.0, 345_360.0, 5_822_040.0),
        crs="EPSG:32633",
        facts={"Size": "1536 x 768 px of 10 m"},
    )


def rows(n_seeds: int = 2) -> tuple[dict[str, object], ...]:
    figures = {"random_forest": (0.47, 0.31), "supervised": (0.49, 0.33), "fixmatch": (0.54, 0.38)}
    return tuple(
        {
            "suite": "demo",
            "method": method,
            "labels": 5,
            "labels_unit": "polygons_per_class",
            "seed": seed,
            "metrics": {"oa": oa + 0.01 * seed, "miou": miou + 0.02 * seed},
            "wall_s": 10.0 + seed,
        }
        for method, (oa, miou) in figures.items()
        for seed in range(n_seeds)
    )


def full_data() -> ReportData:
    matrices = group_matrices()
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(0, 2, (300, 3)), rng.integers(0, 3, 300)
    temperature = fit_temperature(logits, labels, np.arange(300) // 30)
    figures = calibration_figures(logits, labels), calibration_figures(logits, labels, temperature.value)
    return ReportData(
        title="Land cover of a test scene",
        classes=CLASSES,
        scenes=(scene(),),
        scores=score(matrices.sum(0), NAMES),
        intervals=bootstrap_interval(matrices),
        confusion=matrices.sum(0),
        comparison=rows(),
        differences=(ComparisonDifference("fixmatch", "supervised", paired_bootstrap(matrices, matrices)),),
        calibration=CalibrationFacts(temperature, *figures),
        ood=OodFacts(6.0, -1.0, 0.25, 0.04, 500, {"AUROC": 0.9}, "Cloudy means bright."),
        training=TrainingFacts(
            "fixmatch",
            "efficientnet_lite0",
            300,
            4800,
            0,
            {"Crop": "64 px"},
            ("ab" * 32,),
            False,
            tuple(LabelCount(n, p, 5, 900) for n in NAMES for p in ("train", "test")),
            (LossCurve("total", (0, 1, 2), (2.0, 1.0, float("nan"))),),
            tuple(PseudoLabels(n, 0.1, 0.876, 0.25 * i) for i, n in enumerate(NAMES)),
            ("training diverged at step 7 of stage 'jem': term 'a' is nan; went back to step 5",),
        ),
        timing={"training": 100.0, "mapping": 20.0},
        warnings=("3 polygons lie outside the scene.",),
        is_transductive=True,
        attribution=("Labels: OpenStreetMap, ODbL.",),
        provenance={"Command": "berunda map"},
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, object]]:
    page, values = write_report(tmp_path_factory.mktemp("report"), full_data())
    return page.read_text(encoding="utf-8"), json.loads(values.read_text(encoding="utf-8"))


def test_returns_after_a_divergence_are_told(written: tuple[str, dict[str, object]]) -> None:
    page, values = written
    training = values["training"]
    assert isinstance(training, dict)
    assert training["returned"] == ["training diverged at step 7 of stage 'jem': term 'a' is nan; went back to step 5"]
    assert "Went back, 1 of 1" in page
    assert "term &#39;a&#39; is nan; went back to step 5." in page


def test_page_needs_nothing_from_outside(written: tuple[str, dict[str, object]]) -> None:
    page = Page(written[0])
    assert not {t for t, _ in page.tags} & {"script", "link", "iframe", "object", "form"}
    for tag, attributes in page.tags:
        for key in ("src", "href", "srcset", "action"):
            value = attributes.get(key)
            assert value is None or value.startswith(("data:image/", "#")), (tag, key)
    outside = re.sub(r"data:image/[^\"]*", "", written[0])
    assert "http" not in outside.replace("http-equiv", "")
    assert "url(" not in outside
    assert "default-src 'none'" in written[0]


def test_every_picture_decodes_and_has_an_alternative_text(written: tuple[str, dict[str, object]]) -> None:
    pictures = [a for t, a in Page(written[0]).tags if t == "img"]
    assert len(pictures) == 8
    for attributes in pictures:
        assert len(attributes["alt"] or "") > 15
        data = base64.b64decode((attributes["src"] or "").split(",", 1)[1], validate=True)
        assert data[:4] in (b"\x89PNG", b"\xff\xd8\xff\xe0") or b"<svg" in data[:600]


def test_page_says_what_a_reader_needs(written: tuple[str, dict[str, object]]) -> None:
    for text in (
        "Land cover of a test scene",
        "Where to be careful",
        "What you can trust",
        "3 polygons lie outside the scene.",
        "transductive",
        "Random forest on pixels",
        "Cloudy means bright.",
        "12 polygons",
        "200 m",
        "EPSG:32633",
        "no data",
        "OpenStreetMap, ODbL",
        "what the method told itself",
        "<td>25.0%</td><td>10%</td><td>88%</td>",
    ):
        assert text in written[0], text


def test_json_holds_the_contract(written: tuple[str, dict[str, object]]) -> None:
    values = written[1]
    assert {"metrics", "comparison", "warnings", "timing", "classes", "training"} <= set(values)
    metrics = values["metrics"]
    assert isinstance(metrics, dict)
    assert 0 <= metrics["oa"] <= 1
    assert metrics["intervals"]["oa"]["low"] <= metrics["oa"] <= metrics["intervals"]["oa"]["high"]
    assert values["comparison"] == [dict(r) for r in rows()]
    assert values["transductive"] is True
    assert values["training"]["fingerprints"] == ["ab" * 32]  # type: ignore[index]
    assert values["training"]["pseudo_labels"][1] == {  # type: ignore[index]
        "class_name": "forest", "believed_first": 0.1, "believed": 0.876, "share": 0.25
    }  # fmt: skip
    assert values["training"]["loss_curves"][0]["values"] == [2.0, 1.0, None]  # type: ignore[index]


def test_summary_of_the_comparison() -> None:
    summary = {s["method"]: s for s in summarize_comparison(rows(3))}
    assert summary["fixmatch"]["metrics"]["miou"]["mean"] == pytest.approx(0.40)
    assert summary["fixmatch"]["metrics"]["miou"]["std"] == pytest.approx(0.02)
    assert summary["fixmatch"]["n_runs"] == 3
    assert summarize_comparison(rows(1))[0]["metrics"]["oa"]["std"] is None


def test_the_least_that_can_be_reported(tmp_path: Path) -> None:
    page, values = write_report(tmp_path, ReportData("Bare", CLASSES))
    assert "nothing is known about the accuracy" in page.read_text()
    assert json.loads(values.read_text())["metrics"]["intervals"] is None


def test_rewriting_gives_equal_bytes(tmp_path: Path) -> None:
    first, _ = write_report(tmp_path / "a", full_data())
    second, _ = write_report(tmp_path / "b", full_data())
    assert first.read_bytes() == second.read_bytes()


def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    evil = '<script>alert(1)</script>"><img src=x onerror=alert(1)>'
    data = full_data()
    classes = (replace(CLASSES[0], name=evil), *CLASSES[1:])
    scores = score(group_matrices().sum(0), (evil, *NAMES[1:]))
    data = replace(
        data,
        title=evil,
        classes=classes,
        scores=scores,
        warnings=(evil,),
        scenes=(replace(data.scenes[0], name=evil, facts={evil: evil}, crs=evil),),
        provenance={evil: evil},
        attribution=(evil,),
    )
    page, _ = write_report(tmp_path, data)
    tags = Page(page.read_text()).tags
    assert "script" not in {t for t, _ in tags}
    assert not any("onerror" in a for _, a in tags)
    with pytest.raises(ValueError, match="invalid literal"):
        write_report(tmp_path, replace(data, classes=(replace(CLASSES[0], color="url(x)"), *CLASSES[1:])))


def test_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"report\.json cannot be written: No space left"):
        write_report(tmp_path, ReportData("Bare", CLASSES))
    assert list(tmp_path.iterdir()) == []


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_report(tmp_path / "file", ReportData("Bare", CLASSES))


def test_verdicts_follow_the_stated_rules() -> None:
    data = full_data()
    trust, beware = to_trust(data), to_beware(data)
    assert any(line.startswith("water:") for line in trust)
    assert any(line.startswith("farm: only") and "taken for forest" in line for line in beware)
    assert any("25% of the map is unlike" in line for line in beware)
    assert not any("water" in line for line in beware)


def test_verdicts_on_absent_classes_and_refits() -> None:
    matrix = np.array([[50, 5, 0], [4, 60, 0], [0, 0, 0]])
    data = ReportData("x", CLASSES, scores=score(matrix, NAMES), training=TrainingFacts("fixmatch", is_refit=True))
    lines = to_beware(data)
    assert "water: no test pixels, so nothing is known about its accuracy." in lines
    assert any("retrained on all labels" in line for line in lines)


def test_too_few_labels_for_calibration_are_told(tmp_path: Path) -> None:
    temperature = fit_temperature(np.zeros((10, 3)), np.arange(10) % 3)
    data = ReportData("x", CLASSES, calibration=CalibrationFacts(temperature))
    assert any(line.startswith("Confidence is not calibrated: 10 held-out") for line in to_beware(data))
    page, _ = write_report(tmp_path, data)
    assert "The temperature was left at 1." in page.read_text()


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (300, 7)])
def test_odd_scenes(tmp_path: Path, shape: tuple[int, int]) -> None:
    page, _ = write_report(tmp_path, replace(full_data(), scenes=(scene(*shape), scene(*shape))))
    assert page.stat().st_size > 10_000


def test_scene_without_any_valid_pixel(tmp_path: Path) -> None:
    empty = np.full((5, 9), np.nan, np.float32)
    blank = replace(scene(5, 9), classes=np.zeros((5, 9), np.uint8), confidence=empty, distance=empty)
    write_report(tmp_path, replace(full_data(), scenes=(blank,)))
