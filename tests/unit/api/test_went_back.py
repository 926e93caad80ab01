"""A training that diverged and went back says so: in the report, in its warnings, and in the row of a comparison."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toy_masks import write_folder as write_masks
from toy_patches import write_folder as write_images

from berunda.api.reporting import went_back
from berunda.api.train_verb import train
from berunda.methods import make_method
from berunda.methods.contract import Loss
from berunda.options.train import TrainOptions

QUICK: dict[str, Any] = {"steps": 4, "n_labelled": 2, "device": "cpu"}
CASES: dict[str, dict[str, Any]] = {
    "jem": {"labels_per_class": 2, "image_px": 32, "method_options": {"n_steps": 1, "replay": 8}},
    "hvae": {"labelled_images": 2, "crop_px": 32},
}


def _diverges_once(monkeypatch: pytest.MonkeyPatch, name: str, at: int) -> None:
    """Make the loss of a method NaN at a step, the first time that it comes there."""
    kind = type(make_method(name))
    sound, met = kind.loss, []

    def loss(self: Any, net: Any, extra: Any, batch: Any, step: Any, rng: Any) -> Loss:
        found = sound(self, net, extra, batch, step, rng)
        if step.index != at or met:
            return found
        met.append(at)
        return replace(found, total=found.total * float("nan"))

    monkeypatch.setattr(kind, "loss", loss)


@pytest.mark.parametrize("name", CASES)
def test_a_report_tells_that_the_training_went_back(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERUNDA_CACHE", str(tmp_path / "cache"))
    write = write_images if name == "jem" else write_masks
    data = write(tmp_path / "data", 10)
    _diverges_once(monkeypatch, name, at=2)
    outcome = train(TrainOptions(dataset=str(data), method=name, **QUICK, **CASES[name]), tmp_path / "out")
    told = json.loads((tmp_path / "out" / "report.json").read_text())
    text = (
        f"training diverged at step 2 of stage '{name}': the total loss is nan; went back to step 0, from there on "
        "steps are half as large (1 of 5 returns)"
    )
    assert told["training"]["returned"] == [text]
    assert told["comparison"][-1]["returned"] == [text]
    assert told["warnings"] == list(outcome.warnings)
    assert any(
        line.startswith("The training diverged once and went back to an earlier step") for line in told["warnings"]
    )
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Went back, 1 of 1" in page
    assert "the total loss is nan; went back to step 0" in page


def test_a_training_that_never_went_back_has_nothing_to_tell() -> None:
    assert list(went_back(())) == []
    assert "diverged 2 times" in next(went_back(("a", "b")))
