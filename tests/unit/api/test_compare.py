"""Rows of a comparison: who saw what, on which labels, and the command that makes the run again."""

from __future__ import annotations

import shlex
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from berunda.api import compare
from berunda.api.compare import Result, command_of, comparison_row, forest_result, net_result
from berunda.api.evaluate import Answers, PixelTable
from berunda.cli import main as command_line
from berunda.config import MapConfig
from berunda.data.splits import TEST, TRAIN
from berunda.methods import make_method

N = 40


def table() -> PixelTable:
    draw = np.random.default_rng(0)
    classes = np.tile([1, 2], N // 2).astype(np.int16)
    return PixelTable(
        scene=np.zeros(N, np.int16),
        row=np.arange(N),
        col=np.arange(N),
        part=np.repeat([TRAIN, TEST], N // 2).astype(np.int8),
        classes=classes,
        polygon=(np.arange(N) // 4).astype(np.int32),
        values=draw.normal(size=(N, 2)).astype(np.float32) + classes[:, None],
    )


def prepared() -> Any:
    labels = SimpleNamespace(class_names=("a", "b"))
    return SimpleNamespace(labels=labels, scenes=(SimpleNamespace(name="scene"),), n_classes=2)


def fitted(method: str) -> Any:
    return SimpleNamespace(
        method=make_method(method, {}),
        predictor=None,
        bundle=SimpleNamespace(manifest=SimpleNamespace(ood=None, encoder="e")),
        temperature=SimpleNamespace(value=1.0),
        trained=SimpleNamespace(seconds=1.0),
    )


def of_net(method: str, name: str, monkeypatch: pytest.MonkeyPatch) -> Result:
    asked: list[bool] = []

    def ask(predictor: Any, ground: Any, rows: PixelTable, *, features: bool) -> Answers:
        asked.append(features)
        return Answers(np.random.default_rng(1).normal(size=(len(rows), 2)), np.zeros((len(rows), 0)))

    monkeypatch.setattr(compare, "ask_net", ask)
    result = net_result(fitted(method), prepared(), table().of(TEST), name, 8.0)
    assert asked == [False]
    assert result.ood_share is None
    return result


@pytest.mark.parametrize(("method", "uses"), [("supervised", False), ("cotrain", True), ("fixmatch", True)])
@pytest.mark.parametrize("name", ["supervised", "a_variant"])
def test_what_a_method_needs_says_whether_it_is_transductive(
    method: str, uses: bool, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = of_net(method, name, monkeypatch)
    row = comparison_row(result, prepared(), MapConfig(scenes=["s.tif"], labels="l.gpkg"))
    assert row["is_transductive"] is uses


def test_a_forest_sees_labelled_pixels_only() -> None:
    assert forest_result(prepared(), table(), 0).is_transductive is False


@pytest.mark.parametrize(("asked", "labels"), [(5, (5, "polygons_per_class")), (None, (1.0, "fraction"))])
def test_labels_are_counted_in_units_of_the_protocol(asked: int | None, labels: tuple[float, str]) -> None:
    config = MapConfig(scenes=["s.tif"], labels="l.gpkg", polygons_per_class=asked)
    row = comparison_row(forest_result(prepared(), table(), 0), prepared(), config)
    assert (row["labels"], row["labels_unit"]) == labels


def test_the_command_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    from berunda import api

    config = MapConfig(
        scenes=["/far/away/scene.tif", "/far/away/two words.tif"],
        labels="/far/away/polygons.gpkg",
        mask="/far/away/clouds.tif",
        field="class",
        classes={"a": "b", "c": ""},
        bands=("B02", "B03"),
        drop_labels_where="B02>1800",
        method="fixmatch",
        method_options={"threshold": 0.5, "lambda_u": 0},
        compare=True,
        pretrained=False,
        block_px=256,
    )
    calls: list[tuple[MapConfig, str]] = []
    monkeypatch.setattr(
        api, "map_scene", lambda given, out, progress: calls.append((given, str(out))) or _Done(), raising=False
    )
    words = shlex.split(command_of(config))
    assert words[:2] == ["berunda", "map"]
    assert command_line.main(words[1:]) == 0
    local = {"scenes": ("scene.tif", "two words.tif"), "labels": "polygons.gpkg", "mask": "clouds.tif"}
    assert calls == [(config.replaced(**local), "DIR")]


def test_a_zero_that_is_no_default_stays_in_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    config = MapConfig(scenes=["s.tif"], labels="l.gpkg")
    dump = {"scenes": ["s.tif"], "labels": "l.gpkg", "seed": 0}
    monkeypatch.setattr(MapConfig, "model_dump", lambda *_, **__: dump)
    assert "--seed 0" in command_of(config)


class _Done:
    warnings = ()
    is_complete = True

    def summary_lines(self) -> list[str]:
        return []
