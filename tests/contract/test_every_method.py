"""Every method that is found passes every check."""

from __future__ import annotations

import json

import pytest

from berunda.methods import describe_method, make_method, method_names
from berunda.methods.check import CHECKS, check_method

VARIANTS = [
    *((name, {}) for name in method_names()),
    ("adamatch", {"q_from": "student", "threshold": 0.5}),
    ("berunda", {"aux": "l1"}),
    ("berunda", {"aux": "l2"}),
    ("berunda", {"aux": "mumford_shah", "mu": 0.0}),
    ("berunda", {"aux": "inpainting", "hole_px": 2}),
    ("berunda", {"aux": "jigsaw", "n_permutations": 12}),
    ("berunda", {"split": "early", "aux": "l1"}),
    ("berunda", {"split": "early", "aux": "kmeans"}),
    ("berunda", {"split": "early", "aux": "mumford_shah"}),
    ("berunda", {"split": "early", "aux": "inpainting"}),
    ("berunda", {"split": "early", "aux": "jigsaw"}),
    ("berunda", {"weighting": "uncertainty"}),
    ("defixmatch", {"q_from": "student", "threshold": 0.0}),
    ("fixmatch", {"q_from": "student", "threshold": 0.5}),
    ("fixmatch", {"weighting": "normalised", "threshold": 0.5}),
    ("fixmatch", {"align": "labelled", "adaptive": True, "threshold": 0.5}),
    ("fixmatch_jem", {"form": "pipeline", "variant": "jem++"}),
    ("fixmatch_jem", {"share": 0.0, "ramp": 0.0, "align": "uniform", "threshold": 0.5}),
    ("fixmatch", {"align": "uniform", "cutmix": 0.0, "strength": 0.0, "threshold": 0.0}),
    ("flexmatch", {"q_from": "student", "threshold": 0.5, "memory": 3}),
    ("freematch", {"q_from": "student", "lambda_f": 1.0}),
    ("hvae", {"latent": "gaussian", "shares": False}),
    ("jem", {"variant": "jem++"}),
    ("jem", {"variant": "sada", "mu": 0.0}),
    ("jem", {"variant": "sada", "rho": 0.0}),
    ("mixmatch", {"q_from": "student", "n_views": 3}),
    ("segjem", {"variant": "sada"}),
    ("softmatch", {"q_from": "student", "align": False}),
    ("ssl_mae", {"weighting": "fixed", "w": 0.7, "normalise": True}),
    ("ssl_mae", {"weighting": "normalised", "mu": 0.0}),
    ("ssl_mae", {"weighting": "uncertainty", "encoder_sees": "all"}),
    ("supervised", {"recipe": "strong"}),
    ("unimatch", {"q_from": "student", "threshold": 0.5, "drop": 0.9}),
    ("unimatch", {"threshold": 0.0, "cutmix": 0.0, "strength": 0.0, "drop": 0.0}),
    ("wnet", {"aux": "l1"}),
    ("wnet", {"aux": "l2", "mu": 0.0}),
    ("wnet", {"aux": "mumford_shah"}),
]


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_method_passes_all_checks(name, options):
    results = check_method(make_method(name, options))
    assert len(results) >= len(CHECKS)
    assert [f"{r.check} ({r.task}): {r.fault}" for r in results if not r.passed] == []


@pytest.mark.parametrize("name", method_names())
def test_method_describes_itself(name):
    found = describe_method(name)
    assert found["name"] == name
    assert found["summary"].endswith(".")
    assert found["source"]
    json.dumps(found)
    for setting in found["settings"]:
        assert setting["help"]
        assert setting["range"]


@pytest.mark.parametrize("name", method_names())
def test_method_file_is_short(name):
    import importlib
    from pathlib import Path

    path = Path(importlib.import_module(f"berunda.methods.{name}").__file__ or "")
    assert len(path.read_text().splitlines()) <= 160
