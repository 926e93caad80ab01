"""The benchmark of images unlike the training ones, with tiny data: rows, resumption, held-out classes, bundles."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from scripts import load_script
from tiny_eurosat import write_archive

from berunda.bench.rows import RowFile
from berunda.data.catalog.ucmerced import UCMerced
from berunda.data.images import ImageSet, open_images


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("benchmarks/classify_ood.py")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Write EuroSAT at 16 px and UC Merced at 32 px."""
    eurosat, merced = tmp_path_factory.mktemp("eurosat"), tmp_path_factory.mktemp("merced")
    write_archive(eurosat)
    rng = np.random.default_rng(1)
    for name in UCMerced.classes:
        (merced / name).mkdir()
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(merced / name / f"{name}00.png")
    return eurosat, merced


@pytest.fixture
def images(folders: tuple[Path, Path], tmp_path: Path) -> ImageSet:
    return open_images("eurosat", folder=folders[0], cache=tmp_path)


def test_what_is_held_out_is_what_the_net_is_told_from(script: ModuleType, images: ImageSet) -> None:
    merced = images
    sets = script.outside(images, ("Forest", "SeaLake"), merced)
    assert {name.split("/")[0] for name in sets["held-out classes"].names} == {"Forest", "SeaLake"}
    assert set(script.outside(images, (), merced)) == {"UC Merced"}


def test_runs_become_rows_and_a_table(
    script: ModuleType, folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "eurosat_ood.json"
    given = [
        *("--data", str(folders[0]), "--merced", str(folders[1]), "--results", str(results)),
        *("--method", "supervised", "--labels", "2", "--seeds", "1", "--steps", "2", "--device", "cpu"),
        *("--encoder", "wide_resnet28_2", "--held-out", "Forest,SeaLake"),
    ]
    assert script.main(given) == 0
    rows = {row["variant"]: row for row in RowFile(results).rows()}
    assert set(rows) == {"all classes", "without Forest, SeaLake"}
    assert set(rows["all classes"]["metrics"]["ood"]) == {"UC Merced"}
    held = rows["without Forest, SeaLake"]
    assert set(held["metrics"]["ood"]) == {"UC Merced", "held-out classes"}
    assert (held["metrics"]["n_test"], held["ood_k"]) == (16, 10)
    scores = held["metrics"]["ood"]["held-out classes"]
    assert set(scores) == {"msp", "max_logit", "energy", "knn", "mahalanobis"}
    assert all(0 <= value <= 1 for figures in scores.values() for value in figures.values())
    for name, against in (("UC Merced", "uc_merced"), ("held-out classes", "held_out_classes")):
        for score, figures in held["metrics"]["ood"][name].items():
            for figure, value in figures.items():
                assert held["metrics"][f"{figure}_{score}_against_{against}"] == value
    names = rows["all classes"]["metrics"]
    assert {"auroc_max_logit_against_uc_merced", "fpr95_knn_against_uc_merced"} <= set(names)
    assert not any("held_out" in name for name in names)
    before = results.read_bytes()
    assert script.main(given) == 0
    assert results.read_bytes() == before
    for row in rows.values():
        assert 0 < row["training_s"] < row["wall_s"]
        assert row["setting"]["steps"] == 2
    capsys.readouterr()
    assert script.main([*given, "--steps", "3"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert "trained otherwise: steps 2 (now 3)" in told
    assert told.count("\n") == 1
    assert results.read_bytes() == before
    assert {"eurosat_ood.csv", "eurosat_ood.md", "eurosat_ood_confusion_2.png"} <= {p.name for p in tmp_path.iterdir()}
    lines = (tmp_path / "eurosat_ood.md").read_text().splitlines()
    line = next(text for text in lines if "held-out classes | knn" in text)
    assert f"{100 * scores['knn']['auroc']:.1f} (1 seed)" in line


def test_options_of_the_method_name_a_row_of_their_own(
    script: ModuleType, folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "eurosat_ood.json"
    given = [
        *("--data", str(folders[0]), "--merced", str(folders[1]), "--results", str(results)),
        *("--method", "pseudo_label", "--labels", "2", "--seeds", "1", "--steps", "1", "--device", "cpu"),
        *("--encoder", "wide_resnet28_2", "--held-out", "Forest"),
    ]
    assert script.main([*given, "--option", "threshold=0.5", "--option", "mu=2"]) == 0
    assert script.main([*given, "--option", "mu=3"]) == 0
    rows = {row["variant"]: row for row in RowFile(results).rows()}
    ways = ("all classes", "without Forest")
    assert set(rows) == {f"{own}; {way}" for own in ("mu=2, threshold=0.5", "mu=3") for way in ways}
    assert rows["mu=2, threshold=0.5; all classes"]["setting"]["method_options"] == {"threshold": 0.5, "mu": 2}
    assert rows["mu=3; all classes"]["image_passes"] > rows["mu=2, threshold=0.5; all classes"]["image_passes"]
    capsys.readouterr()
    assert script.main([*given, "--option", "muu=3"]) == 1
    assert "option 'muu' is unknown" in capsys.readouterr().err
    assert script.main([*given, "--option", "mu"]) == 1
    assert "'mu' is not of the form name=value" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        script.main([*given, "--option", "mu=3", "--bundle", str(tmp_path)])
