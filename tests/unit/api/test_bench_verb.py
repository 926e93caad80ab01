"""A benchmark on a folder of images: equal compute, nothing done twice, tables at the end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_patches import write_folder, write_labelled_table

from berunda.api import bench_runs, bench_search, bench_verb, scene_fit
from berunda.api.bench_verb import bench
from berunda.api.drawn import draw_images
from berunda.api.fit import train_or_resume
from berunda.api.floor import FrozenFeatures, propagation_result, transductive_result
from berunda.bench.rows import REQUIRED, RowFile
from berunda.bench.suite import FLOORS, Arm, Suite
from berunda.bench.suites import load_suite
from berunda.data.images import TEST, open_images
from berunda.errors import ConfigError, DataError, DivergedError
from berunda.options.bench import BenchOptions
from berunda.progress import Silent

QUICK: dict[str, Any] = {
    "suite": "folder",
    "methods": "features_logreg,supervised,fixmatch",
    "labels": "2",
    "seeds": 1,
    "steps": 2,
    "n_labelled": 2,
    "image_px": 32,
    "device": "cpu",
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERUNDA_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "images", 10)


def options(images: Path, **changes: Any) -> BenchOptions:
    return BenchOptions(**{**QUICK, "data": str(images), **changes})


def rows_of(out: Path) -> list[dict[str, Any]]:
    return RowFile(out / "folder.json").rows()


def test_every_net_gets_as_many_image_passes(images: Path, tmp_path: Path) -> None:
    outcome = bench(options(images, method_options=["fixmatch.mu=2"]), tmp_path / "out")
    rows = {row["method"]: row for row in rows_of(tmp_path / "out")}
    assert set(rows) == {"features_logreg", "supervised", "fixmatch"}
    budget = rows["fixmatch"]["setting"]["image_passes"]
    for name in ("supervised", "fixmatch"):
        assert rows[name]["image_passes"] == pytest.approx(budget, rel=0.15)
    assert rows["fixmatch"]["variant"] == "mu=2"
    assert not any(name.endswith("_single_view") for name in rows["features_logreg"]["metrics"])
    figures = rows["fixmatch"]["metrics"]
    assert 0 <= figures["oa_single_view"] <= 1
    assert {"ece_single_view", "ece_before_single_view", "nll_single_view"} <= set(figures)
    assert figures["nll_before_single_view"] != figures["nll_before"]
    assert "| ECE of one view before | ECE of one view after |\n" in (tmp_path / "out" / "folder.md").read_text()
    for row in rows.values():
        assert set(REQUIRED) <= set(row)
        assert row["n_labelled"] == 6
        assert row["metrics"]["n_validation"] <= 6
        assert 0 <= row["metrics"]["oa"] <= 1
        is_floor = row["method"] in FLOORS
        assert ("image passes a run" in row["protocol"]) is not is_floor
        assert ("answers averaged over 4 symmetries" in row["protocol"]) is not is_floor
        assert ("frozen features of one view of each image, at 128 px" in row["protocol"]) is is_floor
        assert row["command"].startswith(f"berunda bench folder --methods {row['method']} --labels 2 --seeds 1")
    assert {path.suffix for path in outcome.files} >= {".md", ".csv", ".png"}
    assert (outcome.n_runs, outcome.n_new) == (3, 3)
    assert not (tmp_path / "out" / ".work").exists()


def test_looking_at_all_images_is_counted(images: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"propagate, labels 2 .*: looking at all images takes \d+ image passes of"):
        bench(options(images, methods="propagate"), tmp_path / "out")
    given = options(images, methods="propagate", steps=8, method_options=["propagate.graphs=2"])
    bench(given, tmp_path / "out")
    (row,) = rows_of(tmp_path / "out")
    assert row["image_passes"] == pytest.approx(row["setting"]["image_passes"], rel=0.05)
    assert row["variant"] == "graphs=2"


def test_options_of_the_method_that_goes_on_are_in_the_rows(images: Path, tmp_path: Path) -> None:
    changed = ["propagate.graphs=1", "propagate.then=fixmatch", "propagate.fixmatch.mu=1"]
    bench(options(images, methods="propagate", steps=8, method_options=changed), tmp_path / "out")
    (row,) = rows_of(tmp_path / "out")
    assert row["variant"] == "fixmatch.mu=1, graphs=1, then=fixmatch"
    assert "--option propagate.fixmatch.mu=1" in row["command"]
    assert row["image_passes"] == pytest.approx(row["setting"]["image_passes"], rel=0.15)


def test_which_images_were_labelled_is_written_down_and_nested(images: Path, tmp_path: Path) -> None:
    bench(options(images, methods="features_logreg", labels="1,2,all", seeds=2), tmp_path / "out")
    told = json.loads((tmp_path / "out" / "folder_labels.json").read_text())["images"]
    for seed in ("0", "1"):
        one, two = (set(told["subsets"][f"{n} per_class"][seed].split()) for n in (1, 2))
        assert one < two
        assert (len(one), len(two)) == (3, 6)
        assert told["subsets"]["all per_class"][seed] == "all"
    assert told["subsets"]["1 per_class"]["0"] != told["subsets"]["1 per_class"]["1"]
    assert len(told["fingerprint"]) == 64


def test_what_is_there_is_not_done_again(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench(options(images, methods="features_logreg"), tmp_path / "out")
    (before,) = rows_of(tmp_path / "out")
    outcome = bench(options(images, methods="features_logreg,features_propagate"), tmp_path / "out")
    assert (outcome.n_runs, outcome.n_new) == (2, 1)
    assert before in rows_of(tmp_path / "out")

    def never(*_: object, **__: object) -> None:
        raise AssertionError("nothing is to be done")

    monkeypatch.setattr(bench_runs.Bench, "_result", never)
    assert bench(options(images, methods="features_logreg,features_propagate"), tmp_path / "out").n_new == 0


def test_several_calls_make_one_table(images: Path, tmp_path: Path) -> None:
    floors = {"methods": "features_logreg,features_propagate", "labels": "1,2", "seeds": 2}
    bench(options(images, **floors), tmp_path / "whole")
    for labels, seed, methods in (
        *(("2", 1, "features_propagate"), ("1", 0, "features_logreg"), ("2", 0, "features_logreg,features_propagate")),
        *(("1", 0, "features_propagate"), ("1,2", 1, "features_propagate,features_logreg")),
    ):
        bench(options(images, methods=methods, labels=labels, seed=seed), tmp_path / "pieces")

    def told(out: Path) -> tuple[Any, Any]:
        rows = [(row["method"], row["labels"], row["seed"], row["metrics"]) for row in rows_of(out)]
        return rows, json.loads((out / "folder_labels.json").read_text())

    assert told(tmp_path / "pieces") == told(tmp_path / "whole")


def test_images_left_out_are_told(images: Path, tmp_path: Path) -> None:
    first = sorted(images.rglob("*.png"))[0]
    first.write_bytes(first.read_bytes()[:60])
    with pytest.raises(DataError, match="--skip-broken"):
        bench(options(images, methods="features_logreg"), tmp_path / "out")
    outcome = bench(options(images, methods="features_logreg", skip_broken=True), tmp_path / "out")
    assert outcome.is_complete
    assert outcome.warnings == (f"1 images cannot be read and were left out: {first.relative_to(images).as_posix()}",)
    assert [row["n_skipped"] for row in rows_of(tmp_path / "out")] == [1]
    assert "broken images left out: 1;" in (tmp_path / "out" / "folder.md").read_text()


def test_wall_time_counts_the_opening_and_earlier_processes(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*given: Any, **named: Any) -> Any:
        return replace(open_images(*given, **named), opening_s=1000.0)

    def resumed(*given: Any, **named: Any) -> Any:
        trained = train_or_resume(*given, **named)
        return replace(trained, seconds=trained.seconds + 500.0)

    monkeypatch.setattr(bench_verb, "open_images", slow)
    monkeypatch.setattr(scene_fit, "train_or_resume", resumed)
    bench(options(images, methods="features_logreg,supervised"), tmp_path / "out")
    rows = {row["method"]: row for row in rows_of(tmp_path / "out")}
    assert 1000 < rows["features_logreg"]["wall_s"] < 1400
    assert rows["features_logreg"]["training_s"] == 0
    assert 500 < rows["supervised"]["training_s"] < rows["supervised"]["wall_s"] - 1000 < 900


def test_rows_of_other_images_of_the_same_name_are_not_mixed(images: Path, tmp_path: Path) -> None:
    floor = {"methods": "features_logreg"}
    bench(options(images, **floor), tmp_path / "out")
    other = write_folder(tmp_path / "other" / images.name, 11)
    with pytest.raises(ConfigError, match=r"fingerprint [0-9a-f]{16} \(now [0-9a-f]{16}\)"):
        bench(options(other, **floor), tmp_path / "out")


def test_runs_of_another_length_are_not_mixed(images: Path, tmp_path: Path) -> None:
    bench(options(images, methods="supervised"), tmp_path / "out")
    with pytest.raises(ConfigError, match=r"trained otherwise: image_passes \d+ \(now \d+\)"):
        bench(options(images, methods="supervised", steps=5), tmp_path / "out")
    assert len(rows_of(tmp_path / "out")) == 1


class Listening(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.parametrize(("given", "steps"), [({}, 7), ({"steps": 3}, 3), ({"effort": "quick"}, 300)])
def test_a_suite_has_steps_of_its_own(
    given: dict[str, Any], steps: int, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite, planned = replace(load_suite("folder"), steps=7, about="takes an hour"), []
    monkeypatch.setattr(bench_verb, "load_suite", lambda _: suite)
    monkeypatch.setattr(bench_runs.Bench, "run", lambda self, _: planned.append(self))
    changes = {name: value for name, value in QUICK.items() if name != "steps"}
    progress = Listening()
    bench(BenchOptions(**{**changes, "data": str(images), "methods": "fixmatch", **given}), tmp_path, progress=progress)
    (made,) = planned
    assert made.settings_of(made.cases[0]).steps == steps
    assert ("--steps 7" in made._command(made.cases[0])) is (steps == 7)
    assert "folder: takes an hour" in progress.notes


def test_a_run_that_diverges_is_told_and_the_others_go_on(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = bench_runs.Bench._result

    def fails(self: Any, case: Any, *given: Any) -> Any:
        if case.method == "supervised":
            raise DivergedError("the loss is not finite")
        return result(self, case, *given)

    monkeypatch.setattr(bench_runs.Bench, "_result", fails)
    outcome = bench(options(images, methods="supervised,features_logreg"), tmp_path / "out")
    assert not outcome.is_complete
    assert outcome.warnings == ("supervised, labels 2 per class, seed 0: the loss is not finite",)
    assert [row["method"] for row in rows_of(tmp_path / "out")] == ["features_logreg"]


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"suite": "eurosatt"}, ConfigError, "did you mean 'eurosat'"),
        ({"methods": "fixmach"}, ConfigError, "did you mean 'fixmatch'"),
        ({"methods": "cotrain"}, ConfigError, "expected scene"),
        ({"method_options": ["features_logreg.C=10"]}, ConfigError, "'features_logreg' is a floor"),
        (
            {"methods": None, "method_options": ["fixmtach.mu=3"]},
            ConfigError,
            "found 'fixmtach.mu', expected an option of .* did you mean 'fixmatch'",
        ),
        ({"methods": None, "method_options": ["vat.xi=3"]}, ConfigError, "found 'vat.xi', expected an option of"),
        ({"labels": "2,50"}, DataError, "50 labels a class asked for"),
        ({"data": None}, ConfigError, "--data: found none"),
    ],
)
def test_what_is_wrong_is_told_before_the_first_run(
    images: Path, tmp_path: Path, changes: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        bench(options(images, **changes), tmp_path / "out")
    assert not (tmp_path / "out" / "folder.json").exists()


def test_a_graph_with_the_test_images_is_asked_for_and_told_apart(images: Path, tmp_path: Path) -> None:
    named = "features_propagate,features_propagate_transductive"
    bench(options(images, methods=named, labels="1"), tmp_path / "out")
    rows = {row["method"]: row for row in rows_of(tmp_path / "out")}
    assert {name: row["is_transductive"] for name, row in rows.items()} == dict(
        zip(named.split(","), (False, True), strict=True)
    )
    assert all(row["encoder"] == rows["features_propagate"]["encoder"] for row in rows.values())
    assert rows["features_propagate_transductive"]["metrics"]["oa"] > 0.8
    assert ["test images are in the graph" in row["protocol"] for row in rows.values()] == [False, True]
    table = (tmp_path / "out" / "folder.md").read_text()
    assert "| features propagate (efficientnet_lite0) |" in table
    assert "| features propagate transductive (efficientnet_lite0) (transductive) |" in table
    assert "features_propagate_transductive" not in FLOORS


def test_labels_of_test_images_are_never_in_the_graph(images: Path) -> None:
    data = open_images(str(images))
    test = data.of(TEST)
    answers = []
    for labels in (data.labels, _turned(data.labels, test)):
        changed = replace(data, labels=labels)
        drawn = draw_images(changed, 1, "per_class", 0)
        answers.append(transductive_result(FrozenFeatures(changed, "efficientnet_lite0", px=32), drawn).test)
    assert np.array_equal(answers[0].logits, answers[1].logits)
    assert not np.array_equal(answers[0].labels, answers[1].labels)
    drawn = draw_images(data, 1, "per_class", 0)
    alone = propagation_result(FrozenFeatures(data, "efficientnet_lite0", px=32), drawn)
    assert not np.allclose(alone.test.logits, answers[0].logits)


def _turned(labels: np.ndarray, index: np.ndarray) -> np.ndarray:
    turned = labels.copy()
    turned[index] = (turned[index] + 1) % 3
    return turned


def test_the_floors_learn_what_is_easy(images: Path, tmp_path: Path) -> None:
    bench(options(images, methods="features_logreg,features_propagate", labels="3"), tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert all(row["metrics"]["oa"] > 0.8 for row in rows)
    assert all(np.isfinite(row["metrics"]["nll"]) and row["wall_s"] > 0 for row in rows)


# Searches and several labels


def test_options_are_chosen_on_validation_images_and_all_of_it_is_paid_for(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = options(images, methods="fixmatch", search=["fixmatch.mu=1:2"], method_options=["fixmatch.threshold=0.5"])
    out = tmp_path / "out"
    result, done = bench_runs.Bench._result, []

    def stops(self: Any, case: Any, *rest: Any) -> Any:
        done.append(case.arm.options["mu"])
        if len(done) == 2:
            raise KeyboardInterrupt
        return result(self, case, *rest)

    monkeypatch.setattr(bench_runs.Bench, "_result", stops)
    with pytest.raises(KeyboardInterrupt):
        bench(given, out)
    assert rows_of(out) == []
    bench(given, out)
    assert done == [1, 2, 2], "what was trained before the stop is not trained again"
    (row,) = rows_of(out)
    candidates = RowFile(out / "folder_search.json").rows()
    assert [one["options"]["mu"] for one in candidates] == [1, 2]
    assert row["variant"] == "threshold=0.5, mu searched"
    assert row["image_passes"] == sum(one["image_passes"] for one in candidates)
    assert row["wall_s"] == pytest.approx(sum(one["wall_s"] for one in candidates))
    best = max(candidates, key=lambda one: one["validation"])
    assert row["metrics"] == best["metrics"]
    assert [one["chosen"] for one in row["search"]] == [one is best for one in candidates]
    assert "--search fixmatch.mu=1:2" in row["command"]
    page = (out / "folder.md").read_text()
    assert "Options chosen on validation images" in page
    assert "equal for all nets, but where options are searched over: each candidate gets as many; last" in page
    assert "| mu=1 | mu=2 |" in page
    assert bench(given, out).n_new == 0


def test_the_choice_rests_on_validation_images_alone(tmp_path: Path) -> None:
    rows = RowFile(tmp_path / "x.json")
    validation, test = {"a": 0.4, "b": 0.7, "c": 0.7}, {"a": 0.9, "b": 0.1, "c": 0.2}

    def key_of(name: str) -> dict[str, Any]:
        same = {"suite": "x", "dataset": "d", "task": "scene", "encoder": "", "labels": 1, "labels_unit": "per_class"}
        return {**same, "method": "m", "variant": name, "seed": 0}

    def make_row(name: str) -> dict[str, Any]:
        cost = {
            "wall_s": 2.0,
            "training_s": {"a": 1.0, "b": 0.5, "c": 1.5}[name],
            "images_per_s": 7.0,
            "image_passes": 10,
        }
        told = {"metrics": {"oa": test[name]}, "validation": validation[name], "options": {"w": name}}
        return {**key_of(name), **cost, **told, "hardware": "", "command": "", "version": ""}

    found = bench_search.searched_row("abc", rows, key_of, make_row)
    assert (found["metrics"]["oa"], found["image_passes"], found["wall_s"]) == (0.1, 30, 6)
    assert (found["training_s"], found["images_per_s"]) == (3.0, 10.0)
    validation["a"] = None  # type: ignore[assignment]
    with pytest.raises(DataError, match="no validation labels to choose by"):
        bench_search.searched_row("abc", RowFile(tmp_path / "y.json"), key_of, make_row)


@pytest.mark.parametrize(
    ("search", "text"),
    [
        ("fixmatch.mu=1:200", "'mu' is 200.0, expected 0 to 64"),
        ("fixmatch.nu=1:2", "'nu' is unknown"),
        ("mu=1:2", "expected METHOD.NAME=VALUE"),
        ("vat.epsilon=1:2", "'vat' is not among the methods"),
    ],
)
def test_searches_that_make_no_sense_are_told(images: Path, tmp_path: Path, search: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        bench(options(images, methods="fixmatch", search=[search]), tmp_path / "out")


def test_several_labels_are_compared_by_their_own_measures(tmp_path: Path) -> None:
    table = write_labelled_table(tmp_path / "images")
    outcome = bench(options(table, methods=None, labels="0.25"), tmp_path / "out")
    rows = {row["method"]: row for row in rows_of(tmp_path / "out")}
    assert set(rows) == {"features_logreg", "features_propagate", "supervised", "fixmatch"}
    for row in rows.values():
        assert row["task"] == "multilabel"
        assert 0 <= row["metrics"]["macro_auprc"] <= 1
        assert "macro_f1_tuned" in row["metrics"]
        assert row["n_labelled"] == 6
    page = (tmp_path / "out" / "folder.md").read_text()
    for word in ("Macro AUPRC, %", "Macro F1, %", "tuned on validation", "Difference in Macro AUPRC to supervised"):
        assert word in page
    assert outcome.is_complete
    with pytest.raises(ConfigError, match="method 'vat' serves scene, expected multilabel"):
        bench(options(table, methods="vat", labels="0.25"), tmp_path / "other")


def test_several_labels_spread_over_the_graph_of_the_floors(tmp_path: Path) -> None:
    table = write_labelled_table(tmp_path / "images")
    named = "features_propagate,features_propagate_transductive"
    bench(options(table, methods=named, labels="0.25"), tmp_path / "out")
    rows = {row["method"]: row for row in rows_of(tmp_path / "out")}
    assert set(rows) == set(named.split(","))
    for row in rows.values():
        assert row["metrics"]["macro_auprc"] > 0.8
        assert np.isfinite(row["metrics"]["nll"])
    data = open_images(str(table), task="multilabel")
    drawn = draw_images(data, 0.25, "fraction", 0)
    turned = data.labels.copy()
    turned[data.of(TEST)] = 1 - turned[data.of(TEST)]
    features = FrozenFeatures(data, "efficientnet_lite0", px=32)
    for result in (propagation_result, transductive_result):
        answers = [
            result(features, replace(drawn, images=replace(data, labels=labels))).test.logits
            for labels in (data.labels, turned)
        ]
        assert np.array_equal(*answers), "labels of test images are never in the graph"


def test_passes_go_into_large_batches_or_into_many_steps(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms = (
        Arm("supervised"),
        Arm("supervised", small_batch=True),
        Arm("fixmatch", {"mu": 2.0}),
        Arm("fixmatch", {"mu": 2.0}, small_batch=True),
    )
    suite = Suite("both", "a test", "", (), ("1",), n_seeds=1, task="scene", arms=arms)
    planned: list[bench_runs.Bench] = []
    monkeypatch.setattr("berunda.api.bench_verb.load_suite", lambda name: suite)
    monkeypatch.setattr(bench_runs.Bench, "run", lambda self, _: planned.append(self))
    bench(options(images, methods=None, labels=None, suite="both", steps=10), tmp_path / "out")
    (made,) = planned
    told = {case.arm.variant: made.settings_of(case) for case in made.cases}
    assert set(told) == {"", "small batch", "mu=2.0"}, "images without labels fill the steps: one way alone"
    large, small = told[""], told["small batch"]
    assert (large.steps, small.n_labelled) == (10, 2)
    assert large.n_labelled > 10 * small.n_labelled / 2
    assert small.steps * small.n_labelled == pytest.approx(large.steps * large.n_labelled, rel=0.05)


def test_methods_that_the_encoder_cannot_serve_are_left_out_unless_named(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned: list[bench_runs.Bench] = []
    monkeypatch.setattr("berunda.api.bench_verb.load_suite", lambda name: Suite("every", "a test", "", (), ("1",)))
    monkeypatch.setattr(bench_runs.Bench, "run", lambda self, _: planned.append(self))
    given = options(images, methods=None, labels=None, suite="every", steps=1000)
    bench(given, tmp_path / "out")
    (made,) = planned
    assert "supervised" in {case.method for case in made.cases}
    assert "ssl_mae" not in {case.method for case in made.cases}
    assert any("ssl_mae is left out: method 'ssl_mae': found encoder" in note for note in made.notes)
    with pytest.raises(ConfigError, match="'ssl_mae': found encoder 'efficientnet_lite0', expected one of patches"):
        bench(given.replaced(methods="ssl_mae"), tmp_path / "out")
    with pytest.raises(ConfigError, match="40 x 40 px, expected sides that patches of 16 px divide"):
        bench(given.replaced(methods="ssl_mae", encoder="vit_mini_patch16", image_px=40), tmp_path / "out")


def test_the_curve_of_a_learned_weight_is_in_its_row(images: Path, tmp_path: Path) -> None:
    given = {"fixmatch.weighting": "raw", "fixmatch.threshold": 0.0}
    bench(options(images, methods="fixmatch", method_options=given, steps=4), tmp_path / "out")
    (row,) = rows_of(tmp_path / "out")
    curve = row["learned_weight"]
    assert curve["step"] == list(range(len(curve["value"])))
    assert curve["value"][0] == 0.5
    assert curve["value"][-1] != 0.5
    assert "**Learned weight**" in (tmp_path / "out" / "folder.md").read_text()


def test_arms_have_nets_and_labels_of_their_own(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arms = (
        Arm("supervised", labels=("1", "2")),
        Arm("supervised", {"recipe": "strong"}, encoder="wide_resnet28_2"),
        Arm("nosuch"),
    )
    suite = Suite("arms", "a test", "", (), ("1",), n_seeds=1, task="scene", arms=arms)
    monkeypatch.setattr("berunda.api.bench_verb.load_suite", lambda name: suite)
    given = options(images, methods=None, labels=None, suite="arms")
    bench(given, tmp_path / "out")
    rows = RowFile(tmp_path / "out" / "arms.json").rows()
    told = {(row["encoder"], row["variant"], row["labels"]) for row in rows}
    assert told == {
        ("efficientnet_lite0", "", 1),
        ("efficientnet_lite0", "", 2),
        ("wide_resnet28_2", "recipe=strong", 1),
    }
    assert {row["setting"]["is_pretrained"] for row in rows if row["encoder"] == "wide_resnet28_2"} == {False}
    assert bench(given, tmp_path / "out").n_new == 0
