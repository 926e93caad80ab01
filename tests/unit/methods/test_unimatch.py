"""UniMatch: the formula, its twin, the branches, the views and the cost."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from berunda.augment.mix import draw_cutmix
from berunda.methods import make_method
from berunda.methods._checking.trial import Trial, make_trial, without_images
from berunda.methods.contract import NetSpec
from berunda.methods.unimatch import drop_channels, unimatch_loss
from berunda.models.build import build_net
from berunda.train.passes import passes_per_step


def twin(values: list[float], lambda_u: float) -> float:
    """(L_x + lambda_u (L_s1 / 4 + L_s2 / 4 + L_fp / 2)) / 2, by hand."""
    weights = np.array([0.5, lambda_u / 8, lambda_u / 8, lambda_u / 4])
    return float(weights @ np.array(values))


@pytest.mark.parametrize("lambda_u", [0.0, 1.0, 2.5])
def test_the_formula(lambda_u) -> None:
    values = np.random.default_rng(0).random(4).tolist()
    x, s1, s2, fp = (torch.tensor(v, dtype=torch.float64) for v in values)
    assert float(unimatch_loss(x, (s1, s2), fp, lambda_u)) == pytest.approx(twin(values, lambda_u), abs=1e-12)


def constant_teacher(trial: Trial, class_id: int, bias: float = 9.0) -> None:
    """Let the teacher say the same class everywhere."""
    assert trial.teacher is not None
    with torch.no_grad():
        for parameter in trial.teacher.parameters():
            parameter.zero_()
        trial.teacher.net.head.bias[class_id] = bias


def test_each_branch_agrees_with_its_twin() -> None:
    """Without dropping and mixing, all branches are cross-entropy with the teacher's class on their own view."""
    trial = make_trial(make_method("unimatch", {"drop": 0.0, "cutmix": 0.0}), "segmentation")
    constant_teacher(trial, 1)
    batch = trial.batch()
    valid = batch.unlabelled["weak"].valid.numpy()
    with torch.no_grad():
        logits = {name: trial.net(images.pixels).double().numpy() for name, images in batch.unlabelled.items()}
        own = trial.net(batch.labelled["weak"].pixels)
    found = {}
    for name, x in logits.items():
        log_p = x[:, 1] - np.log(np.exp(x).sum(axis=1))
        found[name] = float(-log_p[valid].mean())
    loss = trial.loss(batch)
    strong = (found["strong_1"] + found["strong_2"]) / 2
    assert float(loss.terms["strong"]) == pytest.approx(strong, rel=1e-5)
    assert float(loss.terms["feature"]) == pytest.approx(found["weak"], rel=1e-5)
    values = [float(loss.terms["supervised"]), found["strong_1"], found["strong_2"], found["weak"]]
    assert loss.total.item() == pytest.approx(twin(values, 1.0), rel=1e-5)
    assert own.shape == (4, 3, 12, 12)


def test_labels_and_masks_are_mixed_as_the_images_are() -> None:
    """What a mixed view shows is labelled by what the teacher says of the image it comes from."""
    trial = make_trial(make_method("unimatch", {"threshold": 0.0, "drop": 0.0, "strength": 0.0}), "segmentation")
    assert trial.teacher is not None
    batch = trial.batch()
    weak = batch.unlabelled["weak"]
    generator = trial.rng.at(0).torch("unimatch.cutmix")
    mixes = [draw_cutmix((4, 12, 12), generator) for _ in range(2)]
    assert not torch.equal(mixes[0].box, mixes[1].box), "each view is mixed in its own way"
    with torch.no_grad():
        labels = trial.teacher.net(weak.pixels).argmax(1)
        terms = []
        for mix, name in zip(mixes, ("strong_1", "strong_2"), strict=True):
            log_p = trial.net(mix.apply(batch.unlabelled[name].pixels)).log_softmax(1)
            picked = -log_p.gather(1, mix.apply(labels)[:, None])[:, 0]
            terms.append(picked[mix.apply(weak.valid)].mean())
    torch.testing.assert_close(trial.loss(batch).terms["strong"], (terms[0] + terms[1]) / 2)


def test_views_agree_pixel_by_pixel() -> None:
    views = make_trial(make_method("unimatch"), "segmentation").batch().unlabelled
    assert views["weak"].geometry is views["strong_1"].geometry is views["strong_2"].geometry
    assert torch.equal(views["weak"].valid, views["strong_2"].valid)
    assert not torch.equal(views["strong_1"].pixels, views["strong_2"].pixels)


def test_half_of_the_channels_are_dropped_and_the_mean_kept() -> None:
    x = torch.ones(6, 400, 3, 2)
    dropped = drop_channels(x, 0.5, torch.Generator().manual_seed(0))
    per_channel = dropped.flatten(2)
    assert ((per_channel == 0).all(2) | (per_channel == 2).all(2)).all()
    assert abs(float(dropped.mean()) - 1) < 0.1
    assert not torch.equal(dropped[0], dropped[1])
    assert torch.equal(drop_channels(x, 0.0, torch.Generator()), x)


@pytest.mark.parametrize("decoder", ["unet", "slim", "segnet"])
def test_pixels_and_places_of_maxima_are_not_dropped(decoder) -> None:
    def build(spec: NetSpec) -> torch.nn.Module:
        encoder = "vgg11_bn" if decoder == "segnet" else "efficientnet_lite0"
        return build_net(NetSpec("segmentation", 4, 3, encoder, 2, pretrained=False, pixel_path=True, decoder=decoder))

    trial = make_trial(make_method("unimatch", {"drop": 0.99}), "segmentation", build)
    seen: list[list[torch.Tensor]] = []
    decode = trial.net.decode
    trial.net.decode = lambda features: (seen.append(features), decode(features))[1]  # type: ignore[assignment]
    batch = trial.batch()
    loss = trial.loss(batch)
    loss.total.backward()
    pixels, *stages = seen[0]
    assert torch.equal(pixels[-4:], batch.unlabelled["weak"].pixels)
    assert all(x.dtype == torch.uint8 or bool((x[-4:] == 0).float().mean() > 0.9) for x in stages)
    assert all(bool((x[:4] == 0).float().mean() < 0.9) for x in stages if x.dtype != torch.uint8)


@pytest.mark.parametrize(("q_from", "sizes"), [("teacher", [4 + 3 * 4]), ("student", [4 + 3 * 4])])
def test_all_that_is_trained_is_encoded_in_one_pass(q_from, sizes) -> None:
    trial = make_trial(make_method("unimatch", {"q_from": q_from}), "segmentation")
    seen: list[int] = []
    trial.net.first.register_forward_hook(lambda net, args, out: seen.append(len(args[0])))
    trial.loss()
    assert seen == sizes


def test_what_it_costs() -> None:
    assert passes_per_step(make_method("unimatch", {"mu": 2.0}), 6) == 6 + 12 * (3 + 1 / 3)


def test_the_student_form_labels_with_whole_features_and_records_its_statistics_once() -> None:
    trial = make_trial(
        make_method("unimatch", {"q_from": "student", "threshold": 0.0}),
        "segmentation",
        lambda spec: build_net(NetSpec("segmentation", 4, 3, encoder_depth=2, pretrained=False, decoder="slim")),
    )
    trial.loss()
    assert {int(v) for name, v in trial.net.state_dict().items() if name.endswith("num_batches_tracked")} == {1}


def test_shares_of_pseudo_labels_are_logged_by_class() -> None:
    for name in ("unimatch", "fixmatch", "mixmatch", "mean_teacher"):
        terms = make_trial(make_method(name), "segmentation").loss().terms
        shares = [terms[f"pseudo_{c}"] for c in range(3)]
        torch.testing.assert_close(sum(shares), terms["used"])
        assert {f"used_{c}" for c in range(3)} <= set(terms)


def test_without_unlabelled_images_half_of_the_supervised_loss_is_left() -> None:
    trial = make_trial(make_method("unimatch"), "segmentation")
    trial.unlabelled = without_images(trial.unlabelled)
    loss = trial.loss()
    torch.testing.assert_close(loss.total.detach(), loss.terms["supervised"] / 2)
    assert float(loss.terms["used"]) == 0
