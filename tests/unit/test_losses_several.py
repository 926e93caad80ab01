"""Several labels an image: priors, thresholds and losses against numpy twins; the methods that use them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from berunda import losses
from berunda.methods import make_method
from berunda.methods._checking.trial import make_trial, without_labels
from berunda.methods.contract import Batch, Images
from berunda.methods.mean_teacher import mean_teacher_loss

N, C = 40, 3


def draw(seed: int = 0, n: int = N) -> Tensor:
    return 3 * torch.randn(n, C, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def valid_of(n: int = N) -> Tensor:
    valid = torch.zeros(n, 2, 2, dtype=torch.bool)
    valid[1:, 0, 1] = True  # the first image has no data
    return valid


def np_bce(logit: float, label: float) -> float:
    p = 1 / (1 + np.exp(-logit))
    return float(-(label * np.log(p) + (1 - label) * np.log(1 - p)))


def test_counts_and_priors_leave_unknown_labels_out() -> None:
    nan = float("nan")
    labels = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, nan], [0.0, 0.0, nan], [1.0, nan, nan]])
    counts = losses.presence_counts(labels, valid_of(4))
    assert counts.tolist() == [[2, 0, 0], [3, 2, 0]]
    torch.testing.assert_close(losses.class_priors(counts), torch.tensor([2.5 / 4, 0.5 / 3, 0.5]))


def np_thresholds(logits: Any, prior: float, share: float) -> tuple[float, float]:
    """Sort all predictions: the highest and the lowest ones are believed."""
    ordered, n = np.sort(logits), len(logits)
    return ordered[n - round(share * prior * n)], ordered[round(share * (1 - prior) * n) - 1]


@pytest.mark.parametrize("share", [0.3, 0.8, 1.0])
def test_thresholds_are_the_quantiles_that_the_priors_ask_for(share: float) -> None:
    logits = draw(n=20_000)
    shares = losses.logit_shares(logits, torch.ones(len(logits), dtype=torch.bool))
    assert shares.shape == (C, losses.N_LOGIT_BINS)
    torch.testing.assert_close(shares.sum(1), torch.ones(C))
    priors = torch.tensor([0.5, 0.1, 0.01])
    present, absent = losses.prior_thresholds(shares, priors, share)
    for c in range(C):
        expected = np_thresholds(logits[:, c].numpy(), float(priors[c]), share)
        assert (float(present[c]), float(absent[c])) == pytest.approx(expected, abs=0.1)
    labels, sure = losses.believed_presence(logits, present, absent)
    np.testing.assert_allclose((sure & (labels == 1)).double().mean(0), share * priors, atol=2e-3)
    np.testing.assert_allclose((sure & (labels == 0)).double().mean(0), share * (1 - priors), atol=4e-3)


def test_thresholds_do_not_ask_for_confidence() -> None:
    """Of a class whose probabilities all lie below 1% the surest ones still count as present."""
    logits = draw(n=1000) / 3 - 8
    shares = losses.logit_shares(logits, torch.ones(1000, dtype=torch.bool))
    present, absent = losses.prior_thresholds(shares, torch.full((C,), 0.1), 0.5)
    labels, sure = losses.believed_presence(logits, present, absent)
    assert (labels.mean(0) - 0.05).abs().max() < 0.01
    assert (absent < present).all()
    assert sure.double().mean() == pytest.approx(0.5, abs=0.02)


def test_masked_predictions_and_none_at_all_change_nothing() -> None:
    logits, mask = draw(), torch.arange(N) > 4
    shares = losses.logit_shares(logits, mask)
    torch.testing.assert_close(losses.logit_shares(logits[5:], mask[5:]), shares)
    assert losses.logit_shares(logits, torch.zeros(N, dtype=torch.bool)).sum() == 0


def test_the_loss_agrees_with_its_twin() -> None:
    logits, target = draw(), draw(1)
    labels, sure = losses.believed_presence(target, torch.full((C,), 1.5), torch.full((C,), -1.0))
    total = 0.0
    for i in range(1, N):
        for c in range(C):
            if target[i, c] > 1.5 or target[i, c] < -1.0:
                total += np_bce(float(logits[i, c]), float(target[i, c] > 1.5))
    found = losses.presence_loss(logits, labels, sure, valid_of())
    assert float(found) == pytest.approx(total / ((N - 1) * C), abs=1e-9)
    assert torch.autograd.gradcheck(
        lambda x: losses.presence_loss(x, labels, sure, valid_of()), logits.requires_grad_()
    )


def test_mean_teacher_compares_probabilities_of_each_label() -> None:
    logits, taught = draw(), draw(1).sigmoid()
    expected = ((1 / (1 + np.exp(-logits.numpy())) - taught.numpy()) ** 2)[1:].mean()
    mask = valid_of().flatten(1).any(1)
    assert float(mean_teacher_loss(logits, taught, mask, several=True)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", ["fixmatch", "pseudo_label"])
def test_methods_count_labels_and_believe_what_the_priors_ask_for(name: str) -> None:
    at_once = {"ramp": 0.0} if name == "fixmatch" else {}
    trial = make_trial(make_method(name, {"prior_share": 1.0, **at_once}), "multilabel", n_labelled=8)
    loss = trial.loss()
    counts = loss.updates["label_counts"].value
    assert counts[1].tolist() == [8, 8, 8]
    torch.testing.assert_close(counts[0], trial.labelled.labels.sum(0))
    assert loss.terms["used"] > 0.8, "with a share of 1 all but what lies within a bin is believed"
    nothing = make_trial(make_method(name, {"prior_share": 0.0}), "multilabel").loss().terms
    assert nothing["used"] == 0
    assert nothing["unsupervised"] == 0


def test_fixmatch_of_several_labels_is_what_its_parts_say() -> None:
    trial = make_trial(make_method("fixmatch", {"ramp": 0.0}), "multilabel", n_labelled=8)
    batch = trial.batch()
    loss = trial.loss(batch)
    weak, strong = batch.unlabelled["weak"], batch.unlabelled["strong"]
    with torch.no_grad():
        guess = trial.teacher.net(weak.pixels)  # type: ignore[union-attr]
        shares = 0.9 * losses.logit_shares(guess, torch.ones(len(guess), dtype=torch.bool))
        priors = losses.class_priors(losses.presence_counts(trial.labelled.labels, trial.labelled.valid))
        labels, sure = losses.believed_presence(guess, *losses.prior_thresholds(shares, priors, 0.5))
        expected = losses.presence_loss(trial.net(strong.pixels), labels, sure, weak.valid)
    torch.testing.assert_close(loss.terms["unsupervised"], expected, atol=1e-5, rtol=1e-4)
    assert 0 < sure.float().mean() < 1


def test_an_untrained_net_is_hardly_believed_and_more_and_more_later() -> None:
    trial = make_trial(make_method("fixmatch", {"prior_share": 1.0, "ramp": 0.4}), "multilabel", n_labelled=20)
    used = [float(trial.loss(step=step).terms["used"]) for step in (0, 20, 40, 90)]
    assert used[0] < 0.05
    assert used[0] < used[1] < used[2]
    assert min(used[2:]) > 0.8


@pytest.mark.parametrize("name", ["supervised", "fixmatch", "pseudo_label", "mean_teacher"])
def test_unknown_labels_enter_no_loss(name: str) -> None:
    trial = make_trial(make_method(name), "multilabel")
    batch = trial.batch()

    def with_labels(labels: Tensor) -> Batch:
        shown = {key: Images(x.pixels, x.valid, labels, x.geometry, x.index) for key, x in batch.labelled.items()}
        return Batch(shown, batch.unlabelled)

    labels = trial.labelled.labels
    assert labels is not None
    some = labels.clone()
    some[0, 1] = float("nan")
    full, part = trial.loss(with_labels(labels)), trial.loss(with_labels(some))
    assert torch.isfinite(part.total)
    assert part.terms["supervised"] != full.terms["supervised"]
    none = trial.loss(with_labels(without_labels(trial.labelled).labels))  # type: ignore[arg-type]
    assert none.terms["supervised"] == 0
