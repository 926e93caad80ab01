"""Methods that believe confident answers: each pure heart against an independent twin in numpy, and its invariances."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from berunda.errors import ConfigError
from berunda.methods import describe_method, make_method, method_names
from berunda.methods._checking.trial import make_trial
from berunda.methods.adamatch import adamatch_loss, relative_threshold
from berunda.methods.contract import Batch
from berunda.methods.defixmatch import defixmatch_loss
from berunda.methods.flexmatch import flexmatch_loss, memory_counts, remembered
from berunda.methods.freematch import fairness_loss, freematch_loss, freematch_thresholds
from berunda.methods.pseudo_label import pseudo_label_loss
from berunda.methods.softmatch import confidence_weights, softmatch_loss

N, C = 12, 4
FAMILY = ("adamatch", "defixmatch", "flexmatch", "freematch", "softmatch")
Array = npt.NDArray[Any]


def draw(seed: int = 0, n: int = N) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(n, C, generator=generator, dtype=torch.float64)


def valid_of(n: int = N) -> Tensor:
    valid = torch.zeros(n, 2, 2, dtype=torch.bool)
    valid[1:, 0, 1] = True  # the first image has no data
    return valid


def np_softmax(x: Array) -> Array:
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def np_fixmatch(logits: Array, p: Array, thresholds: Array, first: int = 1) -> float:
    """Mean over images from `first` on; `thresholds` has one a class."""
    total = 0.0
    for i in range(first, len(p)):
        c = int(p[i].argmax())
        if p[i, c] >= thresholds[c]:
            total -= float(np.log(np_softmax(logits[i : i + 1])[0, c]))
    return total / (len(p) - first)


def np_norm(means: Array, shares: Array) -> Array:
    ratio = np.array([m / s if s > 0 else 0.0 for m, s in zip(means, shares, strict=True)])
    return ratio / ratio.sum()


def test_pseudo_label_agrees_with_its_twin() -> None:
    logits = draw()
    expected = np_fixmatch(logits.numpy(), np_softmax(logits.numpy()), np.full(C, 0.6))
    assert float(pseudo_label_loss(logits, 0.6, valid_of())) == pytest.approx(expected, abs=1e-6)
    assert torch.autograd.gradcheck(lambda x: pseudo_label_loss(x, 0.6, valid_of()), logits.requires_grad_())


def test_flexmatch_agrees_with_its_twin() -> None:
    logits, p = draw(), draw(1).softmax(1)
    counts = np.array([8.0, 4.0, 0.0, 2.0, 6.0])
    ease = counts[:C] / counts.max()
    expected = np_fixmatch(logits.numpy(), p.numpy(), 0.9 * ease / (2 - ease))
    found, sure = flexmatch_loss(logits, p, torch.from_numpy(counts), 0.9, valid_of())
    assert float(found) == pytest.approx(expected, abs=1e-6)
    assert sure[p.argmax(1) == 2].all(), "a class that is never sure has no threshold"


def test_flexmatch_remembers_each_image() -> None:
    memory = torch.tensor([-1, 3, 0, 1, -1], dtype=torch.int16)
    index, labels = torch.tensor([0, 1, 2, 9]), torch.tensor([-1, -1, 2, 1])
    new = remembered(memory, index, labels, n_classes=3)
    assert new.tolist() == [3, 3, 2, 1, 1], "unsure ones become or stay undecided, sure ones are replaced"
    assert memory.tolist() == [-1, 3, 0, 1, -1]
    assert memory_counts(new, 3).tolist() == [0, 2, 1, 2]


def test_flexmatch_keeps_its_memory_in_training() -> None:
    trial = make_trial(make_method("flexmatch", {"threshold": 0.0, "memory": 100}), "scene")
    n = trial.unlabelled.pixels.shape[0]
    memory = trial.loss().updates["memory"].value
    assert (memory[:n] >= 0).all()
    assert (memory[n:] == -1).all()


def test_freematch_agrees_with_its_twin() -> None:
    logits, p = draw(), draw(1).softmax(1)
    means = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    thresholds = means.numpy() / 0.4 * 0.7
    found = freematch_thresholds(torch.tensor(0.7, dtype=torch.float64), means)
    np.testing.assert_allclose(found.numpy(), thresholds, atol=1e-9)
    loss, labels, sure = freematch_loss(logits, p, found, valid_of())
    assert float(loss) == pytest.approx(np_fixmatch(logits.numpy(), p.numpy(), thresholds), abs=1e-6)
    assert torch.equal(labels, p.argmax(1))
    assert np.array_equal(sure.numpy(), p.numpy().max(1) >= thresholds[p.numpy().argmax(1)])


def test_fairness_agrees_with_its_twin() -> None:
    logits, sure = draw(), torch.arange(N) % 3 > 0
    means, shares = np.array([0.4, 0.3, 0.2, 0.1]), np.array([0.5, 0.3, 0.0, 0.2])
    p = np_softmax(logits.numpy())[sure.numpy()]
    seen = np.bincount(p.argmax(1), minlength=C) / len(p)
    expected = -(np_norm(means, shares) * np.log(np_norm(p.mean(0), seen) + 1e-12)).sum()

    def loss(x: Tensor) -> Tensor:
        return fairness_loss(x, sure, torch.from_numpy(means), torch.from_numpy(shares))

    assert float(loss(logits)) == pytest.approx(expected, abs=1e-6)
    assert torch.autograd.gradcheck(loss, logits.requires_grad_())


def test_fairness_of_nothing_is_zero_with_gradients_of_zero() -> None:
    logits = draw().requires_grad_()
    uniform = torch.full((C,), 1 / C)
    total = fairness_loss(logits, torch.zeros(N, dtype=torch.bool), uniform, uniform)
    total.backward()
    assert total == 0
    assert (logits.grad == 0).all()


def test_fairness_pulls_towards_the_mean_of_the_weak_views() -> None:
    """Of two equally sure classes, the one the target thinks surer should become surer."""
    logits = torch.tensor([[3.0, 0.0], [0.0, 3.0]], requires_grad=True)
    target = torch.tensor([0.7, 0.3])
    fairness_loss(logits, torch.ones(2, dtype=torch.bool), target, torch.tensor([0.5, 0.5])).backward()
    assert logits.grad is not None
    assert logits.grad[:, 0].sum() < 0 < logits.grad[:, 1].sum()


def test_softmatch_agrees_with_its_twin() -> None:
    logits, p = draw(), draw(1).softmax(1)
    confidence, mean, variance = p.numpy().max(1), 0.8, 0.03
    weights = np.exp(-(np.minimum(confidence - mean, 0) ** 2) / (2 * variance / 4))
    found = confidence_weights(p.amax(1), torch.tensor(mean), torch.tensor(variance), 2.0)
    np.testing.assert_allclose(found.numpy(), weights, atol=1e-6)
    mask, labels = torch.arange(N) > 2, p.argmax(1)
    each = -np.log(np_softmax(logits.numpy()))[np.arange(N), labels.numpy()]
    loss = softmatch_loss(logits, labels, torch.from_numpy(weights), mask)
    assert float(loss) == pytest.approx((weights * each)[3:].mean(), abs=1e-6)
    weight = torch.from_numpy(weights)
    assert torch.autograd.gradcheck(lambda x: softmatch_loss(x, labels, weight, mask), logits.requires_grad_())


def test_softmatch_counts_everything_above_the_mean_in_full() -> None:
    confidence = torch.tensor([0.5, 0.7, 0.9])
    found = confidence_weights(confidence, torch.tensor(0.7), torch.tensor(0.0), 2.0)
    assert found.tolist() == [0, 1, 1]


def test_adamatch_agrees_with_its_twin() -> None:
    labelled, logits, p = draw(2).softmax(1), draw(), draw(1).softmax(1)
    known = torch.arange(N) % 2 == 0
    threshold = 0.9 * labelled.numpy().max(1)[::2].mean()
    found = relative_threshold(0.9, labelled, known)
    assert float(found) == pytest.approx(threshold, abs=1e-6)
    loss, labels, sure = adamatch_loss(logits, p, found, valid_of())
    assert float(loss) == pytest.approx(np_fixmatch(logits.numpy(), p.numpy(), np.full(C, threshold)), abs=1e-6)
    assert torch.equal(labels, p.argmax(1))
    assert torch.equal(sure, p.amax(1) >= threshold)
    assert relative_threshold(0.9, labelled, torch.zeros_like(known)) == pytest.approx(0.9)


def test_adamatch_mixes_logits_with_and_without_the_unlabelled_images() -> None:
    """Without batch norm both are the same, and the supervised loss is that of the net as it is."""
    trial = make_trial(make_method("adamatch"), "scene")
    batch = trial.batch()
    found = trial.loss(batch).terms["supervised"]
    torch.testing.assert_close(found, trial.loss(Batch(batch.labelled)).terms["supervised"])


def test_defixmatch_agrees_with_its_twin() -> None:
    logits, p = (draw(), draw(1, 8)), (draw(2).softmax(1), draw(3, 8).softmax(1))
    plain = [np_fixmatch(x.numpy(), q.numpy(), np.full(C, 0.6)) for x, q in zip(logits, p, strict=True)]
    found = defixmatch_loss(logits, p, 0.6, (valid_of(), valid_of(8)))
    assert float(found) == pytest.approx(plain[0] - plain[1], abs=1e-6)


def test_defixmatch_takes_nothing_off_where_both_streams_are_alike() -> None:
    logits, p = draw(), draw(1).softmax(1)
    assert defixmatch_loss((logits, logits), (p, p), 0.5, (valid_of(), valid_of())) == 0


@pytest.mark.parametrize("name", FAMILY)
def test_order_of_the_unlabelled_images_never_matters(name: str) -> None:
    trial = make_trial(make_method(name), "scene")
    batch = trial.batch()
    order = torch.randperm(trial.unlabelled.pixels.shape[0], generator=torch.Generator().manual_seed(0))
    views = {
        key: type(x)(x.pixels[order], x.valid[order], None, x.geometry.select(order), x.index[order])
        for key, x in batch.unlabelled.items()
    }
    first, second = trial.loss(batch), trial.loss(Batch(batch.labelled, views))
    torch.testing.assert_close(second.total, first.total)
    for key, update in first.updates.items():
        torch.testing.assert_close(second.updates[key].value, update.value)


@pytest.mark.parametrize("name", [*FAMILY, "fixmatch"])
def test_labels_come_from_the_teacher_or_the_student(name: str) -> None:
    for q_from, n_passes in (("teacher", 1), ("student", 2)):
        trial = make_trial(make_method(name, {"q_from": q_from}), "scene")
        assert (trial.teacher is not None) == (q_from == "teacher")
        assert trial.method.needs().trained_passes == n_passes
        of_labelled = {"adamatch": 2, "defixmatch": 2 + (1 / 3 if q_from == "teacher" else 1)}.get(name, 1)
        assert trial.method.needs().labelled_passes == of_labelled
    trial = make_trial(make_method(name), "scene")
    trial.teacher = None
    with pytest.raises(ConfigError, match=f"method '{name}': found no teacher"):
        trial.loss()


def test_strong_views_of_whole_images_have_a_geometry_of_their_own_and_those_of_maps_the_weak_one() -> None:
    for task, is_shared in (("scene", False), ("segmentation", True)):
        views = make_trial(make_method("fixmatch"), task).batch().unlabelled
        assert (views["weak"].geometry is views["strong"].geometry) == is_shared


_AS_MANY_AS_SHOWN = {"fixmatch_jem": {"mu": 2.0, "share": 0.0}}  # its chains go by mu, from the first step on
_COUNT_THEIR_DECODERS = ("ssl_mae", "vae")  # whose passes are not those of the net alone


def whole_image_cases() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every method that serves scenes, and once more with the student labelling where that is a choice."""
    for name in method_names():
        needs = make_method(name).needs()
        if "scene" in needs.tasks and name not in _COUNT_THEIR_DECODERS:
            yield name, _AS_MANY_AS_SHOWN.get(name, {})
            if any(setting["name"] == "q_from" for setting in describe_method(name)["settings"]):
                yield name, {"q_from": "student"} | _AS_MANY_AS_SHOWN.get(name, {})


@pytest.mark.parametrize(("name", "options"), list(whole_image_cases()))
def test_passes_declared_are_passes_made(name: str, options: dict[str, Any]) -> None:
    """A step is counted image by image where it goes through the net: without gradient a third, where chains move two.

    The gradient of chains is that of pixels and not of parameters.
    """
    trial = make_trial(make_method(name, options), "scene")
    has_chains, made = "energy_samples" in dict(trial.method.needs().watched), []

    def count(_: object, given: tuple[Tensor, ...], out: Tensor) -> None:
        cost = 2 / 3 if has_chains and given[0].requires_grad else 1
        made.append(len(out) * (cost if torch.is_grad_enabled() else 1 / 3))

    for net in (trial.net, *(() if trial.teacher is None else (trial.teacher.net,))):
        net.first.register_forward_hook(count)  # type: ignore[operator, union-attr]
    batch = trial.batch()
    trial.loss(batch)
    n_labelled, n_unlabelled = (
        sum(len(view.pixels) for view in list(views.values())[:1]) for views in (batch.labelled, batch.unlabelled)
    )
    needs = trial.method.needs()
    declared = n_labelled * needs.labelled_passes + n_unlabelled * (needs.trained_passes + needs.forward_passes / 3)
    assert sum(made) == pytest.approx(declared)
