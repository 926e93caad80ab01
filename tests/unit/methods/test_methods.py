"""Finding, making and describing methods; what each method's loss does."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import Field, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from berunda.errors import ConfigError
from berunda.methods import describe_method, load_method, make_method, method_names
from berunda.methods._checking.trial import make_trial, without_pixels
from berunda.methods.contract import Batch

ROOT = Path(__file__).resolve().parents[3]


def test_finding_methods_does_not_import_torch():
    code = "import sys, berunda.methods as m; print(m.method_names()); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "fixmatch" in done.stdout


def test_the_first_three_methods_are_there():
    assert {"supervised", "fixmatch", "berunda"} <= set(method_names())


def test_unknown_method_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'fixmatch'"):
        load_method("fixmach")


@pytest.mark.parametrize("name", ["contract", "check", "_checking", ""])
def test_machinery_is_no_method(name):
    with pytest.raises(ConfigError, match="is unknown"):
        load_method(name)


@pytest.mark.parametrize("name", sorted(set(method_names()) - {"supervised", "berunda", "cotrain", "wnet"}))
def test_the_balance_that_papers_do_not_have_is_declared(name):
    if getattr(make_method(name), "balance", False):
        deviations = load_method(name).__doc__.split("Deviations:")[1]
        assert "balance" in deviations


@pytest.mark.parametrize("name", ["fixmatch", "flexmatch", "freematch", "softmatch", "adamatch", "defixmatch"])
def test_strong_views_without_randaugment_are_declared(name):
    assert "RandAugment" in load_method(name).__doc__.split("Deviations:")[1]


def test_unknown_options_are_all_named_with_the_nearest():
    with pytest.raises(ConfigError, match=r"'thresold' is unknown.*did you mean 'threshold'.*'nu' is unknown"):
        make_method("fixmatch", {"thresold": 0.9, "nu": 3})


def test_ranges_are_checked_all_at_once():
    with pytest.raises(ConfigError, match=r"'threshold' is 1.5, expected 0 to 1; option 'mu' is -1"):
        make_method("fixmatch", {"threshold": 1.5, "mu": -1})
    with pytest.raises(ConfigError, match="expected one of teacher, student"):
        make_method("fixmatch", {"q_from": "both"})
    with pytest.raises(ConfigError, match="expected 0 to 1"):
        make_method("fixmatch", {"threshold": float("nan")})


@pytest.mark.parametrize(
    ("option", "given", "expected"),
    [
        ("threshold", "0.8", 0.8),
        ("threshold", 1, 1.0),
        ("adaptive", "true", True),
        ("adaptive", "no", False),
        ("adaptive", False, False),
        ("align", "uniform", "uniform"),
    ],
)
def test_options_are_read_as_their_type(option, given, expected):
    found = getattr(make_method("fixmatch", {option: given}), option)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("name", "option", "given"),
    [
        ("fixmatch", "threshold", "high"),
        ("fixmatch", "threshold", True),
        ("fixmatch", "adaptive", "maybe"),
        ("fixmatch", "align", 3),
        ("berunda", "n_clusters", 2.5),
        ("berunda", "n_clusters", None),
    ],
)
def test_options_of_the_wrong_type_are_refused(name, option, given):
    with pytest.raises(ConfigError, match=f"'{option}' is"):
        make_method(name, {option: given})


def test_fixmatch_reports_what_it_used():
    trial = make_trial(make_method("fixmatch", {"threshold": 0.0}), "segmentation")
    terms = trial.loss().terms
    assert terms["used"] == 1
    assert {"used_0", "used_1", "used_2"} <= set(terms)
    nothing = make_trial(make_method("fixmatch", {"threshold": 1.0}), "segmentation").loss().terms
    assert nothing["used"] == 0
    assert nothing["unsupervised"] == 0


def test_fixmatch_shows_everything_in_one_forward_pass():
    for q_from, n_expected in (("teacher", 4 + 8), ("student", 4 + 8 + 8)):
        trial = make_trial(make_method("fixmatch", {"q_from": q_from}), "segmentation")
        seen: list[int] = []
        trial.net.register_forward_hook(lambda net, args, out, seen=seen: seen.append(len(args[0])))
        trial.loss()
        assert seen == [n_expected]


def test_fixmatch_pseudo_labels_come_from_the_teacher():
    trial = make_trial(make_method("fixmatch", {"threshold": 0.0, "cutmix": 0.0}), "segmentation")
    with torch.no_grad():
        for parameter in trial.teacher.parameters():
            parameter.zero_()
        trial.teacher.net.head.bias.copy_(torch.tensor([0.0, 9.0, 0.0]))
    batch = trial.batch()
    strong, valid = batch.unlabelled["strong"].pixels, batch.unlabelled["weak"].valid
    expected = -trial.net(strong).log_softmax(1)[:, 1][valid].mean()
    torch.testing.assert_close(trial.loss(batch).terms["unsupervised"], expected.detach())


def test_fixmatch_without_a_teacher_says_so():
    trial = make_trial(make_method("fixmatch"), "segmentation")
    trial.teacher = None
    with pytest.raises(ConfigError, match="found no teacher"):
        trial.loss()


def test_fixmatch_views_agree_pixel_by_pixel():
    batch = make_trial(make_method("fixmatch"), "segmentation").batch()
    assert batch.unlabelled["weak"].geometry is batch.unlabelled["strong"].geometry
    assert torch.equal(batch.unlabelled["weak"].valid, batch.unlabelled["strong"].valid)


def test_fixmatch_on_batches_without_valid_pixels_keeps_its_distributions():
    trial = make_trial(make_method("fixmatch"), "segmentation")
    trial.unlabelled = without_pixels(trial.unlabelled)
    updates = trial.loss().updates
    assert torch.equal(updates["predicted_classes"].value, trial.extra.predicted_classes)
    assert torch.equal(updates["confident_classes"].value, trial.extra.confident_classes)


def test_fixmatch_aligns_towards_the_labels():
    """A model that calls all alike the class it is too fond of is turned to the rarer ones."""
    method = make_method("fixmatch", {"threshold": 0.0, "align": "uniform"})
    trial = make_trial(method, "segmentation")
    with torch.no_grad():
        for parameter in trial.teacher.parameters():
            parameter.zero_()
        trial.teacher.net.head.bias.copy_(torch.tensor([1.0, 0.9, -5.0]))
        trial.extra.predicted_classes.copy_(torch.tensor([0.7, 0.2, 0.1]))
    assert trial.loss().updates["confident_classes"].value.argmax() == 1


def test_berunda_uses_unlabelled_images():
    for aux in ("l1", "kmeans"):
        trial = make_trial(make_method("berunda", {"aux": aux, "mu": 2}), "segmentation")
        batch = trial.batch()
        alone = trial.loss(Batch(batch.labelled)).terms
        both = trial.loss(batch).terms
        assert alone["supervised"] == pytest.approx(float(both["supervised"]))
        assert alone["unsupervised"] != both["unsupervised"]


def test_berunda_learns_to_rebuild():
    trial = make_trial(make_method("berunda", {"aux": "l1"}), "segmentation")
    before = float(trial.loss().terms["unsupervised"])
    trial.train(60)
    assert float(trial.loss().terms["unsupervised"]) < 0.5 * before


def test_a_method_can_be_changed_by_replacement_only_within_its_ranges():
    with pytest.raises(ConfigError):
        replace(make_method("berunda"), n_clusters=1)


def idle_for(name: str) -> list[tuple[Any, Field[Any]]]:
    """Return (task, setting) of all settings of a method that are idle for a task."""
    method = make_method(name)
    told = [(item.metadata.get("tasks"), item) for item in fields(method)]
    return [(task, item) for task in method.needs().tasks for tasks, item in told if tasks and task not in tasks]


def other_than(item: Field[Any]) -> Any:
    if isinstance(item.default, bool):
        return not item.default
    low, high, *_ = item.metadata["range"]
    if isinstance(item.default, str):
        return low if item.default == high else high
    return type(item.default)((low + high) / 2 if item.default == high else high)


@pytest.mark.parametrize("name", [name for name in method_names() if idle_for(name)])
def test_settings_that_are_idle_for_a_task_change_nothing(name):
    for task, item in idle_for(name):
        method = make_method(name)
        changed = replace(method, **{item.name: other_than(item)})
        assert changed != method
        totals = [make_trial(one, task).loss(step=50).total for one in (method, changed)]
        assert torch.equal(*totals), f"{item.name} for {task}"


def test_settings_of_single_labels_and_of_several_are_told_apart():
    assert {(task, item.name) for task, item in idle_for("fixmatch")} == {
        *((task, name) for task in ("segmentation", "scene") for name in ("prior_share", "ramp")),
        ("scene", "cutmix"),
        *(("multilabel", name) for name in ("threshold", "align", "adaptive", "cutmix", "decay", "balance")),
    }


def able(ability: str) -> set[str]:
    return {name for name in method_names() if describe_method(name)["abilities"][ability]}


def test_methods_say_what_they_can_do():
    assert able("generates") == {"fixmatch_jem", "hvae", "jem", "segjem", "vae"}
    assert able("fills") == able("generates") | {"ssl_mae"}
    assert able("density") == {"fixmatch_jem", "jem", "segjem"}


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("jem", {"lambda_p": 0.0}, False),
        ("fixmatch_jem", {"lambda_p": 0.0}, False),
        ("fixmatch_jem", {"lambda_p": 0.0, "form": "pipeline"}, True),
    ],
)
def test_without_a_likelihood_the_energy_is_no_density(name, options, expected):
    assert make_method(name, options).has_density() is expected


def test_the_page_of_methods_tells_what_each_can_do():
    page = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    section = page.split("## What they can do")[1].split("\n\n")[1]
    head, _, *lines = ([cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines())
    rows = {cells[0].strip("`"): dict(zip(head, cells, strict=True)) for cells in lines}
    assert set(rows) == set(method_names())
    abilities = {"generates images": "generates", "fills gaps": "fills", "log p(x)": "density"}
    for title, ability in abilities.items():
        assert {name for name, row in rows.items() if row[title] == "yes"} == able(ability)
    tasks = {"one class an image": "scene", "several labels an image": "multilabel", "maps": "segmentation"}
    for title, task in tasks.items():
        serving = {name for name in method_names() if task in describe_method(name)["needs"]["tasks"]}
        assert {name for name, row in rows.items() if row[title] == "yes"} == serving
