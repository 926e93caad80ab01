"""The suites: found by their files, each with what it says it has."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_images import image_set

from berunda.api.bench_arms import arms_of, candidates_of
from berunda.api.bench_runs import Bench
from berunda.api.bench_verb import _with_own
from berunda.api.scene_result import all_images
from berunda.bench.suite import FLOORS
from berunda.bench.suites import load_suite, suite_names
from berunda.bench.suites.losses import BEST
from berunda.data import catalog
from berunda.data.images import TEST, TRAIN, VALIDATION, ImageSet
from berunda.errors import ConfigError
from berunda.methods import make_method, method_names
from berunda.methods._auxiliary import TASKS
from berunda.options.bench import BenchOptions, parse_labels
from berunda.train.passes import image_passes

OF_IMAGES = tuple(name for name in suite_names() if load_suite(name).task != "segmentation")
SIDES_PX = {"ucmerced": 128}
MOST_PASSES = 200_000
"""Of images of 64 px a training: a quarter of an hour on two cores. A pass of larger images costs by their area."""


def images_for(suite: Any) -> ImageSet:
    """Return 2,000 empty images with the labels that a suite asks for, of the size of its data."""
    n, side = 2000, SIDES_PX.get(suite.dataset, 64)
    number = np.arange(n)
    parts = np.repeat([TRAIN, VALIDATION, TEST], [1200, 400, 400])
    if suite.task == "multilabel":
        made = image_set((number[:, None] % np.arange(2, 19) == 0).astype(float), 17, parts)
    else:
        made = image_set(number % 10, 10, parts)
    return replace(made, pixels=np.broadcast_to(np.zeros((1, 3, side, side), np.uint8), (n, 3, side, side)))


def test_there_are_the_suites_of_the_protocol() -> None:
    assert {"eurosat", "eurosat_all", "folder"} <= set(suite_names())


@pytest.mark.parametrize("name", suite_names())
def test_a_suite_names_what_there_is(name: str) -> None:
    suite = load_suite(name)
    assert suite.name == name
    assert suite.dataset in ("", *catalog.names())
    assert set(suite.methods) <= {*FLOORS, *method_names()}
    assert all(parse_labels(text) for text in suite.labels)
    assert not suite.methods or set(FLOORS) <= set(suite.methods)


@pytest.mark.parametrize("name", OF_IMAGES)
def test_every_arm_of_every_suite_of_images_builds_and_costs_as_much_as_any(name: str, tmp_path: Path) -> None:
    """With each arm's method, options, values to search among, encoder and the parts that the method adds."""
    suite = load_suite(name)
    options = _with_own(BenchOptions(suite=name), suite)
    made, built = Bench.planned(options, suite, images_for(suite), tmp_path, tmp_path / "work"), set()
    nets = [case for case in made.cases if not case.is_floor]
    for case in (replace(one, arm=arm) for one in nets for arm in candidates_of(one.arm)):
        lane, drawn, method = made._lane(case), made._drawn(case), make_method(case.method, case.arm.options)
        net = lane.net
        passes = image_passes(method, made.settings_of(case), all_images(drawn, net))
        assert passes == pytest.approx(lane.budget, rel=0.1), str(case)
        assert passes * (net.image_px / 64) ** 2 <= MOST_PASSES, f"{case} takes too long"
        if (method, net.encoder) not in built:
            built.add((method, net.encoder))
            spec = replace(net.spec(drawn), pretrained=False, frozen_stages=0)
            method.init(method.build(spec), spec)
    assert built


@pytest.mark.parametrize("name", [n for n in suite_names() if load_suite(n).task in ("scene", "multilabel")])
def test_nothing_of_a_suite_on_whole_images_is_left_out(name: str) -> None:
    suite = load_suite(name)
    assert suite.task is not None
    arms, notes = arms_of(BenchOptions(suite=name), suite, suite.task)
    assert notes == []
    assert len(arms) == len(suite.arms) or not suite.arms


def test_suites_know_every_auxiliary_task() -> None:
    assert set(BEST) == set(TASKS)


def test_another_name_is_told_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"suite 'eurosatt' is unknown.*did you mean 'eurosat'"):
        load_suite("eurosatt")


def test_finding_suites_needs_no_torch() -> None:
    code = "import sys, berunda.bench.suites as s; s.load_suite('eurosat'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
