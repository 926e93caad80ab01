"""Weights between two losses: values against formulas, gradients, where each form drifts, and in which methods."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import pytest
import torch
from torch import nn
from toy_training import ToySource

from berunda.errors import ConfigError
from berunda.methods import make_method
from berunda.methods._checking.trial import make_trial
from berunda.methods._weighting import FORMS, Weighting, add_weighting, joined, rates_of
from berunda.methods.contract import NetSpec, Step
from berunda.train.config import TrainConfig
from berunda.train.loop import train
from berunda.train.optimizer import build_optimizer


def step(index: int = 0) -> Step:
    return Step(index, 1000)


def pair(supervised: float, unsupervised: float) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(supervised, requires_grad=True), torch.tensor(unsupervised, requires_grad=True)


def learned(form: str, supervised: float, unsupervised: float, n_steps: int = 3000, start: float = 0.5) -> list[float]:
    """The curve of w when the two losses stay what they are."""
    weighting = Weighting(form, start)
    optimizer = torch.optim.Adam(weighting.parameters(), lr=0.02)
    curve = []
    for index in range(n_steps):
        one = weighting(torch.tensor(supervised), torch.tensor(unsupervised), step(index))
        optimizer.zero_grad()
        one.total.backward()
        optimizer.step()
        for name, update in one.updates.items():
            weighting.get_buffer(name.removeprefix("weighting.")).copy_(update.value)
        curve.append(float(one.terms["weight"]))
    return curve


@pytest.mark.parametrize("w", [0.0, 0.3, 1.0])
def test_fixed_is_the_sum_of_the_paper(w: float) -> None:
    losses = pair(2.0, 5.0)
    one = Weighting("fixed", w)(*losses, step())
    one.total.backward()
    assert one.total.item() == pytest.approx(2 * w + 5 * (1 - w))
    assert [x.grad.item() for x in losses] == pytest.approx([w, 1 - w])
    assert one.terms["weight"].item() == pytest.approx(w)
    assert not one.updates


@pytest.mark.parametrize("form", ["raw", "normalised", "uncertainty"])
@pytest.mark.parametrize("w", [0.2, 0.5, 0.9])
def test_learned_forms_start_at_the_weight_asked_for(form: str, w: float) -> None:
    one = Weighting(form, w)(*pair(2.0, 5.0), step())
    assert one.terms["weight"].item() == pytest.approx(w, abs=1e-6)
    expected = 1.0 if form == "normalised" else 2 * w + 5 * (1 - w)
    assert one.total.item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("form", ["raw", "normalised", "uncertainty"])
@pytest.mark.parametrize("w", [0.0, 1.0])
def test_learned_forms_never_start_at_an_end(form: str, w: float) -> None:
    one = Weighting(form, w)(*pair(2.0, 5.0), step())
    one.total.backward()
    assert one.terms["weight"].item() == pytest.approx(0.02 if w == 0 else 0.98, abs=1e-6)


def test_raw_gradient_is_the_difference_of_the_losses() -> None:
    weighting = Weighting("raw", 0.5)
    weighting(*pair(2.0, 5.0), step()).total.backward()
    assert weighting.theta.grad.item() == pytest.approx((2 - 5) * 0.98 * 0.25, rel=1e-5)


def test_raw_drifts_to_the_smaller_loss_up_to_its_bound() -> None:
    assert learned("raw", 0.3, 0.6)[-1] == pytest.approx(0.99, abs=0.005)
    assert learned("raw", 0.6, 0.3)[-1] == pytest.approx(0.01, abs=0.005)


def test_normalised_stays_near_its_start() -> None:
    curve = learned("normalised", 0.3, 6.0)
    assert max(abs(w - 0.5) for w in curve) < 0.02


def test_normalised_divides_by_running_means() -> None:
    weighting = Weighting("normalised", 0.5)
    first = weighting(*pair(2.0, 0.0), step(0))
    assert first.updates["weighting.means"].value.tolist() == pytest.approx([2.0, 0.0])
    weighting.means.copy_(first.updates["weighting.means"].value)
    second = weighting(*pair(4.0, 3.0), step(5000))
    assert second.updates["weighting.means"].value.tolist() == pytest.approx([0.99 * 2 + 0.01 * 4, 3.0])
    assert second.total.item() == pytest.approx(0.5 * 4 / 2.02 + 0.5, rel=1e-5)


def test_uncertainty_has_its_minimum_inside() -> None:
    """At s = log(L + 0.05) the weights are 1 / (L + 0.05) each, so both terms contribute alike."""
    for start in (0.1, 0.5, 0.9):
        assert learned("uncertainty", 0.3, 0.6, start=start)[-1] == pytest.approx(0.65, abs=0.01)


def test_uncertainty_against_the_formula() -> None:
    weighting = Weighting("uncertainty", 0.4)
    with torch.no_grad():
        weighting.scales.copy_(torch.tensor([0.7, -0.2]))
    found = weighting(*pair(2.0, 5.0), step()).total.item()
    constant = math.log(0.4) + math.log(0.6)
    assert found == pytest.approx(2.05 * math.exp(-0.7) + 0.7 + 5.05 * math.exp(0.2) - 0.2 + constant - 0.05, rel=1e-5)


def test_uncertainty_of_a_loss_that_is_nothing_is_bounded() -> None:
    """Pseudo-labels may be believed late: until then their loss is 0."""
    weighting = Weighting("uncertainty")
    optimizer = torch.optim.Adam(weighting.parameters(), lr=0.1)
    for index in range(2000):
        one = weighting(torch.tensor(0.5), torch.tensor(0.0), step(index))
        optimizer.zero_grad()
        one.total.backward()
        optimizer.step()
    assert (-weighting.scales.detach()).exp().tolist() == pytest.approx([1 / 0.55, 20], rel=0.05)


@pytest.mark.parametrize("form", FORMS)
def test_nothing_to_learn_from_is_no_loss(form: str) -> None:
    assert abs(Weighting(form)(*pair(0.0, 0.0), step()).total.item()) < 1e-6


@pytest.mark.parametrize("form", FORMS)
def test_other_methods_begin_with_their_own_sum(form: str) -> None:
    extra = add_weighting(nn.Module(), form)
    one = joined(extra, *pair(2.0, 5.0), step())
    assert one.total.item() == pytest.approx(2.0 if form == "normalised" else 7.0, rel=1e-5)
    assert ("weight" in one.terms) == (form != "fixed")
    assert bool(list(extra.parameters())) == (form != "fixed")


@pytest.mark.parametrize(
    ("name", "form"),
    [*product(["berunda", "fixmatch", "ssl_mae"], ["raw", "normalised", "uncertainty"]), ("jem", "raw")],
)
def test_two_term_methods_learn_the_weight_at_its_own_rate(name: str, form: str) -> None:
    method = make_method(name, {"weighting": form})
    trial = make_trial(method, "scene")
    pair_of = nn.ModuleDict({"net": trial.net, "extra": trial.extra})
    config = TrainConfig(steps=10, learning_rate=0.1, weight_decay=0.5)
    groups = build_optimizer(pair_of, config, method.needs().parameter_groups).param_groups
    weights = {id(p) for p in trial.extra.get_submodule("weighting").parameters()}
    (own,) = [group for group in groups if any(id(p) in weights for p in group["params"])]
    assert {id(p) for p in own["params"]} == weights
    assert own["factor"] == 10
    assert own["weight_decay"] == 0
    trial.loss().total.backward()
    assert all(p.grad is not None for p in trial.extra.get_submodule("weighting").parameters())


@pytest.mark.parametrize("name", ["berunda", "fixmatch"])
def test_the_weight_and_its_means_go_through_the_loop(name: str) -> None:
    options: dict[str, Any] = {"weighting": "normalised", "mu": 1.0}
    if name == "fixmatch":
        options["threshold"] = 0.0
    spec = NetSpec("segmentation", 4, 3, encoder_depth=2, decoder="slim", pretrained=False, crop_px=12)
    trained = train(make_method(name, options), spec, ToySource(), TrainConfig(steps=3, n_labelled=2))
    assert all(0 < row["weight"] < 1 for row in trained.log)
    assert bool((trained.extra.weighting.means > 0).all())


@pytest.mark.parametrize(("name", "task"), [("jem", "scene"), ("segjem", "segmentation")])
def test_a_likelihood_is_weighed_raw_or_not_at_all(name: str, task: Any) -> None:
    fixed, raw = (make_trial(make_method(name, {"weighting": form}), task).loss() for form in ("fixed", "raw"))
    assert raw.total.item() == pytest.approx(fixed.total.item(), rel=1e-5)
    assert "weight" not in fixed.terms
    assert raw.terms["weight"].item() == pytest.approx(0.5)
    for form in ("normalised", "uncertainty"):
        with pytest.raises(ConfigError, match=f"option 'weighting' is '{form}', expected one of fixed, raw"):
            make_method(name, {"weighting": form})


def test_a_fixed_weight_leaves_a_method_as_it_was() -> None:
    assert rates_of("fixed") == ()
    for name in ("berunda", "fixmatch"):
        trial = make_trial(make_method(name), "scene")
        loss = trial.loss()
        assert not any("weighting" in key for key in trial.extra.state_dict())
        expected = loss.terms["supervised"] + trial.method.lambda_u * loss.terms["unsupervised"]
        assert torch.equal(loss.total.detach(), expected)


def test_weights_are_learned_with_several_labels_too() -> None:
    for weighting, is_told in (("fixed", False), ("raw", True)):
        trial = make_trial(make_method("fixmatch", {"weighting": weighting}), "multilabel")
        assert ("weight" in trial.loss().terms) is is_told
