"""VAE and HVAE: densities against twins in numpy, which player learns from what, and what is generated."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from toy_methods import TaskSource

from berunda import losses
from berunda.augment.geometry import Geometry
from berunda.data.order import Randomness
from berunda.methods import make_method
from berunda.methods._checking.trial import Trial, make_trial
from berunda.methods._generators import Latent, resized, weighted_rows
from berunda.methods._hierarchy import completed_maps, mixed_maps
from berunda.methods.contract import Images, NetSpec
from berunda.methods.vae import elbo
from berunda.train.config import TrainConfig
from berunda.train.run import Run

N, K = 5, 3


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", [(N, K), (N, K, 4, 3)])
def test_densities_agree_with_their_twins(shape: tuple[int, ...]) -> None:
    x, mean, log_scale = draw(*shape), draw(*shape, seed=1), 0.3 * draw(*shape, seed=2)
    deviation = np.exp(log_scale.numpy())
    expected = -0.5 * ((x - mean).numpy() / deviation) ** 2 - np.log(deviation * math.sqrt(2 * math.pi))
    np.testing.assert_allclose(losses.gaussian_log(x, mean, log_scale), expected.sum(1), atol=1e-10)
    bits, chance = x > 0, 1 / (1 + np.exp(-mean.numpy()))
    expected = np.where(bits, np.log(chance), np.log(1 - chance))
    np.testing.assert_allclose(losses.bernoulli_log(bits.double(), mean), expected.sum(1), atol=1e-10)
    assert torch.autograd.gradcheck(losses.gaussian_log, [v.requires_grad_() for v in (x, mean, log_scale)])


def test_divergence_is_torchs() -> None:
    mean, log_scale = draw(N, K), 0.5 * draw(N, K, seed=1)
    expected = kl_divergence(Normal(mean, log_scale.exp()), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(losses.kl_to_normal(mean, log_scale), expected)


def test_the_bound_is_over_valid_pixels_and_images_that_have_some() -> None:
    log_pixels, divergence, valid = draw(N, 4, 4), draw(N, seed=1).abs(), draw(N, 4, 4, seed=2) > 0
    valid[1] = False
    seen = valid.numpy()
    expected = (log_pixels.numpy()[seen].sum() - divergence.numpy()[seen.any((1, 2))].sum()) / seen.sum()
    assert float(elbo(log_pixels, divergence, valid)) == pytest.approx(expected)
    assert float(elbo(log_pixels, divergence, valid & False)) == 0


def test_coarse_positions_count_where_they_hold_a_valid_pixel() -> None:
    valid = torch.zeros(1, 4, 4, dtype=torch.bool)
    valid[0, 0, :3] = True
    coarse = torch.tensor([[[1.0, 10.0], [100.0, 1000.0]]])
    assert float(losses.per_pixel(coarse, valid)) == pytest.approx(11 / 3)


@pytest.mark.parametrize("kind", ["gaussian", "bernoulli"])
def test_draws_have_the_mean_that_is_told(kind: str) -> None:
    latent = Latent(kind, 2)
    numbers = torch.tensor([0.5, -1.0, 0.2, -0.7][: latent.n_numbers]).view(1, -1, 1, 1).expand(4000, -1, 2, 2)
    drawn = latent.draw(numbers, generator())
    torch.testing.assert_close(drawn.mean((0, 2, 3)), latent.mean(numbers)[0, :, 0, 0], atol=0.03, rtol=0)
    assert latent.log(drawn, numbers).shape == (4000, 2, 2)
    if kind == "bernoulli":
        assert set(drawn.unique().tolist()) == {0.0, 1.0}


def test_maps_are_the_labels_and_drawn_where_there_are_none() -> None:
    labels = torch.full((200, 4, 4), 1)
    labels[:, 0] = -1
    valid = torch.ones(200, 4, 4, dtype=torch.bool)
    valid[:, 1] = False
    logits = torch.tensor([0.0, -9.0, 1.0]).view(1, 3, 1, 1).expand(200, 3, 4, 4)
    images = Images(logits, valid, labels, Geometry.identity(200, torch.device("cpu")), torch.arange(200))
    maps = completed_maps(logits, images, generator())
    assert bool((maps[:, 1, 2:] == 1).all())
    shares = maps[:, :, :2].mean((0, 2, 3))
    torch.testing.assert_close(shares, logits[0, :, 0, 0].softmax(0), atol=0.05, rtol=0)


def test_resizing_keeps_means() -> None:
    x = draw(N, K, 8, 8)
    assert torch.equal(resized(resized(x, (16, 16)), (8, 8)), x)
    torch.testing.assert_close(resized(x, (4, 4)).mean((2, 3)), x.mean((2, 3)))


def test_rows_are_chosen_by_their_weights() -> None:
    weights = torch.tensor([0.1, 0.0, 0.6, 0.3]).expand(4000, 4)
    shares = torch.bincount(weighted_rows(weights, generator()), minlength=4) / 4000
    torch.testing.assert_close(shares, weights[0], atol=0.03, rtol=0)


def parts_of(trial: Trial, batch: Any, gen: torch.Generator) -> tuple[Tensor, Tensor]:
    """L_p and L_q of labelled images, each on its own."""
    method: Any = trial.method
    labelled = batch.labelled["weak"]
    logits = trial.net(labelled.pixels)
    maps = completed_maps(logits.detach(), labelled, gen)
    return (
        method.hierarchy.log_p(trial.extra, labelled, maps, gen),
        method.hierarchy.log_q(trial.extra, trial.net, labelled, maps, gen),
    )


def touched(module: nn.Module) -> bool:
    return any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in module.parameters())


@pytest.mark.parametrize("options", [{}, {"latent": "gaussian"}, {"shares": False}])
def test_the_cross_gradients_of_the_players_are_zero(options: dict[str, Any]) -> None:
    for player in (0, 1):
        trial = make_trial(make_method("hvae", options), "segmentation")
        extra: Any = trial.extra
        parts_of(trial, trial.batch(), generator())[player].backward()
        assert touched(extra.generator) == (player == 0)
        assert touched(extra.inference) == (player == 1)
        assert touched(trial.net) == (player == 1)


def test_the_generator_learns_nothing_from_labels_alone() -> None:
    trial = make_trial(make_method("hvae", {"lambda_q": 0.0}), "segmentation")
    plain = make_trial(make_method("supervised"), "segmentation")
    trial.loss().total.backward()
    plain.loss().total.backward()
    for own, other in zip(trial.net.parameters(), plain.net.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad)


def test_players_are_clipped_apart() -> None:
    method = make_method("hvae")
    spec = NetSpec("segmentation", 4, 3, pretrained=False, crop_px=12, decoder="slim", encoder_depth=2)
    run = Run(method, spec, TrainConfig(steps=1, clip_norm=1.0, device="cpu"), None)
    for name, parameter in nn.ModuleDict({"net": run.state.net, "extra": run.state.extra}).named_parameters():
        parameter.grad = torch.full_like(parameter, 100.0 if name.startswith("extra.") else 1e-6)
    norm = run.clipped()
    extra: Any = run.state.extra
    others = next(run.state.net.parameters()).grad
    assert float(norm) > 100
    for player in (extra.generator, extra.inference):
        own = torch.linalg.vector_norm(torch.cat([p.grad.flatten() for p in player.parameters()]))
        assert float(own) == pytest.approx(1.0, rel=1e-3)
    assert others is not None
    assert float(others.flatten()[0]) == pytest.approx(1e-6)


def test_two_players_without_a_hierarchy_meet_in_the_joint_distribution() -> None:
    """The plain form: L_p = E_pi(x,z) log p(x|z) + E_pi(x) E_q(z|x) log p(x, z), L_q = E_pi(x,z) log q(z|x)
    + E_pi(z) E_p(x|z) log q(z|x), with E_pi(z) log p(z); bits x and z, draws without gradient, one optimizer."""
    joint = torch.tensor([[0.4, 0.1], [0.15, 0.35]], dtype=torch.float64)  # (z, x)
    pixel, latent, prior = (nn.Parameter(torch.zeros(n, dtype=torch.float64)) for n in (2, 2, 1))
    optimizer = torch.optim.Adam([{"params": [pixel, prior]}, {"params": [latent]}], lr=0.02)
    bits, gen, family = torch.tensor([0, 1]), generator(), Latent("bernoulli", 1)

    def log(values: Tensor, logits: Tensor) -> Tensor:
        return family.log(values[:, None].double(), logits[:, None])

    for _ in range(600):
        rows = torch.multinomial(joint.flatten(), 2000, replacement=True, generator=gen)
        z, x = bits[rows // 2], bits[rows % 2]
        found = family.draw(latent[x][:, None], gen)[:, 0].long()
        made = family.draw(pixel[z][:, None], gen)[:, 0].long()
        log_p = log(x, pixel[z]) + log(z, prior.expand(2000)) + log(x, pixel[found]) + log(found, prior.expand(2000))
        log_q = log(z, latent[x]) + log(z, latent[made])
        optimizer.zero_grad()
        (-log_p.mean() - log_q.mean()).backward()
        optimizer.step()
    torch.testing.assert_close(pixel.sigmoid().data, joint[:, 1] / joint.sum(1), atol=0.04, rtol=0)
    torch.testing.assert_close(latent.sigmoid().data, joint[1] / joint.sum(0), atol=0.04, rtol=0)
    torch.testing.assert_close(prior.sigmoid().data, joint[1].sum()[None], atol=0.04, rtol=0)


@pytest.mark.parametrize("seed", range(5))
def test_hvae_does_not_collapse(seed: int) -> None:
    """It rebuilds images better than their mean does, draws each class as itself, and finds each class again."""
    trial = make_trial(make_method("hvae", {"width": 16}), "segmentation", n_labelled=16)
    trial = replace(trial, rng=Randomness(seed))
    torch.manual_seed(seed)
    for parameter in trial.net.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter)
    trial.train(120, learning_rate=0.01)
    method: Any = trial.method
    with torch.no_grad():
        pixels, labels = trial.labelled.pixels, trial.labelled.labels
        apart = (method.rebuilt(trial.net, trial.extra, pixels) - pixels).square().mean()
        images = method.generate(trial.net, trial.extra, torch.tensor([0, 1, 2, 2]), Randomness(1))
        said = method.predict(trial.net, trial.extra, pixels).argmax(1)
    assert apart < 0.5 * pixels.var()
    assert images.shape == (4, 4, 12, 12)
    assert images.mean((2, 3)).argmax(1).tolist() == [0, 1, 2, 2]
    assert labels is not None
    known = labels >= 0
    for number in range(K):
        both, either = (said == number) & (labels == number), ((said == number) | (labels == number)) & known
        assert int(both.sum()) > 0.3 * int(either.sum())


def test_what_is_learned_of_generated_images_rises() -> None:
    trial = make_trial(make_method("hvae", {"ramp": 0.4}), "segmentation")
    for step, weight in ((0, math.exp(-5)), (20, math.exp(-5 / 4)), (40, 1.0), (90, 1.0)):
        loss = trial.loss(step=step)
        expected = loss.terms["supervised"] + loss.terms["generator"] + weight * loss.terms["inference"]
        torch.testing.assert_close(loss.total.detach(), expected)


def test_maps_for_generated_images_have_boxes_of_others_with_their_labels_and_gaps() -> None:
    numbers = torch.arange(4).view(4, 1, 1).expand(4, 8, 8)
    valid = numbers != 2
    maps = nn.functional.one_hot(numbers, 4).movedim(-1, 1).double()
    images = Images(maps, valid, numbers, Geometry.identity(4), torch.arange(4))
    shown, mixed = mixed_maps(images, maps, 1.0, generator())
    assert shown.labels is not None
    assert torch.equal(mixed.argmax(1), shown.labels)
    assert torch.equal(shown.valid, shown.labels != 2)
    own = (shown.labels == numbers).double().mean((1, 2))
    assert bool(((own > 0.3) & (own < 1)).all())
    same, kept = mixed_maps(images, maps, 0.0, generator())
    assert same.labels is not None
    assert torch.equal(same.labels, numbers)
    assert torch.equal(kept, maps)


def test_pixels_keep_some_noise() -> None:
    for method, task in (("hvae", "segmentation"), ("vae", "scene")):
        parts: Any = make_trial(make_method(method), task).extra  # type: ignore[arg-type]
        with torch.no_grad():
            parts.generator.log_scale.fill_(-9.0)
        assert float(parts.generator.noise.detach().exp().min()) == pytest.approx(math.exp(-3))


def test_every_class_counts_once_where_images_are_drawn_for_labels() -> None:
    found = []
    for balance in (False, True):
        trial = make_trial(make_method("hvae", {"balance": balance}), "segmentation")
        labelled = trial.batch().labelled["weak"]
        assert labelled.labels is not None
        labelled = replace(labelled, labels=torch.where(labelled.labels == 0, -1, labelled.labels))
        labelled.labels[0, 0, 0], labelled.valid[0, 0, 0] = 0, True  # type: ignore[index]
        found.append(float(parts_of(trial, replace(trial.batch(), labelled={"weak": labelled}), generator())[1]))
    assert found[0] != pytest.approx(found[1])


def test_vae_generates_images_of_the_class_that_was_asked_for() -> None:
    trial = make_trial(make_method("vae", {"latent": 8, "width": 8}), "scene", n_labelled=16)
    trial.train(300, learning_rate=0.005)
    labels = torch.tensor([0, 1, 2] * 4)
    with torch.no_grad():
        images = trial.method.generate(trial.net, trial.extra, labels, Randomness(1))
    assert images.shape == (12, 4, 12, 12)
    assert float((images.mean((2, 3)).argmax(1) == labels).double().mean()) > 0.6


def test_hvae_trains_in_the_loop() -> None:
    from berunda.train.loop import train

    spec = NetSpec("segmentation", 4, 3, pretrained=False, crop_px=12, decoder="slim", encoder_depth=2)
    config = TrainConfig(steps=30, n_labelled=4, learning_rate=0.01, warmup_steps=2, device="cpu", workers=0)
    trained = train(make_method("hvae"), spec, TaskSource(task="segmentation"), config)
    again = train(make_method("hvae"), spec, TaskSource(task="segmentation"), replace(config, workers=1))
    assert [row["total"] for row in trained.log] == [row["total"] for row in again.log]
    assert trained.log[-1]["generator"] < trained.log[0]["generator"]
