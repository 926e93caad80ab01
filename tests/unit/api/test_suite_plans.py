"""What a suite on whole images plans can be trained: every arm, on images like the suite's, but smaller and fewer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_images import image_set

from berunda.api.bench_arms import candidates_of
from berunda.api.bench_runs import Bench, Case
from berunda.bench.suites import load_suite
from berunda.data.images import TEST, TRAIN, VALIDATION, ImageSet
from berunda.methods import make_method
from berunda.options.bench import BenchOptions

NAME, FORMS = "ucmerced_multilabel", "weighting_labels"
PASSES_A_SECOND = 65
"""What the packaged encoder trains on two cores at 128 px."""


def images() -> ImageSet:
    """Images with several labels, as many parts as the suite's data."""
    draw = np.random.default_rng(0)
    parts = np.repeat([TRAIN, VALIDATION, TEST], [1470, 210, 420])
    made = image_set((draw.random((2100, 5)) < 0.3).astype(np.float32), 5, parts)
    return replace(made, name=NAME, pixels=np.zeros((2100, 3, 32, 32), np.uint8))


def plan(name: str, out: Path, **options: Any) -> Bench:
    suite = load_suite(name)
    return Bench.planned(BenchOptions(suite=name, steps=suite.steps, **options), suite, images(), out, out)


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return plan(NAME, tmp_path_factory.mktemp("out"))


def trained(bench: Bench) -> list[Case]:
    """Every training of a benchmark, those of searches one by one."""
    return [replace(case, arm=arm) for case in bench.cases if not case.is_floor for arm in candidates_of(case.arm)]


@pytest.mark.parametrize("name", [NAME, FORMS])
def test_every_arm_is_planned_and_its_method_fits_its_net(name: str, tmp_path: Path) -> None:
    bench = plan(name, tmp_path)
    assert bench.notes == ()
    assert {str(case.arm) for case in bench.cases} == {str(arm) for arm in load_suite(name).arms}
    for case in {(case.method, str(case.arm.options), case.arm.encoder): case for case in trained(bench)}.values():
        method = make_method(case.method, case.arm.options)
        spec = bench.lanes[case.arm.encoder or bench.options.encoder].net.spec(bench.drawn[case.draw])
        net = method.build(spec).eval()
        extra = method.init(net, spec)
        with torch.no_grad():
            assert method.predict(net, extra, torch.zeros(2, 3, 32, 32)).shape == (2, 5)


def test_a_run_takes_about_three_minutes_and_there_are_few_enough(planned: Bench) -> None:
    for lane in planned.lanes.values():
        assert 150 < lane.budget / PASSES_A_SECOND < 180
    assert len(trained(planned)) == 56
    assert "56 trainings" in load_suite(NAME).about


def test_tables_call_the_forms_of_ssl_mae_by_their_names(planned: Bench) -> None:
    titles = {case.arm.title for case in planned.cases if case.method == "ssl_mae"}
    assert titles == {"SSL-MAE-GS", "SSL-MAE-w_l", "SSL-MAE, labelled images alone"}
    assert {arm.title for case in planned.cases for arm in candidates_of(case.arm) if case.arm.search} == {""}


def test_a_title_goes_where_options_are_given(tmp_path: Path) -> None:
    cases = plan(NAME, tmp_path, methods="ssl_mae", method_options=["ssl_mae.w=0.7"], labels="0.05").cases
    assert {case.arm.title for case in cases} == {""}
    assert len({case.arm.variant for case in cases}) == 3
