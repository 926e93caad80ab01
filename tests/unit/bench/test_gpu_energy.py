"""The script of JEM and its kin for one GPU, with a tiny setting on the processor."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import tiny_eurosat
import tiny_merced
from gpu_scripts import rows_of, run_with_few_packages, whole_and_in_pieces
from PIL import Image
from scripts import load_script

from berunda.bench.experiment import Job

SUITE = "energy_gpu"
ENCODER = "wide_resnet10_1_no_norm"
GENERATIVE = {"jem", "jem++", "sada", "joint", "pipeline"}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("benchmarks/gpu_energy.py")


@pytest.fixture(scope="module")
def parts(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("energy")
    (folder / "merced").mkdir()
    outside = tiny_merced.write_archive(folder / "merced", side_px=32, n_per_class=1)
    given = ["--archive", str(tiny_eurosat.write_archive(folder)), "--outside", str(outside)]
    assert script.main(["--pack", str(folder / "parts"), *given]) == 0
    return folder / "parts"


def tiny(parts: Path, folder: Path, *more: str) -> list[str]:
    """Return the arguments of a call that trains short runs on the processor."""
    given = [
        *("--parts", str(parts), "--state", str(folder / "state"), "--out", str(folder / "out")),
        *("--device", "cpu", "--encoder", ENCODER, "--workers", "0", "--samples", "2"),
        *("--steps", "10", "--labelled", "2", "--labels", "1", "--seeds", "1"),
    ]
    return [*given, *more]


def test_every_arm_becomes_a_row(script: ModuleType, parts: Path, tmp_path: Path) -> None:
    assert script.main(tiny(parts, tmp_path)) == 0
    rows = {(row["method"], row["variant"]): row for row in rows_of(tmp_path, SUITE)}
    arms = {(arm.method, arm.variant): (name, arm) for name, (arm,) in script.ARMS.items()}
    assert set(rows) == set(arms)
    for key, row in rows.items():
        name, arm = arms[key]
        figures, generates = row["metrics"], name in GENERATIVE
        assert {"oa", "ece", "ece_before", "step_s", "drawn_images_per_s"} <= set(figures)
        assert figures["ood"]["UC Merced"]["energy"]["auroc"] == figures["auroc_energy_against_uc_merced"]
        assert ("frechet_efficientnet_lite0" in figures) == generates
        assert figures["returned"] == 0
        assert (tmp_path / "out" / f"samples-{Job(arm, 1, 0).name(ENCODER)}.png").is_file() == generates
        assert row["setting"]["samples"] == 2
        assert len(row["setting"]["outside"]) == 16
    sampled = rows["jem", "variant=sada"]["metrics"]
    assert (sampled["n_generated"], sampled["n_real"]) == (20, 20)
    with Image.open(next((tmp_path / "out").glob("samples-*sada*.png"))) as picture:
        assert picture.size == (2 * 16, 10 * 16)


@pytest.mark.parametrize("arm", ["sada", "pipeline"])
def test_a_run_in_pieces_ends_as_one_that_never_stopped(
    script: ModuleType, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arm: str
) -> None:
    whole, first, second = whole_and_in_pieces(
        script, lambda folder, *more: tiny(parts, folder, "--arms", arm, *more), tmp_path, monkeypatch
    )
    assert rows_of(first, SUITE) == []
    (one,), (other,) = (rows_of(folder, SUITE) for folder in (whole, second))
    told = ("oa", "nll_before", "ood", "frechet_efficientnet_lite0", "kernel_efficientnet_lite0")
    assert {name: one["metrics"][name] for name in told} == {name: other["metrics"][name] for name in told}
    (picture,) = (whole / "out").glob("*.png")
    assert (second / "out" / picture.name).read_bytes() == picture.read_bytes()
    assert script.main(tiny(parts, tmp_path / "third", "--arms", arm, "--before", str(second / "out"))) == 0
    assert (tmp_path / "third" / "out" / picture.name).read_bytes() == picture.read_bytes()


def test_samples_are_shown_a_class_a_row(script: ModuleType, tmp_path: Path) -> None:
    images = np.full((2, 3, 3, 4, 4), -1.0, np.float32)
    images[1, 2] = 5.0  # beyond what a picture can show
    (tmp_path / "grid.png").write_bytes(script.grid_png(images))
    with Image.open(tmp_path / "grid.png") as picture:
        shown = np.asarray(picture)
    assert shown.shape == (8, 12, 3)
    assert (shown[4:, 8:] == 255).all()
    assert shown.sum() == 255 * 4 * 4 * 3


def test_few_packages_are_enough(parts: Path, tmp_path: Path) -> None:
    assert "all runs are done" in run_with_few_packages("gpu_energy.py", tiny(parts, tmp_path, "--arms", "sada"))


def test_what_decides_figures_is_part_of_the_setting(
    script: ModuleType, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(tiny(parts, tmp_path, "--arms", "supervised", "--samples", "0")) == 0
    assert script.main(tiny(parts, tmp_path, "--arms", "sada")) == 1
    assert "trained otherwise: samples 0 (now 2)" in capsys.readouterr().err
