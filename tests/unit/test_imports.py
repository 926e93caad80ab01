"""Imports flow one way, and the light modules stay light."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from scripts import load_script

ROOT = Path(__file__).resolve().parents[2]


def _graph() -> ModuleType:
    return load_script("docs/import_graph.py")


def test_imports_flow_downwards() -> None:
    graph = _graph()
    assert graph.breaches(graph.edges()) == []


def test_a_breach_is_seen() -> None:
    graph = _graph()
    found = graph.breaches({("geo", "train"): True, ("train", "mapping"): False, ("geo", "new"): False})
    assert [line.split(": ")[1] for line in found] == [
        "a room is in no layer of docs/import_graph.py",
        "goes up",
        "goes sideways",
    ]


def test_models_know_no_method_and_geo_knows_no_torch() -> None:
    graph = _graph()
    assert ("models", "methods") not in graph.edges()
    for path in sorted((graph.SOURCE / "geo").rglob("*.py")):
        assert "import torch" not in path.read_text(encoding="utf-8"), path


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        (
            ("berunda", "berunda.cli.main", "berunda.config", "berunda.errors"),
            ("torch", "rasterio", "geopandas"),
        ),
        (("berunda.geo.grid", "berunda.methods", "berunda.data.demo_scene", "berunda.doctor"), ("torch",)),
    ],
)
def test_light_modules_stay_light(modules: tuple[str, ...], heavy: tuple[str, ...]) -> None:
    code = f"import sys, {', '.join(modules)}; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_verbs_stay_callable_when_the_rooms_of_their_names_are_imported() -> None:
    code = (
        "import berunda, berunda.train.loop, berunda.bench.rows, berunda.assess.run\n"
        "for verb in (berunda.train, berunda.bench, berunda.assess):\n"
        "    try:\n"
        "        verb()\n"
        "    except TypeError as error:\n"
        "        print(error)\n"
        "print(berunda.train.loop.train.__module__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *refused, room = done.stdout.splitlines()
    assert room == "berunda.train.loop"
    assert [line.partition("()")[0] for line in refused] == ["train", "bench", "assess_map"]
