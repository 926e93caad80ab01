"""Every pure loss against an independent numpy twin; gradients, half precision, masks, permutations."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from berunda import losses

N, C, B, S = 3, 4, 2, 5


# Numpy twins


def np_softmax(x, axis=1):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def np_mean(values, mask):
    values, mask = np.broadcast_arrays(values, mask)
    total, weight = 0.0, 0.0
    for value, m in zip(values.ravel(), mask.ravel(), strict=True):
        if m > 0:
            total, weight = total + float(m) * value, weight + float(m)
    return total / weight if weight > 0 else 0.0


def np_pick(logits, labels):
    """-log softmax at each label, 0 where the label is -1; classes on axis 1."""
    log_p = np.moveaxis(np.log(np_softmax(logits)), 1, -1).reshape(-1, logits.shape[1])
    flat = labels.ravel()
    out = np.array([-row[k] if k >= 0 else 0.0 for row, k in zip(log_p, flat, strict=True)])
    return out.reshape(labels.shape)


def np_binary(logits, targets, valid):
    known = ~np.isnan(targets) & valid.any(axis=(1, 2))[:, None]
    p = 1 / (1 + np.exp(-logits))
    t = np.nan_to_num(targets)
    return np_mean(-(t * np.log(p) + (1 - t) * np.log(1 - p)), known)


def np_kmeans(x, y, valid):
    rebuilt = np.zeros_like(x)
    for n in range(len(x)):
        inside = valid[n]
        for k in range(y.shape[1]):
            mass = y[n, k][inside].sum()
            centre = (x[n][:, inside] * y[n, k][inside]).sum(axis=1) / mass if mass > 1e-6 else np.zeros(x.shape[1])
            rebuilt[n] += centre[:, None, None] * y[n, k]
    return np_mean(np.abs(x - rebuilt), valid[:, None]), np_mean((y * (1 - y)).sum(axis=1), valid)


def np_balanced(logits, labels, valid):
    losses_, known = np_pick(logits, labels), (labels >= 0) & valid
    means = [losses_[known & (labels == c)].mean() for c in np.unique(labels[known])]
    return float(np.mean(means))


def np_smooth(values, valid, side):
    half = side // 2
    for _ in range(2):
        out = np.zeros_like(values)
        for n, r, c in zip(*np.nonzero(valid), strict=True):
            at = (slice(max(0, r - half), r + half + 1), slice(max(0, c - half), c + half + 1))
            near = valid[n][at]
            out[n, :, r, c] = values[n][(slice(None), *at)][:, near].mean(axis=1)
        values = out
    return values


def np_join(context, spectrum, prior, exponent):
    p, q = np_softmax(context), np_softmax(spectrum)
    joint = (p + q) / 2 * (prior**exponent)[None, :, None, None]
    joint /= joint.sum(axis=1, keepdims=True)
    energy = (np.log(np.exp(context).sum(1)) + np.log(np.exp(spectrum).sum(1))) / 2
    return np.log(joint) + energy[:, None]


# Inputs


def data(seed: int = 0) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    make = {"generator": g, "dtype": torch.float64}
    return {
        "logits": torch.randn(N, C, S, S, **make),
        "other": torch.randn(N, C, S, S, **make),
        "pixels": torch.randn(N, B, S, S, **make),
        "rebuilt": torch.randn(N, B, S, S, **make),
        "valid": torch.rand(N, S, S, generator=g) > 0.3,
        "sure": torch.rand(N, S, S, generator=g) > 0.5,
        "labels": torch.randint(-1, C, (N, S, S), generator=g),
        "targets": torch.where(torch.rand(N, C, **make) > 0.3, torch.rand(N, C, **make).round(), torch.nan),
    }


def arrays(d: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in d.items()}


PRIOR = torch.arange(1, C + 1, dtype=torch.float64) / (C * (C + 1) / 2)

# Each case: the loss of the data, its twin, and the tensor that carries the gradient.
CASES = {
    "cross_entropy_masked": (
        lambda d: losses.cross_entropy_masked(d["logits"], d["labels"], d["valid"]),
        lambda a: np_mean(np_pick(a["logits"], a["labels"]), (a["labels"] >= 0) & a["valid"]),
        "logits",
    ),
    "balanced_cross_entropy_masked": (
        lambda d: losses.balanced_cross_entropy_masked(d["logits"], d["labels"], d["valid"]),
        lambda a: np_balanced(a["logits"], a["labels"], a["valid"]),
        "logits",
    ),
    "cross_entropy_masked_scene": (
        lambda d: losses.cross_entropy_masked(d["logits"][..., 0, 0], d["labels"][:, 0, 0], d["valid"]),
        lambda a: np_mean(
            np_pick(a["logits"][..., 0, 0], a["labels"][:, 0, 0]),
            (a["labels"][:, 0, 0] >= 0) & a["valid"].any(axis=(1, 2)),
        ),
        "logits",
    ),
    "binary_cross_entropy_masked": (
        lambda d: losses.binary_cross_entropy_masked(d["logits"][..., 0, 0], d["targets"], d["valid"]),
        lambda a: np_binary(a["logits"][..., 0, 0], a["targets"], a["valid"]),
        "logits",
    ),
    "soft_cross_entropy_masked": (
        lambda d: losses.soft_cross_entropy_masked(d["logits"], d["other"].softmax(1), d["valid"]),
        lambda a: np_mean(-(np_softmax(a["other"]) * np.log(np_softmax(a["logits"]))).sum(1), a["valid"]),
        "logits",
    ),
    "kl_divergence_masked": (
        lambda d: losses.kl_divergence_masked(d["logits"], d["other"], d["valid"]),
        lambda a: np_mean(
            (np_softmax(a["other"]) * np.log(np_softmax(a["other"]) / np_softmax(a["logits"]))).sum(1),
            a["valid"],
        ),
        "logits",
    ),
    "fixmatch_loss": (
        lambda d: losses.fixmatch_loss(d["logits"], d["labels"].clamp(min=0), d["sure"], d["valid"]),
        lambda a: np_mean(np_pick(a["logits"], np.maximum(a["labels"], 0)) * a["sure"], a["valid"]),
        "logits",
    ),
    "l1": (
        lambda d: losses.l1(d["rebuilt"], d["pixels"], d["valid"]),
        lambda a: np_mean(np.abs(a["rebuilt"] - a["pixels"]), a["valid"][:, None]),
        "rebuilt",
    ),
    "l2": (
        lambda d: losses.l2(d["rebuilt"], d["pixels"], d["valid"]),
        lambda a: np_mean((a["rebuilt"] - a["pixels"]) ** 2, a["valid"][:, None]),
        "rebuilt",
    ),
    "relaxed_kmeans": (
        lambda d: kmeans(d["pixels"], d["logits"], d["valid"]),
        lambda a: np.dot([1, 0.7], np_kmeans(a["pixels"], np_softmax(a["logits"]), a["valid"])),
        "logits",
    ),
}


def kmeans(pixels, logits, valid):
    """Both parts of the loss, of distributions that are a softmax."""
    reconstruction, indecision = losses.relaxed_kmeans(pixels, losses.real(logits).softmax(1), valid)
    return reconstruction + 0.7 * indecision


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_loss_agrees_with_its_twin(name, seed):
    loss, twin, _ = CASES[name]
    d = data(seed)
    assert float(loss(d)) == pytest.approx(float(twin(arrays(d))), abs=1e-6, rel=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_gradient_is_right(name):
    loss, _, key = CASES[name]
    d = data()
    assert torch.autograd.gradcheck(lambda x: loss({**d, key: x}), (d[key].requires_grad_(),))


@pytest.mark.parametrize("name", CASES)
def test_bfloat16_stays_near(name):
    loss, _, _ = CASES[name]
    d = data()
    half = {k: v.bfloat16() if v.is_floating_point() else v for k, v in d.items()}
    assert loss(half).dtype == torch.float32
    assert float(loss(half)) == pytest.approx(float(loss(d)), rel=2e-2)


@pytest.mark.parametrize("name", CASES)
def test_nothing_to_count_is_zero_with_zero_gradients(name):
    loss, _, key = CASES[name]
    d = data()
    d["valid"] = torch.zeros_like(d["valid"])
    d[key].requires_grad_()
    total = loss(d)
    total.backward()
    assert total == 0
    assert (d[key].grad == 0).all()


@pytest.mark.parametrize("name", CASES)
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 10**6), spoil=st.floats(-50, 50))
def test_masked_positions_never_matter(name, seed, spoil):
    if name.endswith("_scene") or name.startswith("binary"):
        return
    loss, _, _ = CASES[name]
    d = data(seed)
    spoilt = {
        k: v.masked_fill(~d["valid"][:, None], spoil) if k in ("logits", "other", "pixels", "rebuilt") else v
        for k, v in d.items()
    }
    spoilt["labels"] = d["labels"].masked_fill(~d["valid"], 0)
    assert float(loss(spoilt)) == pytest.approx(float(loss(d)), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", CASES)
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 10**6), order=st.permutations(range(N)))
def test_order_of_samples_never_matters(name, seed, order):
    loss, _, _ = CASES[name]
    d = data(seed)
    shuffled = {k: v[list(order)] for k, v in d.items()}
    assert float(loss(shuffled)) == pytest.approx(float(loss(d)), rel=1e-9)


def test_all_labels_unknown_is_zero():
    d = data()
    logits = d["logits"].requires_grad_()
    total = losses.supervised_loss(logits, torch.full_like(d["labels"], -1), d["valid"])
    total.backward()
    assert total == 0
    assert (logits.grad == 0).all()
    assert losses.supervised_loss(d["logits"], None, d["valid"]) == 0


def test_supervised_loss_goes_by_the_labels():
    d = data()
    dense = losses.cross_entropy_masked(d["logits"], d["labels"], d["valid"])
    assert losses.supervised_loss(d["logits"], d["labels"], d["valid"]) == dense
    several = losses.binary_cross_entropy_masked(d["logits"][..., 0, 0], d["targets"], d["valid"])
    assert losses.supervised_loss(d["logits"][..., 0, 0], d["targets"], d["valid"]) == several


def test_masked_mean_ignores_nan_and_takes_weights():
    values = torch.tensor([1.0, torch.nan, 3.0, torch.inf])
    assert losses.masked_mean(values, torch.tensor([True, False, True, False])) == 2
    assert losses.masked_mean(values, torch.tensor([3.0, 0.0, 1.0, 0.0])) == 1.5


# Pseudo-labels


@pytest.mark.parametrize("shape", [(N, C), (N, C, S, S)])
def test_pseudo_labels(shape):
    p = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).mul(2).softmax(1)
    labels, sure = losses.pseudo_labels(p, 0.5)
    assert np.array_equal(labels.numpy(), p.numpy().argmax(1))
    assert np.array_equal(sure.numpy(), p.numpy().max(1) >= 0.5)
    per_class = torch.tensor([0.2, 0.5, 0.8, 1.1], dtype=torch.float64)
    labels, sure = losses.pseudo_labels(p, per_class)
    assert np.array_equal(sure.numpy(), p.numpy().max(1) >= per_class.numpy()[labels.numpy()])
    assert not sure[labels == 3].any()


def test_align_distribution_agrees_with_its_twin():
    p = np_softmax(data()["logits"].numpy())
    target, current = np.array([0.4, 0.3, 0.2, 0.1]), np.array([0.1, 0.2, 0.3, 0.4])
    scaled = p * (target / current)[None, :, None, None]
    expected = scaled / scaled.sum(1, keepdims=True)
    found = losses.align_distribution(torch.from_numpy(p), torch.from_numpy(target), torch.from_numpy(current))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    same = losses.align_distribution(torch.from_numpy(p), torch.from_numpy(target), torch.from_numpy(target))
    np.testing.assert_allclose(same.numpy(), p, atol=1e-9)


def test_class_means_and_counts_agree_with_their_twins():
    d = data()
    p, valid, labels = d["logits"].softmax(1), d["valid"], d["labels"]
    inside = valid.numpy()
    expected = [p.numpy()[:, c][inside].mean() for c in range(C)]
    np.testing.assert_allclose(losses.class_means(p, valid).numpy(), expected, atol=1e-6)
    counts = [int(((labels.numpy() == c) & inside).sum()) for c in range(C)]
    assert losses.class_counts(labels, valid, C).tolist() == counts
    shares = losses.class_shares(labels, valid, C).numpy()
    np.testing.assert_allclose(shares, np.array(counts) / sum(counts), atol=1e-6)
    nothing = torch.zeros_like(valid)
    assert losses.class_means(p, nothing).abs().sum() == 0
    assert losses.class_shares(labels, nothing, C).sum() == 0


def test_used_shares_by_predicted_class():
    labels = torch.tensor([0, 0, 1, 1, 1, 2])
    sure = torch.tensor([True, False, True, True, True, True])
    seen = torch.tensor([True, True, True, True, False, False])
    used, by_class, of_all = losses.used_shares(labels, sure, seen, 4)
    assert used == 0.75
    assert by_class.tolist() == [0.5, 1, 0, 0]
    assert of_all.tolist() == [0.25, 0.5, 0, 0]


def test_flexible_thresholds():
    found = losses.flexible_thresholds(0.9, torch.tensor([0.5, 0.25, 0.0], dtype=torch.float64))
    np.testing.assert_allclose(found.numpy(), [0.9, 0.9 * 0.5 / 1.5, 0], atol=1e-9)
    assert losses.flexible_thresholds(0.9, torch.zeros(3)).isfinite().all()


def test_running_distribution():
    old, new = torch.tensor([0.5, 0.5], dtype=torch.float64), torch.tensor([1.0, 0.0], dtype=torch.float64)
    np.testing.assert_allclose(losses.running_distribution(old, new, 0, 0.99).numpy(), [0.95, 0.05])
    np.testing.assert_allclose(losses.running_distribution(old, new, 10**6, 0.99).numpy(), [0.505, 0.495])
    assert torch.equal(losses.running_distribution(old, torch.zeros(2), 5, 0.99), old)


def test_sharpen():
    p = np_softmax(data()["logits"].numpy())
    expected = p**2 / (p**2).sum(1, keepdims=True)
    np.testing.assert_allclose(losses.sharpen(torch.from_numpy(p), 0.5).numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(losses.sharpen(torch.from_numpy(p), 1).numpy(), p, atol=1e-6)


def test_probabilities_carry_no_gradient():
    assert not losses.probabilities_of(data()["logits"].requires_grad_()).requires_grad
    assert losses.probabilities_of(torch.zeros(1, 2, dtype=torch.bfloat16)).dtype == torch.float32


def test_ramp_up():
    assert losses.ramp_up(0, 0.4) == pytest.approx(np.exp(-5))
    assert losses.ramp_up(0.2, 0.4) == pytest.approx(np.exp(-5 * 0.25))
    assert losses.ramp_up(0.4, 0.4) == 1
    assert losses.ramp_up(0, 0) == 1


def test_kmeans_of_hard_clusters_rebuilds_perfectly():
    labels = torch.randint(0, 3, (2, 8, 8), generator=torch.Generator().manual_seed(0))
    colours = torch.randn(3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    pixels = colours[labels].permute(0, 3, 1, 2)
    assignment = torch.nn.functional.one_hot(labels, 6).permute(0, 3, 1, 2).double()
    rebuilt, undecided = losses.relaxed_kmeans(pixels, assignment, torch.ones(2, 8, 8, dtype=torch.bool))
    assert rebuilt < 1e-9, "three clusters are empty and do no harm"
    assert undecided == 0


def test_every_public_function_is_covered_here():
    """Or, where only some methods use them, in the tests of those methods."""
    here = Path(__file__).parent
    text = "".join(path.read_text() for path in (*here.glob("test_losses*.py"), *here.glob("methods/test_*.py")))
    public = [name for name in losses.__all__ if callable(getattr(losses, name))]
    missing = [name for name in public if not re.search(rf"\b{name}\(", text) and name != "is_labelled"]
    assert not missing


def test_smoothing_matches_its_twin() -> None:
    d = data()
    found = losses.smooth_masked(d["logits"], d["valid"], 3)
    np.testing.assert_allclose(found.numpy(), np_smooth(d["logits"].numpy(), d["valid"].numpy(), 3), atol=1e-6)
    assert torch.autograd.gradcheck(lambda x: losses.smooth_masked(x, d["valid"], 3), d["logits"].requires_grad_())


def test_smoothing_keeps_distributions_and_gives_nothing_to_invalid_positions() -> None:
    d = data()
    smooth = losses.smooth_masked(d["logits"].softmax(1), d["valid"], 5)
    torch.testing.assert_close(smooth.sum(1), d["valid"].double())
    spoilt = torch.where(d["valid"][:, None], d["logits"], torch.nan)
    expected = losses.smooth_masked(d["logits"], d["valid"], 5)
    torch.testing.assert_close(losses.smooth_masked(spoilt, d["valid"], 5), expected)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_joined_views_match_their_twin(exponent: float) -> None:
    d = data()
    found = losses.join_views(d["logits"], d["other"], PRIOR, exponent)
    twin = np_join(d["logits"].numpy(), d["other"].numpy(), PRIOR.numpy(), exponent)
    np.testing.assert_allclose(found.numpy(), twin, atol=1e-6)
    join = lambda a, b: losses.join_views(a, b, PRIOR, exponent)  # noqa: E731
    assert torch.autograd.gradcheck(join, (d["logits"].requires_grad_(), d["other"].requires_grad_()))


def test_balancing_weights_are_one_over_the_known_positions_of_a_class() -> None:
    labels = torch.tensor([[0, 0, 1], [2, 0, -1]])
    known = torch.tensor([[True, True, True], [True, False, False]])
    found = losses.balancing_weights(labels, known, torch.zeros(2, 3, 3))
    assert found.tolist() == [[0.5, 0.5, 1.0], [1.0, 0.0, 0.0]]


def test_several_labels_are_told_from_classes_by_their_kind() -> None:
    assert losses.has_several(torch.zeros(2, 3))
    assert not losses.has_several(torch.zeros(2, dtype=torch.int64))
    assert not losses.has_several(None)
