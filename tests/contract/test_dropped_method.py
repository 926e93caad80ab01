"""A method is one file: dropped in, it trains, is listed and is documented, without another edit."""

from __future__ import annotations

import importlib.metadata
import sys
from importlib.metadata import EntryPoint

import pytest
from toy_training import ToySource

import berunda.methods
from berunda.cli.main import main
from berunda.errors import ConfigError
from berunda.methods import describe_method, load_method, make_method, method_names
from berunda.methods._checking.trial import make_trial
from berunda.methods.check import check_method
from berunda.models.spec import NetSpec
from berunda.train.config import TrainConfig
from berunda.train.loop import train

FILE = '''"""Entropy minimisation."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from berunda.losses import masked_mean, supervised_loss
from berunda.methods.contract import Loss, Method, Needs, View, setting


@dataclass(frozen=True)
class Entropy(Method):
    """Predictions on unlabelled images should be sure.

    Source: Grandvalet and Bengio 2005.
    """

    name: ClassVar[str] = "entropy"
    weight: float = setting(0.1, "weight of the entropy", valid=(0, 10), source="Grandvalet and Bengio 2005")

    def needs(self):
        views = (View("weak", "weak"),)
        return Needs(tasks=("segmentation",), unlabelled=views, unlabelled_ratio=1.0, trained_passes=1.0)

    def init(self, net, spec):
        return nn.Module()

    def loss(self, net, extra, batch, step, rng):
        labelled = batch.labelled["weak"]
        total = supervised_loss(net(labelled.pixels), labelled.labels, labelled.valid)
        for images in batch.unlabelled.values():
            log_p = net(images.pixels).log_softmax(1)
            total = total + self.weight * masked_mean(-(log_p.exp() * log_p).sum(1), images.valid)
        return Loss(total, {"total_again": total.detach()})
'''


@pytest.fixture
def dropped(tmp_path, monkeypatch):
    (tmp_path / "entropy.py").write_text(FILE)
    monkeypatch.setattr(berunda.methods, "__path__", [*berunda.methods.__path__, str(tmp_path)])
    yield "entropy"
    sys.modules.pop("berunda.methods.entropy", None)


def test_it_is_listed_and_documented(dropped):
    assert dropped in method_names()
    found = describe_method(dropped)
    assert found["summary"] == "Predictions on unlabelled images should be sure."
    assert found["source"] == "Grandvalet and Bengio 2005."
    assert [setting["name"] for setting in found["settings"]] == ["weight"]
    assert found["needs"]["unlabelled_ratio"] == 1


def test_it_trains_and_passes_the_checks(dropped):
    method = make_method(dropped, {"weight": "0.2"})
    losses = make_trial(method, "segmentation").train(30)
    assert losses[-1] < 0.5 * losses[0]
    assert [r for r in check_method(method) if not r.passed] == []


def test_the_real_loop_trains_it_on_the_real_net(dropped):
    spec = NetSpec("segmentation", 4, 3, encoder_depth=2, pretrained=False, crop_px=12, pixel_path=True)
    trained = train(make_method(dropped, {}), spec, ToySource(), TrainConfig(steps=3, n_labelled=2, device="cpu"))
    assert len(trained.log) == 3
    assert all("total_again" in row for row in trained.log)


def test_the_command_line_lists_and_describes_it(dropped, capsys):
    assert main(["methods"]) == 0
    assert "entropy" in capsys.readouterr().out
    assert main(["methods", dropped]) == 0
    assert "weight of the entropy" in capsys.readouterr().out


def test_a_broken_file_is_named(tmp_path, monkeypatch):
    (tmp_path / "hollow.py").write_text("x = 1\n")
    monkeypatch.setattr(berunda.methods, "__path__", [*berunda.methods.__path__, str(tmp_path)])
    with pytest.raises(ConfigError, match="method 'hollow': its file defines no Method"):
        load_method("hollow")


def test_an_installed_package_can_add_one(dropped, monkeypatch):
    load_method(dropped)
    point = EntryPoint("entropy", "berunda.methods.entropy:Entropy", "berunda.methods")
    wrong = EntryPoint("other", "berunda.methods.entropy:Entropy", "berunda.methods")
    monkeypatch.setattr(berunda.methods, "_own_names", lambda: frozenset({"supervised"}))
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [point, wrong])
    assert method_names() == ("entropy", "other", "supervised")
    assert load_method("entropy").name == "entropy"
    with pytest.raises(ConfigError, match="is no Method whose name is 'other'"):
        load_method("other")
