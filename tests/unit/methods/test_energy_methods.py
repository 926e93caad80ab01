"""JEM and SegJEM: energies, moves and restarts against twins in numpy; what the chains touch and what they do not."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from berunda import losses
from berunda.data.order import Randomness
from berunda.errors import ConfigError
from berunda.methods import make_method
from berunda.methods._checking.trial import PointNet, Trial, make_trial
from berunda.methods._energy import VARIANTS, Langevin, _resampled, likelihood, resembling, sample
from berunda.methods._generators import AT_ONCE
from berunda.methods.contract import NetSpec, Step
from berunda.train.stages import methods_of, plan_stages

N, C = 5, 3
METHODS = [("jem", "scene"), ("segjem", "segmentation")]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def np_energy(logits, labels=None):
    if labels is None:
        return -np.log(np.exp(logits).sum(1))
    return -np.take_along_axis(logits, labels[:, None], 1)[:, 0]


def np_step(x, gradient, step, noise, clamp, bounds):
    return np.clip(x - step * np.clip(gradient, -clamp, clamp) + noise, *bounds)


@pytest.mark.parametrize("shape", [(N, C), (N, C, 4, 3)])
def test_energy_agrees_with_its_twin(shape: tuple[int, ...]) -> None:
    logits = draw(*shape)
    labels = torch.arange(N * math.prod(shape[2:])).remainder(C).view(N, *shape[2:])
    np.testing.assert_allclose(losses.energy(logits), np_energy(logits.numpy()), atol=1e-12)
    np.testing.assert_allclose(losses.energy(logits, labels), np_energy(logits.numpy(), labels.numpy()), atol=1e-12)
    assert torch.autograd.gradcheck(losses.energy, logits.requires_grad_())


def test_energy_and_classes_are_one_density() -> None:
    """p(y | x) = exp(E(x) - E(x, y)), whatever the logits; large ones neither overflow."""
    logits = 500 * draw(N, C)
    labels = torch.arange(N) % C
    expected = logits.log_softmax(1).gather(1, labels[:, None])[:, 0]
    torch.testing.assert_close(losses.energy(logits) - losses.energy(logits, labels), expected)


@pytest.mark.parametrize(("clamp", "step"), [(math.inf, 1.0), (0.5, 0.3)])
def test_a_move_agrees_with_its_twin(clamp: float, step: float) -> None:
    x, gradient, noise = (2 * draw(N, 2, 4, 4, seed=seed) for seed in range(3))
    by_band = torch.tensor([-0.5, 0.1]).view(1, 2, 1, 1), torch.tensor([1.0, 0.2]).view(1, 2, 1, 1)
    for bounds in ((-3.0, 3.0), by_band):
        found = losses.langevin_step(x, gradient, step, 0.1 * noise, clamp=clamp, bounds=bounds)
        expected = np_step(
            x.numpy(), gradient.numpy(), step, 0.1 * noise.numpy(), clamp, [np.asarray(b) for b in bounds]
        )
        np.testing.assert_allclose(found, expected)


def test_a_gradient_without_bounds_cannot_leave_the_range_and_nan_is_not_hidden() -> None:
    x = torch.zeros(1, 1, 1, 3)
    gradient = torch.tensor([math.inf, -math.inf, math.nan]).view(1, 1, 1, 3)
    found = losses.langevin_step(x, gradient, 1.0, x, clamp=math.inf, bounds=(-3.0, 3.0)).flatten()
    assert found[:2].tolist() == [-3, 3]
    assert bool(found[2].isnan())


def test_restarts_agree_with_their_twin() -> None:
    old, fresh, chance = draw(N, 1, 2, 2), draw(N, 1, 2, 2, seed=1), torch.linspace(0, 1, N)
    expected = np.where((chance.numpy() < 0.5)[:, None, None, None], fresh, old)
    assert np.array_equal(losses.restarted(old, fresh, chance, 0.5), expected)
    assert torch.equal(losses.restarted(old, fresh, chance, 0.0), old)


def test_informed_chains_begin_with_the_mean_and_covariance_of_the_images() -> None:
    images = 0.3 * draw(4, 2, 3, 3) + 0.2
    drawn = [resembling(images, torch.Generator().manual_seed(seed)) for seed in range(800)]
    flat, own = torch.cat(drawn).flatten(1), images.flatten(1)
    torch.testing.assert_close(flat.mean(0), own.mean(0), atol=0.03, rtol=0)
    torch.testing.assert_close(flat.T.cov(), own.T.cov(), atol=0.03, rtol=0)


def test_a_chain_begins_when_it_is_first_drawn_and_then_goes_on() -> None:
    """Uniform noise for jem; what resembles the images for the others."""
    for variant, least in (("jem", 0.5), ("sada", 0.0)):
        options = {"variant": variant, "replay": 4, "restart": 0.0, "n_steps": 1, "step_size": 1e-9, "input_noise": 0.0}
        trial = make_trial(make_method("jem", options), "scene")
        first = trial.loss().updates
        assert bool((first["begun"].value == 1).all())
        values = first["replay"].value
        assert float((values.abs().amax((1, 2, 3)) > least).double().mean()) == 1
        for name, update in first.items():
            trial.extra.get_buffer(name).copy_(update.value)
        again = trial.loss(step=1).updates["replay"].value
        assert float((again - values).abs().max()) < 0.1


def test_the_gap_is_a_mean_over_pixels() -> None:
    data, sampled, mask = draw(N, 4, 4), draw(N, 4, 4, seed=1), draw(N, 4, 4, seed=2) > 0
    expected = (data - sampled).numpy()[mask.numpy()].mean()
    assert float(losses.likelihood_gap(data, sampled, mask)) == pytest.approx(expected)
    assert float(losses.likelihood_gap(data, sampled, mask & False)) == 0


def test_chains_agree_with_their_twin() -> None:
    """A quadratic energy, whose gradient is known: three clamped steps without noise."""
    start = draw(N, 2, 3, 3)
    valid = torch.ones(N, 3, 3, dtype=torch.bool)
    valid[:, 0] = False
    found = sample(lambda x: x.square().sum(1), start, valid, Langevin(3, 0.2, 1.0, 0.0), torch.Generator())
    expected = start.numpy()
    for _ in range(3):
        expected = np_step(expected, 2 * expected * valid.numpy()[:, None], 0.2, 0.0, 1.0, (-3.0, 3.0))
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert not found.requires_grad


def test_noise_has_the_deviation_that_was_asked_for() -> None:
    start, valid = torch.zeros(64, 1, 8, 8), torch.ones(64, 8, 8, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    found = sample(lambda x: 0 * x.sum((1, 2, 3)), start, valid, Langevin(4, 1.0, math.inf, 0.01), generator)
    assert float(found.std()) == pytest.approx(0.02, rel=0.05)


class Normed(PointNet):
    """With batch norm and dropout."""

    def __init__(self, spec: Any) -> None:
        super().__init__(spec)
        self.norm, self.dropout = nn.BatchNorm2d(self.feature_dim), nn.Dropout(0.5)

    def encode(self, pixels: Tensor) -> list[Tensor]:
        return [self.dropout(self.norm(self.first(pixels)).relu())]


def chains_of(trial: Trial, step: Step | None = None) -> Tensor:
    from berunda.methods._energy import energies_of

    method: Any = trial.method
    energies = energies_of(trial.method, (trial.net, trial.extra))
    where = step or Step(0, 10)
    return method.chains.draw(
        energies, trial.extra, (trial.labelled.pixels, trial.labelled.valid), where, Randomness(0)
    )[0]


@pytest.mark.parametrize(("name", "task"), METHODS)
def test_no_gradient_reaches_a_parameter_while_sampling(name: str, task: Any) -> None:
    trial = make_trial(make_method(name), task)
    touched: list[Tensor] = []
    for parameter in trial.net.parameters():
        parameter.register_hook(touched.append)
    samples = chains_of(trial)
    assert not touched
    assert all(p.grad is None for p in trial.net.parameters())
    assert not samples.requires_grad


@pytest.mark.parametrize(("name", "task"), METHODS)
def test_chains_see_the_net_as_it_predicts_and_leave_it_in_training(name: str, task: Any) -> None:
    trial = make_trial(make_method(name), task, Normed)
    net: Any = trial.net
    seen: list[bool] = []
    net.dropout.register_forward_hook(lambda layer, *_: seen.append(layer.training))
    before = net.norm.running_mean.clone()
    chains_of(trial)
    assert len(seen) == 20
    assert not any(seen)
    assert torch.equal(net.norm.running_mean, before)
    assert net.dropout.training


@pytest.mark.parametrize(("name", "task"), METHODS)
def test_only_images_enter_the_statistics_of_batch_norm(name: str, task: Any) -> None:
    found = []
    for replay in (0.0, 2.9):
        trial = make_trial(make_method(name, {"restart": 0.0}), task, Normed)
        net: Any = trial.net
        trial.extra.get_buffer("replay").fill_(replay)
        trial.extra.get_buffer("begun").fill_(1)
        net.dropout.p = 0.0
        trial.loss()
        found.append(net.norm.running_mean.clone())
    assert torch.equal(*found)
    assert bool(found[0].any())


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_buffer_takes_the_samples_and_keeps_the_rest(variant: str) -> None:
    trial = make_trial(make_method("jem", {"variant": variant, "replay": 50}), "scene")
    loss, replay = trial.loss(), trial.extra.get_buffer("replay")
    update = loss.updates["replay"]
    changed = (update.value != replay).flatten(1).any(1)
    assert update.reduction == "per_rank"
    assert int(changed.sum()) == 4


def test_samples_stay_within_the_range_of_the_images_beside_them() -> None:
    """Band by band; steps of 100 take every pixel that the net looks at to one of the bounds."""
    options = {"input_noise": 0.0, "step_size": 100.0, "n_steps": 3, "replay": 4}
    trial = make_trial(make_method("jem", options), "scene")
    batch, factors = trial.batch(), torch.tensor([0.1, 0.2, 0.5, 1.0]).view(1, -1, 1, 1)
    images = replace(batch.unlabelled["weak"], pixels=batch.unlabelled["weak"].pixels * factors)
    samples = trial.loss(replace(batch, unlabelled={"weak": images})).updates["replay"].value
    for band in range(4):
        shown, drawn = images.pixels[:, band], samples[:, band]
        assert float(shown.min()) <= float(drawn.min()) <= float(drawn.max()) <= float(shown.max())
        assert bool(((drawn == shown.min()) | (drawn == shown.max())).any())


def test_the_likelihood_is_of_unlabelled_images_and_of_labelled_ones_only_without_any() -> None:
    for variant, plain in (("jem", "weak"), ("sada", "plain")):
        trial = make_trial(make_method("jem", {"variant": variant, "input_noise": 0.0}), "scene")
        batch = trial.batch()
        other = {name: replace(images, pixels=images.pixels.flip(0)) for name, images in batch.labelled.items()}
        first, second = trial.loss(batch), trial.loss(replace(batch, labelled=other))
        assert first.terms["supervised"] != second.terms["supervised"]
        for term in ("likelihood", "energy_data", "energy_samples"):
            assert first.terms[term] == second.terms[term]
        alone = trial.loss(replace(batch, unlabelled={})).terms["energy_data"]
        with torch.no_grad():
            torch.testing.assert_close(alone, losses.energy(trial.net(batch.labelled[plain].pixels)).mean())


def test_the_weight_of_the_likelihood_rises() -> None:
    trial = make_trial(make_method("jem", {"lambda_p": 0.5, "ramp": 0.4}), "scene")
    for step, weight in ((0, math.exp(-5)), (20, math.exp(-5 / 4)), (40, 1.0), (99, 1.0)):
        loss = trial.loss(step=step)
        expected = loss.terms["supervised"] + 0.5 * weight * loss.terms["likelihood"]
        torch.testing.assert_close(loss.total.detach(), expected)


@pytest.mark.parametrize("task", ["scene", "segmentation"])
def test_norms_leave_what_tells_samples_from_images_and_so_it_is_trained(task: Any) -> None:
    """A cast of colour: norms that see images and samples apart take it away, though chains and `ood` see it."""
    trial = make_trial(make_method("jem" if task == "scene" else "segjem"), task, Normed)
    net: Any = trial.net
    net.dropout.p = 0.0
    pixels, valid = trial.labelled.pixels, torch.ones_like(trial.labelled.valid)
    samples = pixels + 0.5
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)

    def predicted_gap() -> float:
        with torch.no_grad():
            gap = losses.energy(net.eval()(pixels)) - losses.energy(net(samples))
        net.train()
        return float(gap.mean())

    for _ in range(30):
        net(pixels)  # records statistics
    before = predicted_gap()
    for _ in range(30):
        gap, terms = likelihood(trial.method, (net, trial.extra), (pixels, valid), samples)
        torch.testing.assert_close(gap.detach(), terms["energy_data"] - terms["energy_samples"])
        optimizer.zero_grad()
        gap.backward()
        optimizer.step()
    assert float(gap.detach()) < -0.5
    assert predicted_gap() < before - 0.5


def test_the_second_pass_takes_the_samples_of_the_first() -> None:
    trial = make_trial(make_method("jem", {"variant": "sada"}), "scene")
    assert trial.method.needs().sharpness_rho == 0.05
    first = trial.loss()
    calls: list[int] = []
    trial.net.register_forward_hook(lambda *_: calls.append(1))
    where = Step(0, 100, before=first)
    second = trial.method.loss(trial.net, trial.extra, trial.batch(0), where, trial.rng.at(0))
    assert len(calls) == 2  # images, samples, and no step of a chain
    assert torch.equal(second.total, first.total)
    assert not second.updates


def test_the_likelihood_is_of_the_images_as_they_are_for_sada_alone() -> None:
    for variant, recipe in (("jem", "weak"), ("jem++", "weak"), ("sada", "identity")):
        needs = make_method("jem", {"variant": variant}).needs()
        assert [view.recipe for view in needs.unlabelled] == [recipe]
        assert needs.labelled[0].recipe == "weak"


def test_samples_have_the_gaps_of_the_images() -> None:
    """What a sample says under a gap cannot tell it from an image."""
    totals = []
    for fill in (-2.0, 2.0):
        trial = make_trial(make_method("segjem", {"restart": 0.0, "n_steps": 1}), "segmentation")
        batch = trial.batch()
        trial.extra.get_buffer("begun").fill_(1)
        trial.extra.get_buffer("replay")[:, :, 0, 0] = fill
        for images in (*batch.labelled.values(), *batch.unlabelled.values()):
            images.valid[:, 0, 0] = False
            images.pixels[:, :, 0, 0] = 0
        totals.append(trial.loss(batch).total)
    assert torch.equal(*totals)


def test_a_buffer_that_does_not_fit_is_refused() -> None:
    trial = make_trial(make_method("jem", {"replay": 3}), "scene")
    with pytest.raises(ConfigError, match="found 3 chains of 12 x 12 px, expected at least 4 of 12 x 12"):
        trial.loss()
    trial = make_trial(make_method("jem"), "scene")

    trial.extra = trial.method.init(trial.net, replace(trial.spec, crop_px=6))
    with pytest.raises(ConfigError, match="of 6 x 6 px, expected at least 4 of 12 x 12 px"):
        trial.loss()


def test_a_buffer_that_would_fill_the_memory_is_refused_and_the_default_for_maps_is_small() -> None:
    spec = NetSpec("scene", 13, 10, crop_px=96)
    with pytest.raises(
        ConfigError, match=r"found 10000 chains of 13 bands .* take 4.8 GB, expected at most 2240 chains"
    ):
        make_method("jem", {"replay": 10_000}).init(nn.Module(), spec)
    held = make_method("segjem").init(nn.Module(), replace(spec, task="segmentation")).get_buffer("replay")
    assert held.numel() * held.element_size() < 100e6


def test_going_back_halves_the_step_of_the_chains() -> None:
    trial = make_trial(make_method("jem", {"restart": 0.0, "n_steps": 1}), "scene")
    trial.extra.get_buffer("begun").fill_(1)
    trial.extra.get_buffer("replay").uniform_(-1, 1, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in trial.net.parameters():
            parameter.mul_(3)
    moved = []
    for _ in range(2):
        before = trial.extra.get_buffer("replay").clone()
        trial.extra.get_buffer("replay").mul_(0.1)
        start = trial.extra.get_buffer("replay").clone()
        moved.append((trial.loss().updates["replay"].value - start).abs().max())
        trial.extra.get_buffer("replay").copy_(before)
        trial.extra.get_buffer("step_share").copy_(trial.method.calmed(trial.extra)["step_share"])
    assert float(trial.extra.get_buffer("step_share")) == 0.25
    assert moved[1] < moved[0]


def test_training_makes_images_likelier_than_noise() -> None:
    trial = make_trial(make_method("jem", {"replay": 64}), "scene", n_labelled=16)
    trial.train(60, learning_rate=0.005)
    noise = 2 * torch.rand(16, 4, 12, 12, generator=torch.Generator().manual_seed(3)) - 1
    with torch.no_grad():
        images, other = (losses.energy(trial.net(x)).mean() for x in (trial.labelled.pixels, noise))
    assert images < other


def test_the_joint_loss_is_fixmatch_and_a_likelihood_of_weak_views() -> None:
    options = {"threshold": 0.4, "replay": 64, "share": 0.0, "ramp": 0.0}
    alone = make_trial(make_method("fixmatch", {"threshold": 0.4}), "scene").loss()
    found = {}
    for weight in (0.0, 0.5):
        found[weight] = make_trial(make_method("fixmatch_jem", {**options, "lambda_p": weight}), "scene").loss()
    assert torch.equal(found[0.0].total, alone.total)
    assert set(found[0.0].updates) == {*alone.updates, "replay", "begun"}
    gap = found[0.5].terms["likelihood"]
    torch.testing.assert_close(found[0.5].total, alone.total + 0.5 * gap)
    torch.testing.assert_close(gap, found[0.5].terms["energy_data"] - found[0.5].terms["energy_samples"])


def test_the_joint_loss_is_fixmatch_alone_at_first_and_then_takes_some_unlabelled_images() -> None:
    trial = make_trial(make_method("fixmatch_jem", {"share": 0.3, "n_steps": 3, "mu_p": 0.5, "ramp": 0.2}), "scene")
    alone = make_trial(make_method("fixmatch"), "scene")
    seen: list[int] = []
    trial.net.register_forward_hook(lambda layer, inputs, _: seen.append(len(inputs[0])))
    first = trial.loss(step=29)
    assert torch.equal(first.total, alone.loss(step=29).total)
    assert set(first.terms) == set(alone.loss().terms)
    assert {"used", "pseudo_0"} <= set(first.terms)
    assert not {"replay", "likelihood"} & {*first.updates, *first.terms}
    seen.clear()
    later = trial.loss(step=30)
    assert seen == [4 + 8, 2, 2, 2, 2 + 2]  # labelled and strong views, three steps of two chains, images and samples
    expected = alone.loss(step=30).total + 0.1 * math.exp(-5) * later.terms["likelihood"]
    torch.testing.assert_close(later.total, expected)


def test_joint_training_records_the_statistics_of_fixmatch() -> None:
    nets: list[Any] = []
    for name, options in (("fixmatch", {}), ("fixmatch_jem", {"share": 0.0})):
        trial = make_trial(make_method(name, options), "scene", Normed)
        nets.append(trial.net)
        nets[-1].dropout.p = 0.0
        trial.loss()
    assert torch.equal(nets[0].norm.running_mean, nets[1].norm.running_mean)
    assert torch.equal(nets[0].norm.running_var, nets[1].norm.running_var)


def test_what_a_method_with_chains_costs_follows_its_settings() -> None:
    """Forward and backward passes of what a net is shown; of chains two thirds, of predicted labels a third."""
    needs = make_method("jem", {"n_steps": 6}).needs()
    assert (needs.labelled_passes, needs.trained_passes) == (1.0, 2.0 + 4.0)
    needs = make_method("jem", {"variant": "sada", "n_steps": 6}).needs()
    assert (needs.labelled_passes, needs.trained_passes) == (2.0, 4.0 + 4.0)
    needs = make_method("jem", {"variant": "sada", "n_steps": 6, "rho": 0.0}).needs()
    assert (needs.labelled_passes, needs.trained_passes, needs.sharpness_rho) == (1.0, 2.0 + 4.0, 0.0)
    assert make_method("jem", {"n_steps": 6, "mu": 0.0}).needs().labelled_passes == 7.0
    joint = make_method("fixmatch_jem", {"n_steps": 6, "share": 0.25, "mu_p": 0.5, "mu": 5.0}).needs()
    assert joint.trained_passes == pytest.approx(1.0 + 0.75 * 0.1 * 6.0)


def test_methods_with_chains_bring_a_rate_and_a_bound_on_the_gradient() -> None:
    for name in ("jem", "segjem", "vae"):
        needs = make_method(name, {"rate": 0.2, "clip_norm": 0.7}).needs()
        assert (needs.rate, needs.clip_norm) == (0.2, 0.7)
    rates = {variant: make_method("jem", {"variant": variant}).needs().rate for variant in VARIANTS}
    assert 0 < rates["jem"] < 0.1 < rates["sada"] == rates["jem++"] <= 1
    joint = make_method("fixmatch_jem", {"rate": 0.2, "clip_norm": 0.7})
    assert (joint.needs().rate, joint.needs().clip_norm) == (1.0, 0.7)
    pipeline = replace(joint, form="pipeline")  # type: ignore[type-var]
    assert (pipeline.needs().rate, pipeline.needs().clip_norm) == (0.2, 0.7)
    assert replace(pipeline, rate=0.0).needs().rate == rates["sada"]  # type: ignore[type-var]


def test_the_pipeline_is_fixmatch_and_then_jem_on_predicted_labels() -> None:
    method = make_method("fixmatch_jem", {"form": "pipeline", "share": 0.25, "variant": "jem++"})
    first, second = method.stages()
    assert (first.method, first.share, first.labels) == ("fixmatch", 0.25, "given")
    assert (second.method, second.share, second.labels) == (None, 0.75, "predicted")
    options = {"variant": "jem++", "mu": 0.5, "lambda_p": 0.1, "ramp": 0.2, "clip_norm": 5.0}
    needs = make_method("jem", options).needs()
    assert method.needs() == replace(needs, labelled_passes=needs.labelled_passes + 1 / 6)  # labels that are predicted
    jem = make_trial(make_method("jem", options), "scene").loss()
    assert torch.equal(make_trial(method, "scene").loss().total, jem.total)


def test_both_parts_of_the_pipeline_get_the_options_that_are_theirs() -> None:
    first = {"threshold": 0.8, "lambda_u": 2.0, "mu": 3.0, "q_from": "student", "align": "uniform"}
    second = {"lambda_p": 0.3, "ramp": 0.0, "n_steps": 2, "step_size": 0.5, "rho": 0.0, "replay": 8, "variant": "jem++"}
    method = make_method("fixmatch_jem", {"form": "pipeline", "mu_p": 2.0, **first, **second})
    trained, later = methods_of(method)
    assert trained == make_method("fixmatch", first)
    jem = make_method("jem", {"mu": 2.0, "clip_norm": 5.0, **second})
    own, other = (make_trial(each, "scene").loss() for each in (later, jem))
    assert torch.equal(own.total, other.total)
    assert torch.equal(own.updates["replay"].value, other.updates["replay"].value)


def test_a_pipeline_without_a_first_part_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"shares of its stages are \[0.0, 1.0\], expected some above 0"):
        plan_stages(make_method("fixmatch_jem", {"form": "pipeline", "share": 0}), 100)


@pytest.mark.parametrize(("name", "task"), METHODS)
def test_generated_images_are_of_their_class(name: str, task: Any) -> None:
    trial = make_trial(make_method(name, {"variant": "sada", "replay": 64}), task, n_labelled=16)
    trial.train(60, learning_rate=0.01)
    labels = torch.tensor([0, 1, 2, 1, 0])
    images = trial.method.generate(trial.net, trial.extra, labels, Randomness(0))
    logits = trial.net(images) if task == "scene" else trial.net(images).mean((2, 3))
    assert images.shape == (5, 4, 12, 12)
    assert float(images.abs().max()) <= 3
    assert logits.argmax(1).tolist() == labels.tolist()
    assert not torch.equal(images[1], images[3])  # each from a chain of its own


@pytest.mark.parametrize(("replay", "n_begun"), [(160, 160), (160, 30), (30, 1), (30, 0)])
def test_no_image_of_a_class_is_a_repeat_and_another_seed_draws_others(replay: int, n_begun: int) -> None:
    """Without noise equal beginnings would be equal images, in a larger batch than is drawn at once too."""
    trial = make_trial(make_method("jem", {"variant": "sada", "replay": replay, "n_steps": 1}), "scene")
    kept = trial.extra.get_buffer("replay")
    kept.copy_(torch.rand(kept.shape, generator=torch.Generator().manual_seed(0)))
    trial.extra.get_buffer("begun")[:n_begun] = 1
    labels = torch.ones(AT_ONCE + 10, dtype=torch.int64)
    images, others = (trial.method.generate(trial.net, trial.extra, labels, Randomness(seed)) for seed in (0, 1))
    assert len(images.flatten(1).unique(dim=0)) == len(labels)
    assert len(torch.cat([images, others]).flatten(1).unique(dim=0)) > 1.2 * len(labels)


def test_images_begin_at_chains_by_how_likely_their_class_is_there() -> None:
    chances = torch.tensor([0.9, 0.1]).log()[:, None]
    drawn = [_resampled(chances, torch.tensor([0]), torch.Generator().manual_seed(seed)) for seed in range(300)]
    assert float(torch.cat(drawn).double().mean()) == pytest.approx(0.1, abs=0.05)
