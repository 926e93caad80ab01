"""SSL-MAE: what is hidden, what each loss teaches, what predicts and ships, wrong nets, and that it trains."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from toy_methods import TaskSource

from berunda.data.order import Randomness
from berunda.errors import ConfigError
from berunda.mapping.bundle import make_tensors
from berunda.methods import make_method
from berunda.methods._checking.trial import Trial, make_trial, patch_net, without_labels
from berunda.methods.contract import NetSpec
from berunda.models.build import build_net
from berunda.models.transformer import patches_of
from berunda.train.config import TrainConfig
from berunda.train.loop import train
from berunda.train.passes import equal_settings, image_passes


def trial_of(task: Any = "multilabel", **options: Any) -> Trial:
    return make_trial(make_method("ssl_mae", options), task)


def places(trial: Trial, n: int = 6, rng: Randomness | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    return trial.method._drawn(trial.net.encoder, [torch.zeros(n, 4, 12, 12)], rng or Randomness(0))


@pytest.mark.parametrize(("ratio", "n_hidden"), [(0.01, 1), (0.3, 3), (0.75, 7), (0.99, 8)])
def test_a_share_of_the_nine_patches_is_hidden_in_each_image(ratio: float, n_hidden: int) -> None:
    seen, hidden = places(trial_of(mask_ratio=ratio))
    assert hidden.shape == (6, n_hidden)
    assert [sorted(row) for row in torch.cat([seen, hidden], 1).tolist()] == [list(range(9))] * 6


def test_masks_differ_by_image_and_step_and_repeat_by_key() -> None:
    trial = trial_of()
    first, again, later = (places(trial, rng=Randomness(0).at(i))[1] for i in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, later)
    assert len({tuple(sorted(row)) for row in first.tolist()}) > 1


def test_every_patch_is_hidden_as_often() -> None:
    hidden = places(trial_of(mask_ratio=0.33), n=3000)[1]
    counts = torch.bincount(hidden.flatten(), minlength=9) / 3000
    assert float((counts - 1 / 3).abs().max()) < 0.04


@pytest.mark.parametrize("value", [0, 1, -0.1, 1.5, "half"])
def test_mask_ratio_outside_its_range_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match="mask_ratio"):
        make_method("ssl_mae", {"mask_ratio": value})


@pytest.mark.parametrize("name", ["decoder_depth", "decoder_heads"])
def test_the_size_of_a_decoder_that_is_not_there_is_refused(name: str) -> None:
    make_method("ssl_mae", {name: 2})
    with pytest.raises(ConfigError, match=f"found {name} with encoder_sees=all"):
        make_method("ssl_mae", {name: 2, "encoder_sees": "all"})


def joint(trial: Trial) -> float:
    """The loss once more in numpy, from the net's own tokens and guess."""
    batch, method = trial.batch(), trial.method
    views = [batch.labelled["weak"], *batch.unlabelled.values()]
    rng = trial.rng.at(0)
    seen, hidden = method._drawn(trial.net.encoder, [v.pixels for v in views], rng)
    pixels, valid = torch.cat([v.pixels for v in views]), torch.cat([v.valid for v in views])
    with torch.no_grad():
        tokens, guess = trial.extra.decoder(trial.net.encoder, pixels, seen, hidden)
        logits = trial.net.head(tokens[: len(views[0].pixels)].mean(1)).double().numpy()
    truth = views[0].labels.double().numpy()
    probability = 1 / (1 + np.exp(-logits))
    supervised = -np.mean(truth * np.log(probability) + (1 - truth) * np.log(1 - probability))
    errors: list[float] = []
    for i in range(len(pixels)):
        cut, known = (patches_of(x[i : i + 1], 4)[0].numpy() for x in (pixels, valid[:, None]))
        for j, place in enumerate(hidden[i].tolist()):
            want, got = cut[place].reshape(4, 16), guess[i, j].numpy().reshape(4, 16)
            errors += list(np.abs(got - want)[:, known[place]].ravel())
    return method.w * supervised + (1 - method.w) * float(np.mean(errors))


@pytest.mark.parametrize("options", [{}, {"w": 0.8, "mu": 2.0}, {"mu": 0.0}, {"encoder_sees": "all"}])
def test_loss_against_its_twin(options: dict[str, Any]) -> None:
    trial = trial_of(**options)
    assert trial.loss().total.item() == pytest.approx(joint(trial), rel=1e-4)


def test_unknown_labels_do_not_count() -> None:
    trial = trial_of(w=1.0, mu=0.0)
    labels = trial.labelled.labels
    assert labels is not None
    labels[:, 1] = torch.nan
    trial.loss().total.backward()
    assert not trial.net.head.weight.grad[1].any()
    assert trial.net.head.weight.grad[0].any()


def test_each_term_teaches_its_own_part_and_both_the_encoder() -> None:
    by_labels, by_pixels = trial_of(w=1.0), trial_of(w=0.5)
    by_pixels.labelled = without_labels(by_pixels.labelled)
    for trial in (by_labels, by_pixels):
        trial.loss().total.backward()
        assert any(p.grad is not None and p.grad.any() for p in trial.net.encoder.parameters())
    assert not any(p.grad.any() for p in by_labels.extra.decoder.parameters())
    assert by_labels.net.head.weight.grad.any()
    assert not by_pixels.net.head.weight.grad.any()
    assert all(p.grad.any() for p in by_pixels.extra.decoder.parameters() if p.ndim > 1)


def test_a_masked_pass_counts_as_what_it_computes() -> None:
    spec = NetSpec("multilabel", 3, 17, encoder="vit_mini_patch16", pretrained=False, crop_px=128)
    for ratio in (0.3, 0.75):
        method = make_method("ssl_mae", {"mask_ratio": ratio})
        net = build_net(spec)
        extra, x = method.init(net, spec), torch.randn(2, 3, 128, 128)
        seen, hidden = method._drawn(net.encoder, [x], Randomness(0))
        with torch.no_grad(), FlopCounterMode(display=False) as whole:
            net(x)
        with torch.no_grad(), FlopCounterMode(display=False) as masked:
            extra.decoder(net.encoder, x, seen, hidden)
        needs = method.needs()
        assert needs.labelled_passes == needs.trained_passes
        assert needs.trained_passes == pytest.approx(masked.get_total_flops() / whole.get_total_flops(), abs=0.08)
    assert make_method("ssl_mae", {"encoder_sees": "all"}).needs().trained_passes == 1
    assert make_method("ssl_mae", {"decoder_depth": 4}).needs().trained_passes > 0.6


def test_equal_compute_gives_masked_passes_more_steps() -> None:
    base = TrainConfig(steps=100, n_labelled=16)
    given = {sees: make_method("ssl_mae", {"encoder_sees": sees}) for sees in ("visible", "all")}
    steps = {sees: equal_settings(method, base, 3200.0).steps for sees, method in given.items()}
    assert steps == {"visible": 270, "all": 100}
    assert image_passes(given["visible"], replace(base, steps=270)) == pytest.approx(3200, rel=0.01)


def test_labelled_only_asks_for_no_unlabelled_image() -> None:
    needs = make_method("ssl_mae", {"mu": 0}).needs()
    assert not needs.unlabelled
    assert needs.unlabelled_ratio == 0


def test_prediction_sees_every_patch_and_needs_no_decoder() -> None:
    trial = trial_of()
    trial.net.eval()
    x = torch.randn(2, 4, 12, 12)
    logits = trial.method.predict(trial.net, nn.Module(), x)
    assert torch.equal(logits, trial.net(x))
    for place in range(9):
        cut = patches_of(x, 4)
        cut[:, place] += 1
        moved = trial.net(cut.view(2, 3, 3, 4, 4, 4).permute(0, 3, 1, 4, 2, 5).reshape(2, 4, 12, 12))
        assert not torch.allclose(moved, logits)


def test_a_bundle_keeps_the_decoder() -> None:
    trial = trial_of()
    kept = make_tensors(trial.method, trial.net, trial.extra)
    assert {name.split(".")[0] for name in kept} == {"net", "extra"}
    assert any(name.startswith("extra.decoder.") for name in kept)


def test_normalised_targets_do_not_ask_for_brightness() -> None:
    bright, dark = trial_of(normalise=True), trial_of(normalise=True)
    for trial in (bright, dark):
        nn.init.zeros_(trial.extra.decoder.last.weight)
    bright.labelled.pixels.mul_(3).add_(5)
    assert bright.loss().terms["unsupervised"].item() == pytest.approx(
        dark.loss().terms["unsupervised"].item(), rel=0.05
    )
    assert trial_of().loss().terms["unsupervised"] != dark.loss().terms["unsupervised"]


def test_wrong_nets_are_refused() -> None:
    method = make_method("ssl_mae")
    spec = NetSpec("scene", 3, 4, encoder_depth=2, pretrained=False)
    with pytest.raises(ConfigError, match=r"found encoder 'efficientnet_lite0', expected one of patches: vit_mini"):
        method.init(build_net(spec), spec)
    spec = NetSpec("scene", 3, 4, encoder="vit_mini_patch16", pretrained=False, crop_px=16)
    net = build_net(spec)
    with pytest.raises(ConfigError, match="16 px, a single patch, expected at least 32 px"):
        method.init(net, spec)


@pytest.mark.parametrize("task", ["scene", "multilabel"])
@pytest.mark.parametrize("name", ["ssl_mae", "supervised"])
def test_the_house_transformer_is_trained_by_the_loop(task: Any, name: str) -> None:
    class Small(type(make_method(name))):  # type: ignore[misc]
        def build(self, spec: NetSpec) -> nn.Module:
            return patch_net(spec)

    spec = NetSpec(task, 4, 3, pretrained=False, crop_px=12)
    source = TaskSource(task=task)
    trained = train(Small(), spec, source, TrainConfig(steps=60, n_labelled=8, learning_rate=0.01))
    terms = ("supervised", "unsupervised") if name == "ssl_mae" else ("supervised",)
    for term in terms:
        first, last = (np.mean([row[term] for row in rows]) for rows in (trained.log[:10], trained.log[-10:]))
        assert last < first, f"{term} is learned by itself"
    assert [row["weight"] for row in trained.log] == [0.5] * 60 if name == "ssl_mae" else "weight" not in trained.log[0]
