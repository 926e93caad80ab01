"""The suites: found by their files, each with what it says it has."""

from __future__ import annotations

import subprocess
import sys

import pytest

from berunda.api.bench_arms import arms_of
from berunda.bench.suite import FLOORS
from berunda.bench.suites import load_suite, suite_names
from berunda.bench.suites.losses import BEST
from berunda.data import catalog
from berunda.errors import ConfigError
from berunda.methods import method_names
from berunda.methods._auxiliary import TASKS
from berunda.options.bench import BenchOptions, parse_labels


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
