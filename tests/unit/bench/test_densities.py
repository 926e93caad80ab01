"""The benchmark of log p(x): rows of two models over three sets, what agreement means, the picture, what is refused."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from scripts import load_script
from tiny_eurosat import write_archive
from toy_patches import drawing_bundle, write_folder

from berunda.assess.generation import histogram_divergence
from berunda.bench.rows import RowFile
from berunda.data.scaling import scale_pixels
from berunda.mapping.bundle import save_bundle
from berunda.mapping.patches import ScenePredictor


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("benchmarks/densities.py")


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two bundles, a tiny EuroSAT and a folder of other images."""
    monkeypatch.setenv("BERUNDA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "eurosat").mkdir()
    write_archive(tmp_path / "eurosat")
    write_folder(tmp_path / "other", 5)
    save_bundle(tmp_path / "jem", drawing_bundle("jem"))
    save_bundle(tmp_path / "joint", drawing_bundle("fixmatch_jem"))
    return [
        *(f"full={tmp_path / 'jem'}", f"few={tmp_path / 'joint'}", "--data", str(tmp_path / "eurosat"), "--n", "30"),
        *("--outside", str(tmp_path / "other"), "--device", "cpu", "--results", str(tmp_path / "densities.json")),
    ]


def test_models_become_rows_and_a_picture(script: ModuleType, given: list[str], tmp_path: Path) -> None:
    assert script.main(given) == 0
    rows = {row["variant"]: row for row in RowFile(tmp_path / "densities.json").rows()}
    assert {name: row["method"] for name, row in rows.items()} == {"full": "jem", "few": "fixmatch_jem"}
    full, few = rows["full"]["metrics"], rows["few"]["metrics"]
    assert (full["n_training"], full["n_test"], full["n_other"]) == (30, 20, 15)
    assert {"kl_test", "kl_other"} <= full.keys() & few.keys()
    assert not any("rank_agreement" in name for name in full)
    # both bundles have the same random weights: they agree wholly
    assert few["rank_agreement_other"] == pytest.approx(1)
    assert few["kl_to_first_other"] == pytest.approx(0)
    assert few["kl_other"] == full["kl_other"] > 0
    with Image.open(tmp_path / "densities.png") as picture:
        assert picture.size[0] > 600


def test_log_p_is_the_negative_energy_of_single_views(script: ModuleType, given: list[str], tmp_path: Path) -> None:
    options = script._parsed(given)
    bundle = script.opened(tmp_path / "jem")
    found = script.densities(bundle, script.sets_of(options), "cpu")
    files = sorted((tmp_path / "other").rglob("*.png"))
    pixels = np.stack([np.asarray(Image.open(file), np.float32).transpose(2, 0, 1) for file in files])
    predictor = ScenePredictor(bundle, n_symmetries=1)
    scaled = np.stack([scale_pixels(image, np.ones((16, 16), bool), *predictor.scaling) for image in pixels])
    logits = predictor.predict(scaled).logits
    np.testing.assert_allclose(np.sort(found["other"]), np.sort(np.log(np.exp(logits).sum(1))), rtol=1e-4)
    assert script.divergences(found)["other"] == histogram_divergence(found["other"], found["training"])


def test_a_constant_does_not_count_between_models(script: ModuleType) -> None:
    draw = np.random.default_rng(0)
    one = {"training": draw.normal(size=200), "test": draw.normal(1, 1, 200)}
    other = {name: values + 50 for name, values in one.items()}
    for name in one:
        np.testing.assert_allclose(script.centred(one)[name], script.centred(other)[name])


def test_models_without_a_density_are_refused(
    script: ModuleType, given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_bundle(tmp_path / "vae", drawing_bundle("vae"))
    assert script.main([f"vae={tmp_path / 'vae'}", *given[2:]]) == 1
    assert "method with log p(x): fixmatch_jem, jem, segjem" in capsys.readouterr().err
    assert script.main([str(tmp_path / "jem"), *given[2:]]) == 1
    assert "expected NAME=DIR" in capsys.readouterr().err
    assert not (tmp_path / "densities.json").exists()
