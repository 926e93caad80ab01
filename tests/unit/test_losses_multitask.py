"""The auxiliary losses of the two-headed methods against numpy twins; masks, crop size, gradients, types."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from berunda import losses

N, K, B, S, P = 3, 4, 2, 6, 5


# Numpy twins: loops over pixels, as the formulas are written.


def np_mumford_shah(x, y, valid):
    fits, rows, cols = [], [], []
    for n in range(len(x)):
        centres = []
        for k in range(y.shape[1]):
            mass = y[n, k][valid[n]].sum()
            total = (x[n][:, valid[n]] * y[n, k][valid[n]]).sum(axis=1)
            centres.append(total / mass if mass > 1e-6 else np.zeros(x.shape[1]))
        for r, c in zip(*np.nonzero(valid[n]), strict=True):
            distance = [((x[n, :, r, c] - centre) ** 2).sum() for centre in centres]
            fits.append(np.dot(distance, y[n, :, r, c]) / x.shape[1])
            if r + 1 < valid.shape[1] and valid[n, r + 1, c]:
                rows.append(np.abs(y[n, :, r + 1, c] - y[n, :, r, c]).sum())
            if c + 1 < valid.shape[2] and valid[n, r, c + 1]:
                cols.append(np.abs(y[n, :, r, c + 1] - y[n, :, r, c]).sum())
    mean = [float(np.mean(values)) if values else 0.0 for values in (fits, rows, cols)]
    return mean[0], mean[1] + mean[2]


def np_inpainting(prediction, x, hole, valid):
    errors = [
        (prediction[n, b, r, c] - x[n, b, r, c]) ** 2
        for n, r, c in zip(*np.nonzero(hole & valid), strict=True)
        for b in range(x.shape[1])
    ]
    return float(np.mean(errors)) if errors else 0.0


def np_jigsaw(logits, order, valid):
    told = []
    for row, k, seen in zip(logits, order, valid, strict=True):
        if seen.any():
            told.append(np.log(np.exp(row - row.max()).sum()) + row.max() - row[k])
    return float(np.mean(told)) if told else 0.0


def data(seed: int = 0) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    make = {"generator": g, "dtype": torch.float64}
    return {
        "pixels": torch.randn(N, B, S, S, **make),
        "rebuilt": torch.randn(N, B, S, S, **make),
        "logits": torch.randn(N, K, S, S, **make),
        "guesses": torch.randn(N, P, **make),
        "order": torch.randint(P, (N,), generator=g),
        "hole": torch.rand(N, S, S, generator=g) > 0.5,
        "valid": torch.rand(N, S, S, generator=g) > 0.3,
    }


def np_softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


CASES = {
    "mumford_shah": (
        lambda d: sum(
            w * x
            for w, x in zip(
                (1, 0.7), losses.mumford_shah(d["pixels"], losses.real(d["logits"]).softmax(1), d["valid"]), strict=True
            )
        ),
        lambda a: np.dot([1, 0.7], np_mumford_shah(a["pixels"], np_softmax(a["logits"]), a["valid"])),
        "logits",
    ),
    "inpainting": (
        lambda d: losses.inpainting(d["rebuilt"], d["pixels"], d["hole"], d["valid"]),
        lambda a: np_inpainting(a["rebuilt"], a["pixels"], a["hole"], a["valid"]),
        "rebuilt",
    ),
    "jigsaw": (
        lambda d: losses.jigsaw(d["guesses"], d["order"], d["valid"]),
        lambda a: np_jigsaw(a["guesses"], a["order"], a["valid"]),
        "guesses",
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(4))
def test_loss_agrees_with_its_twin(name, seed) -> None:
    loss, twin, _ = CASES[name]
    d = data(seed)
    d["valid"][0] = False
    found = float(loss(d))
    assert found == pytest.approx(float(twin({k: v.numpy() for k, v in d.items()})), abs=1e-6, rel=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_gradient_is_right(name) -> None:
    loss, _, key = CASES[name]
    d = data(5)
    assert torch.autograd.gradcheck(lambda x: loss({**d, key: x}), (d[key].requires_grad_(),))


@pytest.mark.parametrize("name", CASES)
def test_bfloat16_stays_near(name) -> None:
    loss, _, _ = CASES[name]
    d = data(1)
    half = {k: v.bfloat16() if v.is_floating_point() else v for k, v in d.items()}
    assert loss(half).dtype == torch.float32
    assert float(loss(half)) == pytest.approx(float(loss(d)), rel=2e-2)


@pytest.mark.parametrize("name", CASES)
def test_nothing_to_count_is_zero_with_zero_gradients(name) -> None:
    loss, _, key = CASES[name]
    d = data(2)
    d["valid"] = torch.zeros_like(d["valid"])
    d[key].requires_grad_()
    total = loss(d)
    total.backward()
    assert total == 0
    assert (d[key].grad == 0).all()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("spoil", [9.0, -50.0, torch.nan])
def test_masked_positions_never_matter(name, spoil) -> None:
    loss, _, _ = CASES[name]
    d = data(3)
    outside = ~d["valid"][:, None]
    spoilt = {k: v.masked_fill(outside, spoil) if k in ("pixels", "rebuilt", "logits") else v for k, v in d.items()}
    assert float(loss(spoilt)) == pytest.approx(float(loss(d)), rel=1e-9)


def test_a_masked_position_gets_no_gradient() -> None:
    d = data(4)
    logits = d["logits"].requires_grad_()
    fit, length = losses.mumford_shah(d["pixels"], logits.softmax(1), d["valid"])
    (fit + length).backward()
    assert logits.grad is not None
    assert (logits.grad.masked_select(~d["valid"][:, None].expand_as(logits)) == 0).all()
    assert logits.grad.abs().sum() > 0


@pytest.mark.parametrize("times", [2, 3])
def test_the_size_of_the_crop_does_not_matter(times) -> None:
    """A pattern that repeats has the same loss however much of it a crop shows."""
    d = data(6)
    x, y = d["pixels"][:, :, :2, :2], d["logits"][:, :, :2, :2].softmax(1)
    small, large = 2, 2 * times
    made = []
    for side in (small, large):
        tile = (1, 1, side // 2, side // 2)
        pixels, soft = x.repeat(*tile), y.repeat(*tile)
        valid = torch.ones(N, side, side, dtype=torch.bool)
        hole = torch.eye(2, dtype=torch.bool).repeat(side // 2, side // 2).expand(N, side, side)
        told = [*losses.mumford_shah(pixels, soft, valid), *losses.relaxed_kmeans(pixels, soft, valid)]
        told += [losses.inpainting(pixels + soft[:, :B], pixels, hole, valid)]
        told += [f(pixels + soft[:, :B], pixels, valid) for f in (losses.l1, losses.l2)]
        made.append([float(value) for value in told])
    assert made[0] == pytest.approx(made[1], rel=1e-9)


def test_mumford_shah_measures_the_length_of_borders() -> None:
    """Two halves of constant colour: nothing is left to explain, and the border is one pair in n - 1 of each row."""
    side = 8
    left = torch.zeros(1, 1, side, side, dtype=torch.float64)
    left[..., : side // 2] = 1
    assignment = torch.cat([left, 1 - left], dim=1)
    pixels = torch.cat([3 * left, -left], dim=1)
    fit, length = losses.mumford_shah(pixels, assignment, torch.ones(1, side, side, dtype=torch.bool))
    assert float(fit) == pytest.approx(0, abs=1e-12)
    assert float(length) == pytest.approx(2 / (side - 1))


def test_mumford_shah_takes_the_variation_of_the_clusters_not_of_the_image() -> None:
    d = data(7)
    soft = torch.full((N, K, S, S), 1 / K, dtype=torch.float64)
    assert float(losses.mumford_shah(d["pixels"], soft, d["valid"])[1]) == 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1)])
def test_mumford_shah_of_a_line_or_a_point(shape) -> None:
    soft = torch.rand(2, K, *shape, dtype=torch.float64).softmax(1).requires_grad_()
    fit, length = losses.mumford_shah(torch.randn(2, B, *shape).double(), soft, torch.ones(2, *shape) > 0)
    (fit + length).backward()
    assert bool(soft.grad.isfinite().all())


def test_jigsaw_of_a_sure_and_right_net_is_zero() -> None:
    logits = 100 * torch.nn.functional.one_hot(torch.tensor([1, 0, 2]), P).double()
    valid = torch.ones(3, S, S, dtype=torch.bool)
    assert float(losses.jigsaw(logits, torch.tensor([1, 0, 2]), valid)) < 1e-9
    assert float(losses.jigsaw(logits, torch.tensor([0, 0, 2]), valid)) == pytest.approx(100 / 3)


@pytest.mark.parametrize("loss", [losses.relaxed_kmeans, losses.mumford_shah])
def test_sums_over_clusters_keep_their_digits_under_autocast(loss):
    """Large values close together: a sum of squares in bfloat16 would lose their spread."""
    g = torch.Generator().manual_seed(0)
    pixels = 20 + 0.1 * torch.randn(2, 3, 32, 32, generator=g)
    logits = torch.randn(2, 4, 32, 32, generator=g, requires_grad=True)
    valid = torch.ones(2, 32, 32, dtype=torch.bool)
    found = []
    for is_autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=is_autocast):
            value = sum(loss(pixels, logits.softmax(1), valid))
        (gradient,) = torch.autograd.grad(value, logits)
        assert value.dtype == gradient.dtype == torch.float32
        found.append((value, gradient))
    torch.testing.assert_close(found[1], found[0])
