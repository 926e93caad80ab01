"""The script of SSL-MAE for one GPU, with a tiny setting on the processor."""

from __future__ import annotations

import functools
from pathlib import Path
from types import ModuleType

import pytest
import tiny_merced
import torch
from gpu_scripts import rows_of, run_with_few_packages, whole_and_in_pieces
from scripts import load_script

from berunda.bench import piece_options
from berunda.methods import make_method
from berunda.methods.contract import NetSpec
from berunda.models.transformer import VisionTransformer
from berunda.train.config import TrainConfig

SUITE = "ssl_mae_gpu"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    module = load_script("benchmarks/gpu_ssl_mae.py")
    module.bare_bound = functools.partial(module.bare_bound, repeats=1)  # type: ignore[attr-defined]
    return module


@pytest.fixture
def parts(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    archive = tiny_merced.write_archive(tmp_path)
    monkeypatch.setattr(piece_options, "DATA_PART_BYTES", 40_000)
    assert script.main(["--pack", str(tmp_path / "parts"), "--archive", str(archive)]) == 0
    sizes = [path.stat().st_size for path in (tmp_path / "parts").glob("part-*")]
    assert len(sizes) > 1
    assert max(sizes) <= 40_000
    return tmp_path / "parts"


def tiny(parts: Path, folder: Path, *more: str) -> list[str]:
    """Return the arguments of a call that trains short runs on the processor."""
    given = [
        *("--parts", str(parts), "--state", str(folder / "state"), "--out", str(folder / "out")),
        *("--device", "cpu", "--encoder", "vit_mini_patch8", "--image-px", "24", "--workers", "0"),
        *("--steps", "2", "--labelled", "2", "--labels", "0.1", "--seeds", "1"),
    ]
    return [*given, *more]


def test_every_arm_becomes_a_row(script: ModuleType, parts: Path, tmp_path: Path) -> None:
    assert script.main(tiny(parts, tmp_path, "--w", "0.3,0.7")) == 0
    rows = rows_of(tmp_path, SUITE)
    assert {(row["method"], row["variant"]) for row in rows} == {
        ("supervised", ""),
        ("ssl_mae", "w=0.3, weighting=fixed"),
        ("ssl_mae", "w=0.7, weighting=fixed"),
        ("ssl_mae", "weighting=raw"),
        ("ssl_mae", "mu=0.0, weighting=fixed"),
        ("fixmatch", ""),
    }
    for row in rows:
        figures = row["metrics"]
        assert (row["task"], row["labels"], row["labels_unit"], row["n_labelled"]) == ("multilabel", 0.1, "fraction", 6)
        assert 0 < figures["macro_auprc"] <= 1
        assert set(figures["auprc"]) == set(tiny_merced.LABELS)
        assert 0 < row["validation"] <= 1
        assert row["images_per_s"] > 0
        assert figures["share_of_bare"] == pytest.approx(figures["bare_step_s"] / figures["step_s"])
        assert row["image_passes"] == pytest.approx(rows[0]["image_passes"], rel=0.2)
        assert "24 px, from scratch; images of 16 px, 70/10/20" in row["protocol"]


def test_a_run_in_pieces_ends_as_one_that_never_stopped(
    script: ModuleType, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = functools.partial(tiny, parts)
    whole, first, second = whole_and_in_pieces(
        script, lambda folder, *more: given(folder, "--arms", "learned", *more), tmp_path, monkeypatch
    )
    assert rows_of(first, SUITE) == []
    (one,), (other,) = (rows_of(folder, SUITE) for folder in (whole, second))
    assert one["metrics"]["scores"] == other["metrics"]["scores"]
    assert one["setting"] == other["setting"]


@pytest.mark.parametrize(("name", "tokens"), [("ssl_mae", {2}), ("supervised", {9})])
def test_the_bare_step_sees_what_the_method_shows_its_encoder(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, name: str, tokens: set[int]
) -> None:
    seen = []
    attend = VisionTransformer.attend

    def seeing(self: VisionTransformer, given: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(given.shape[:2]))
        return attend(self, given)

    monkeypatch.setattr(VisionTransformer, "attend", seeing)
    spec = NetSpec("multilabel", 3, 4, "vit_mini_patch8", 1, pretrained=False, crop_px=24)
    bound = script.bare_bound(make_method(name), spec, TrainConfig(n_labelled=2, device="cpu"))
    assert {shape[1] for shape in seen} == tokens
    assert {shape[0] for shape in seen} == {bound.images.trained} == {4 if name == "ssl_mae" else 2}
    assert bound.trained_s > 0


def test_few_packages_are_enough(parts: Path, tmp_path: Path) -> None:
    assert "all runs are done" in run_with_few_packages("gpu_ssl_mae.py", tiny(parts, tmp_path, "--arms", "fixed"))


def test_wrong_input_is_told(
    script: ModuleType, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for more, told in (
        (("--arms", "fixd"), "--arms: found 'fixd', expected of supervised, fixed"),
        (("--image-px", "30"), "patches of 8 px divide"),
        (("--minutes", "0.2"), "--minutes 0.2: expected more than 0.3"),
        (("--option", "jem.rho=1"), "expected an option of a method that is compared"),
    ):
        assert script.main(tiny(parts, tmp_path, *more)) == 1
        assert told in capsys.readouterr().err
    assert script.main(["--pack", str(tmp_path / "p"), "--archive", str(tmp_path / "nowhere" / "x.zip")]) == 1
    assert "x.zip: not found" in capsys.readouterr().err
