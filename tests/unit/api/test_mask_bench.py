"""What a benchmark on images with masks plans (arms, passes, draws, commands), refuses, and goes on after."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_masks import NAMES, write_folder, write_png

from berunda import api
from berunda.api import mask_arms, mask_bench
from berunda.api.bench_verb import bench
from berunda.api.mask_arms import arms_of, with_weights
from berunda.api.mask_bench import MaskBench, MaskCase
from berunda.api.mask_budget import supervised_settings
from berunda.api.mask_fit import MaskNet
from berunda.api.outcome import BenchOutcome
from berunda.bench.rows import RowFile
from berunda.bench.suite import MASK_FLOORS, Arm, Suite
from berunda.bench.suites import load_suite, suite_names
from berunda.cli.main import main
from berunda.data.images import VALIDATION
from berunda.data.masks.draw import draw_masks
from berunda.data.masks.images import MaskSet, open_masks
from berunda.errors import ConfigError, DataError, DivergedError, FetchError, OutputError
from berunda.methods import make_method
from berunda.models.build import build_net
from berunda.options.bench import BenchOptions
from berunda.progress import Silent
from berunda.train.config import TrainConfig
from berunda.train.passes import equal_settings, image_passes, passes_per_step, with_passes

QUICK: dict[str, Any] = {"steps": 2, "n_labelled": 2, "crop_px": 32, "device": "cpu", "pretrained": False}
MASK_SUITES = [
    name for name in suite_names() if load_suite(name).arms and load_suite(name).task in (None, "segmentation")
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERUNDA_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def masks(tmp_path: Path) -> MaskSet:
    return open_masks(str(write_folder(tmp_path / "set", n=10)))


def options_of(suite: str = "folder", **changes: Any) -> BenchOptions:
    return BenchOptions(**{**QUICK, "suite": suite, "data": "set", **changes})


def planned(masks: MaskSet, out: Path, options: BenchOptions, suite: Suite | None = None) -> MaskBench:
    return MaskBench.planned(options, suite or load_suite(options.suite), masks, out, out / "work")


@pytest.mark.parametrize("name", MASK_SUITES)
def test_every_arm_of_every_suite_builds(name: str) -> None:
    """With each arm's method, options, decoder, encoder and the extra parts that the method adds."""
    for arm in arms_of(options_of(name), load_suite(name)):
        if arm.method in MASK_FLOORS:
            continue
        method = make_method(arm.method, arm.options)
        decoder: Any = arm.decoder or None
        net = MaskNet(arm.encoder or "efficientnet_lite0", None, False, 96, decoder)
        drawn: Any = type("Drawn", (), {"masks": type("Masks", (), {"bands": "rgb"}), "classes": NAMES})
        spec = net.spec(drawn, method)
        assert spec.decoder == (arm.decoder or method.needs().decoder)
        built = method.build(spec) if arm.decoder != "segnet" else _small_segnet(spec)
        method.init(built, spec)


def _small_segnet(spec: Any) -> Any:
    """SegNet has its published form; its weights are not needed here, so that a smaller VGG stands for it."""
    assert (spec.encoder, spec.encoder_depth, spec.pixel_path) == ("vgg16_bn", 5, False)
    return build_net(replace(spec, encoder="vgg11_bn", encoder_depth=2))


def test_the_suite_of_architectures_has_both_nets_in_every_form() -> None:
    arms = arms_of(options_of("architectures"), load_suite("architectures"))
    for decoder in ("unet", "segnet"):
        found = {(a.method, a.options.get("split"), a.options.get("aux")) for a in arms if a.decoder == decoder}
        auxiliary = {(s, aux) for s in ("early", "late") for aux in ("l1", "kmeans")}
        assert found == {
            ("supervised", None, None),
            *(("berunda", s, aux) for s, aux in auxiliary),
            *(("wnet", None, aux) for aux in ("l1", "kmeans")),
        }


@pytest.mark.parametrize(
    ("arm", "told"),
    [
        (Arm("berunda", {"aux": "l3"}), "'l3', expected one of l1"),
        (Arm("supervised", decoder="unett"), "decoder 'unett' is unknown"),
        (Arm("berundaa"), "berundaa"),
    ],
)
def test_a_wrong_arm_of_a_suite_is_an_error(arm: Arm, told: str) -> None:
    suite = Suite("s", "", "", (), (), task="segmentation", arms=(arm, Arm("supervised")), mask_labels=("1",))
    with pytest.raises(ConfigError, match=told):
        arms_of(options_of(), suite)


@pytest.mark.parametrize(
    ("methods", "option", "told"),
    [
        (None, "fixmtach.mu=3", "found 'fixmtach.mu', expected .* did you mean 'fixmatch'"),
        (
            None,
            "vat.xi=3",
            "found 'vat.xi', expected an option of a method that is compared: random_forest, supervised",
        ),
        ("random_forest", "random_forest.trees=3", "'random_forest' is a floor, which has no options"),
    ],
)
def test_options_that_change_nothing_are_refused(methods: str | None, option: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        arms_of(options_of(methods=methods, method_options=[option]), load_suite("folder"))


@pytest.mark.parametrize("methods", [None, "supervised,fixmatch", "supervised"])
def test_the_supervised_net_comes_with_both_batches(methods: str | None, masks: MaskSet, tmp_path: Path) -> None:
    made = planned(masks, tmp_path, options_of(methods=methods, labels="2", seeds=1))
    settings = {str(case.arm): made.settings_of(case) for case in made.cases if case.arm.method == "supervised"}
    large, small = settings["supervised"], settings["supervised small batch"]
    assert (large.steps, small.n_labelled) == (made.base.steps, made.base.n_labelled)
    for one in (large, small):
        assert one.steps * one.n_labelled == pytest.approx(made.budget, rel=0.05)
    assert small.steps > 5 * large.steps


def test_all_arms_cost_as_many_passes(masks: MaskSet, tmp_path: Path) -> None:
    options = options_of("losses", labels="2", seeds=1, steps=50, method_options=["berunda.mu=0"])
    made = planned(masks, tmp_path, options)
    nets = [case for case in made.cases if case.arm.method not in MASK_FLOORS]
    assert {case.arm.small_batch for case in nets if case.arm.method == "berunda"} == {False, True}
    for case in nets:
        method = make_method(case.arm.method, case.arm.options)
        assert image_passes(method, made.settings_of(case)) == pytest.approx(made.budget, rel=0.05), case


def test_labelled_images_that_cost_two_passes_are_half_as_many() -> None:
    settings = TrainConfig(steps=10, n_labelled=4)
    assert with_passes(settings, 40.0, 2.0).n_labelled == 20
    method = make_method("wnet", {"mu": 0.0})
    equal = equal_settings(method, settings, 400.0)
    assert equal.steps * passes_per_step(method, equal.n_labelled) == 400


def test_equal_ways_to_train_are_one() -> None:
    settings = TrainConfig(steps=10, n_labelled=4)
    assert list(supervised_settings(make_method("supervised"), settings, 40.0)) == [""]
    assert list(supervised_settings(make_method("supervised"), settings, 400.0)) == ["", "small batch"]


@pytest.mark.parametrize(
    ("suite", "changes"),
    [
        ("folder", {"methods": "random_forest,supervised,fixmatch", "labels": "1,2"}),
        ("folder", {"labels": "0.5,2", "method_options": ["fixmatch.mu=2"], "frozen_stages": None}),
        ("losses", {"method_options": ["berunda.mu=2"], "labels": "2", "seed": 5}),
        ("architectures", {"labels": "2"}),
        ("lambdas", {"labels": "2", "decoder": "unet"}),
        ("sites", {}),
    ],
)
def test_the_command_of_a_row_plans_this_run_alone(
    suite: str, changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for site in ("North", "South"):
        write_folder(tmp_path / "set" / site, n=6)
    (tmp_path / "set" / "classes.csv").write_text((tmp_path / "set" / "North" / "classes.csv").read_text())
    masks = open_masks(str(tmp_path / "set"))
    made = planned(masks, tmp_path, options_of(suite, seeds=1, **changes))
    assert made.cases
    for case in made.cases:
        words = shlex.split(made._command(case))
        assert words[:3] == ["berunda", "bench", suite]
        again = planned(masks, tmp_path, parsed(words[1:], monkeypatch))
        assert [again._key(one) for one in again.cases] == [made._key(case)]
        if case.arm.method not in MASK_FLOORS:
            assert again.settings_of(again.cases[0]) == made.settings_of(case)
            assert again._net(again.cases[0]) == made._net(case)


def parsed(words: list[str], monkeypatch: pytest.MonkeyPatch) -> BenchOptions:
    """Return the options that a command line hands to the benchmark."""
    seen: list[BenchOptions] = []

    def see(options: BenchOptions, out: Path, **_: Any) -> BenchOutcome:
        seen.append(options)
        return BenchOutcome(out, (), 0, 0)

    monkeypatch.setattr(api, "bench", see)
    assert main([*words, "--quiet"]) == 0
    return seen[0]


def test_a_variant_that_is_not_there_is_told(masks: MaskSet, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--variant: found 'big', expected one of: default; small batch"):
        planned(masks, tmp_path, options_of(methods="supervised", labels="2", variant="big"))


@pytest.mark.parametrize(
    "changes", [{"image_px": 64}, {"skip_broken": True}, {"symmetries": 8}, {"image_px": 64, "symmetries": 1}]
)
def test_options_for_whole_images_are_refused(changes: dict[str, Any], masks: MaskSet, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        bench(options_of(**changes, data=str(tmp_path / "set")), tmp_path / "out")
    for name in changes:
        assert f"--{name.replace('_', '-')}" in str(caught.value)


def test_frozen_stages_reach_the_net(masks: MaskSet, tmp_path: Path) -> None:
    made = planned(masks, tmp_path, options_of(methods="supervised", labels="2", frozen_stages=2, pretrained=True))
    case = made.cases[0]
    spec = made._net(case).spec(made._drawn(case), make_method("supervised"))
    assert (spec.frozen_stages, made._setting()["frozen_stages"]) == (2, 2)


def test_no_image_without_mask_is_an_error_where_the_number_was_named(masks: MaskSet, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the unlabelled split is empty: all 6 training images"):
        planned(masks, tmp_path, options_of(methods="supervised,fixmatch", labels="2,all"))
    made = planned(masks, tmp_path, options_of(seeds=1))  # the suite's own numbers: 1, 4, all
    left = {str(case.arm) for case in made.cases if case.labels == "all"}
    assert left == {"random_forest", "supervised", "supervised small batch"}
    assert any("fixmatch with all labels is left out" in note for note in made.notes)
    assert {str(case.arm) for case in made.cases if case.labels == 4} == {*left, "fixmatch"}


def test_a_site_alone_is_calibrated_by_its_own_images(tmp_path: Path) -> None:
    for site in ("North", "South"):
        write_folder(tmp_path / "set" / site, n=10)
    (tmp_path / "set" / "classes.csv").write_text((tmp_path / "set" / "North" / "classes.csv").read_text())
    masks = mask_bench.within_sites(open_masks(str(tmp_path / "set")))
    drawn = draw_masks(masks, "all", "images", 0, sites=["North"])
    assert len(drawn.validation) == 2
    for index in (drawn.train, drawn.validation):
        assert {masks.sites[i] for i in index} == {"North"}
    assert {masks.sites[i] for i in drawn.test} == {"North", "South"}


def test_void_test_masks_are_told_before_training(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", parts={"train": 3, "test": 2})
    for path in sorted((folder / "test" / "masks").iterdir()):
        write_png(path, np.zeros((48, 48, 3), np.uint8))
    masks = open_masks(str(folder))
    with pytest.raises(DataError, match="2 test images have masks without a labelled pixel found"):
        draw_masks(masks, 1, "images", 0)


def test_void_masks_count_for_nothing(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", parts={"train": 4, "validation": 2, "test": 3})
    for part in ("train", "validation", "test"):
        write_png(min((folder / part / "masks").iterdir()), np.zeros((48, 48, 3), np.uint8))
    drawn = draw_masks(open_masks(str(folder)), "all", "images", 0)
    assert (len(drawn.train), len(drawn.validation), len(drawn.test)) == (3, 1, 2)
    assert len(drawn.masks.of(VALIDATION)) == 2


def test_weights_that_cannot_be_had_are_done_without_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(spec: Any) -> Any:
        asked.append(spec.encoder)
        raise FetchError("encoder 'vgg16_bn': its pretrained weights cannot be fetched")

    monkeypatch.setattr(mask_arms, "build_net", refuse)
    suite = load_suite("architectures")
    arms, notes = with_weights(
        arms_of(options_of("architectures"), suite), options_of("architectures", pretrained=True)
    )
    assert asked == ["vgg16_bn"]
    assert "trained from scratch: encoder 'vgg16_bn': its pretrained weights cannot be fetched" in notes[0]
    assert {arm.from_scratch for arm in arms if arm.encoder} == {True}
    assert {arm.from_scratch for arm in arms if not arm.encoder} == {False}
    assert all("from scratch" in arm.variant for arm in arms if arm.encoder)
    arms, notes = with_weights(arms_of(options_of("architectures"), suite), options_of("architectures"))
    assert (len(asked), notes, any(arm.from_scratch for arm in arms)) == (1, [], False)


@pytest.mark.parametrize("error", [FetchError("no weights"), ConfigError("no such net"), DivergedError("ran away")])
def test_a_run_that_fails_does_not_end_the_others(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, made = write_folder(tmp_path / "set", n=10), MaskBench._result

    def result(self: MaskBench, case: MaskCase, place: Path, progress: Any) -> Any:
        if case.arm.method == "supervised":
            raise error
        return made(self, case, place, progress)

    monkeypatch.setattr(MaskBench, "_result", result)
    options = options_of(methods="supervised,random_forest", labels="2", seeds=1, data=str(folder))
    outcome = bench(options, tmp_path / "out", progress=Silent())
    assert (outcome.n_runs, outcome.n_new, len(outcome.warnings)) == (3, 1, 2)
    assert all(str(error) in text for text in outcome.warnings)
    assert "random forest" in (tmp_path / "out" / "folder.md").read_text()


def test_the_curve_of_a_learned_weight_is_in_its_row(tmp_path: Path) -> None:
    options = options_of("weighting", variant="weighting=raw", labels="2", seeds=1)
    bench(options.replaced(data=str(write_folder(tmp_path / "set", n=10)), steps=4), tmp_path / "out")
    (row,) = RowFile(tmp_path / "out" / "weighting.json").rows()
    assert (row["method"], row["options"]) == ("berunda", {"weighting": "raw"})
    assert row["learned_weight"]["value"][0] == 0.5
    assert row["learned_weight"]["value"][-1] != 0.5
    assert (tmp_path / "out" / "weighting_learned_weight_2.png").exists()


def test_a_full_disk_ends_the_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise OutputError("disk full")

    monkeypatch.setattr(MaskBench, "_result", fail)
    options = options_of(methods="random_forest", labels="2", data=str(write_folder(tmp_path / "set", n=10)))
    with pytest.raises(OutputError, match="disk full"):
        bench(options, tmp_path / "out")
