"""The suites of energy-based classifiers on tiny data: their arms, unlike images, samples, and runs that diverge."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_eurosat import write_archive

from berunda.api import bench_runs, bench_verb
from berunda.api.bench_verb import bench
from berunda.bench.rows import RowFile
from berunda.bench.suite import Suite
from berunda.bench.suites import load_suite
from berunda.bench.suites.eurosat_energy import BEST
from berunda.bench.suites.eurosat_energy_held_out import HELD_OUT_CLASSES
from berunda.data.catalog.ucmerced import UCMerced
from berunda.errors import ConfigError, DivergedError
from berunda.methods import make_method
from berunda.options.bench import BenchOptions

NAMES = ("eurosat_energy", "eurosat_energy_held_out")
QUICK: dict[str, Any] = {"labels": "2", "seeds": 1, "steps": 2, "n_labelled": 4, "image_px": 16, "device": "cpu"}
JEM = {"methods": "jem", "variant": "variant=sada", "method_options": ["jem.n_steps=1", "jem.replay=16"]}


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write EuroSAT at 16 px and UC Merced at 32 px where they are looked for."""
    monkeypatch.setenv("BERUNDA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("BERUNDA_DATA", str(tmp_path / "data"))
    eurosat, merced = tmp_path / "data" / "eurosat_rgb", tmp_path / "data" / "ucmerced"
    eurosat.mkdir(parents=True)
    write_archive(eurosat)
    rng = np.random.default_rng(1)
    for name in UCMerced.classes:
        (merced / name).mkdir(parents=True)
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(merced / name / f"{name}00.png")


@pytest.fixture
def few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_verb, "load_suite", lambda name: small(load_suite(name)))


def small(suite: Suite) -> Suite:
    return replace(suite, n_samples=min(suite.n_samples, 12))


def run(out: Path, suite: str = NAMES[0], **changes: Any) -> list[dict[str, Any]]:
    bench(BenchOptions(suite=suite, **{**QUICK, **changes}), out)
    return RowFile(out / f"{suite}.json").rows()


@pytest.mark.parametrize("name", NAMES)
def test_every_arm_is_a_method_with_options_that_exist(name: str) -> None:
    suite = load_suite(name)
    for arm in suite.arms:
        assert "scene" in make_method(arm.method, arm.options).needs().tasks
    assert len({str(arm) for arm in suite.arms}) == len(suite.arms)
    options = BenchOptions(suite=name, **suite.options)
    assert options.encoder.endswith("_no_norm")
    with_many = {arm.method for arm in suite.arms if "100" in arm.labels}
    assert with_many == (set() if suite.held_out else {"supervised", "fixmatch", "jem", "fixmatch_jem"})


def test_rows_hold_unlikeness_samples_and_the_options_of_the_suite(tmp_path: Path, few_samples: None) -> None:
    (row,) = run(tmp_path / "out", **JEM)
    metrics = row["metrics"]
    assert set(metrics["ood"]) == {"UC Merced"}
    for figure, value in metrics["ood"]["UC Merced"]["energy"].items():
        assert metrics[f"{figure}_energy_against_uc_merced"] == value
    assert {"oa", "ece", "ece_before"} <= set(metrics)
    assert row["encoder"] == "wide_resnet10_1_no_norm"
    assert not any(name.endswith("_single_view") for name in metrics)
    assert (metrics["n_generated"], metrics["n_real"], metrics["n_subset"]) == (12, 12, 6)
    for name in ("frechet_efficientnet_lite0", "kernel_efficientnet_lite0_deviation"):
        assert metrics[name] > 0
    assert metrics["frechet_efficientnet_lite0_of_training"] < metrics["frechet_efficientnet_lite0"]
    assert row["returned"] == []
    assert row["setting"]["n_samples"] == 12
    assert "against as many test images in features of efficientnet_lite0" in row["protocol"]
    page = (tmp_path / "out" / "eurosat_energy.md").read_text()
    assert "neither FID nor KID" in page
    assert "12, 12, 6 |" in page
    assert "on the validation images, %" in page
    assert "times it went back" not in page


def test_methods_that_generate_nothing_have_no_samples(tmp_path: Path, few_samples: None) -> None:
    (row,) = run(tmp_path / "out", methods="supervised")
    assert "samples_encoder" not in row["metrics"]
    assert "energy" in row["metrics"]["ood"]["UC Merced"]
    assert "Generated images" not in (tmp_path / "out" / "eurosat_energy.md").read_text()


def test_held_out_classes_have_a_training_and_a_table_of_their_own(tmp_path: Path) -> None:
    (row,) = run(tmp_path / "out", NAMES[1], methods="supervised")
    assert row["dataset"] == f"7 classes of eurosat, without {', '.join(HELD_OUT_CLASSES)}"
    assert not set(HELD_OUT_CLASSES) & set(row["metrics"]["recall"])
    assert len(row["metrics"]["recall"]) == 7
    assert set(row["metrics"]["ood"]) == {"UC Merced", "held-out classes"}
    assert 0 <= row["metrics"]["auroc_energy_against_held_out_classes"] <= 1
    assert "Published on" not in (tmp_path / "out" / f"{NAMES[1]}.md").read_text()


def test_a_variant_is_chosen_by_name_and_the_command_of_a_row_makes_it_alone(
    tmp_path: Path, few_samples: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned: list[Any] = []
    monkeypatch.setattr(bench_runs.Bench, "run", lambda self, _: planned.append(self))
    options = BenchOptions(suite=NAMES[0], methods="jem", variant="variant=jem", **QUICK)
    bench(options, tmp_path / "out")
    (case,) = planned[0].cases
    assert str(case) == "jem variant=jem, labels 2 per class, seed 0"
    command = planned[0]._command(case)
    assert "--variant variant=jem" in command
    assert "--encoder wide_resnet10_1_no_norm" in command
    with pytest.raises(ConfigError, match=r"--variant: found 'x', expected one of: variant=jem; variant=jem\+\+; "):
        bench(BenchOptions(suite=NAMES[0], methods="jem", variant="x", **QUICK), tmp_path / "out")


def test_options_of_a_variant_are_searched_over_by_the_name_of_its_arm(
    tmp_path: Path, few_samples: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned: list[Any] = []
    monkeypatch.setattr(bench_runs.Bench, "run", lambda self, _: planned.append(self))
    chosen = {"methods": "jem", "variant": "variant=sada", "search": ["jem.n_steps=1:2"]}
    bench(BenchOptions(suite=NAMES[0], **QUICK, **chosen), tmp_path / "out")
    (case,) = planned[0].cases
    assert case.arm.variant == "variant=sada, n_steps searched"
    named = {"variant": case.arm.variant, "method_options": ["jem.variant=sada"]}
    bench(BenchOptions(suite=NAMES[0], **QUICK, **{**chosen, **named}), tmp_path / "out")
    assert planned[1].cases == planned[0].cases, "as the row's command has it"


def test_other_unlike_images_are_another_table(tmp_path: Path, few_samples: None) -> None:
    run(tmp_path / "out", methods="supervised")
    extra = tmp_path / "data" / "ucmerced" / UCMerced.classes[0]
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(extra / f"{UCMerced.classes[0]}01.png")
    with pytest.raises(ConfigError, match=r"trained otherwise: UC Merced [0-9a-f]{16} \(now [0-9a-f]{16}\)"):
        run(tmp_path / "out", methods="supervised", seeds=2)


def test_runs_that_diverge_are_in_the_table_until_they_do_not(
    tmp_path: Path, few_samples: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = bench_runs.Bench._result

    def fails(self: Any, case: Any, *given: Any) -> Any:
        if case.method == "fixmatch":
            raise DivergedError("the loss is not finite")
        return result(self, case, *given)

    out, given = tmp_path / "out", {"methods": "fixmatch,supervised"}
    with monkeypatch.context() as patch:
        patch.setattr(bench_runs.Bench, "_result", fails)
        assert [row["method"] for row in run(out, **given)] == ["supervised"]
    line = "| fixmatch, labels 2 per class, seed 0, wide_resnet10_1_no_norm |"
    assert f"{line} the loss is not finite |" in (out / "eurosat_energy.md").read_text()
    assert len(run(out, **given)) == 2
    assert "Runs that diverged" not in (out / "eurosat_energy.md").read_text()


def test_a_run_that_went_back_is_counted(tmp_path: Path, few_samples: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from berunda.api import scene_fit
    from berunda.api.fit import train_or_resume

    def returned(*given: Any) -> Any:
        return replace(train_or_resume(*given), returned=("went back", "went back"))

    monkeypatch.setattr(scene_fit, "train_or_resume", returned)
    (row,) = run(tmp_path / "out", **JEM)
    assert row["returned"] == ["went back", "went back"]
    page = (tmp_path / "out" / "eurosat_energy.md").read_text()
    assert "| times it went back |" in page


def test_the_best_variant_is_one_of_those_compared() -> None:
    assert BEST in [arm.options for arm in load_suite(NAMES[0]).arms if arm.method == "jem"]
