"""Methods that ask for equal answers: pi-model, mean teacher and VAT against twins in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from berunda.augment.geometry import draw_geometry
from berunda.methods import make_method
from berunda.methods._checking.trial import make_trial
from berunda.methods._consistency import carried
from berunda.methods.contract import Images, Step
from berunda.methods.mean_teacher import mean_teacher_loss
from berunda.methods.pi_model import pi_model_loss
from berunda.methods.vat import adversarial_direction, vat_loss

N, C = 6, 3


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def np_softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def test_pi_model_agrees_with_its_twin() -> None:
    first, second, mask = draw(N, C), draw(N, C, seed=1), torch.arange(N) > 1
    expected = ((np_softmax(first.numpy()) - np_softmax(second.numpy())) ** 2)[2:].mean()
    assert float(pi_model_loss(first, second, mask)) == pytest.approx(expected, abs=1e-6)
    assert pi_model_loss(second, first, mask) == pi_model_loss(first, second, mask)
    inputs = (first.requires_grad_(), second.requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: pi_model_loss(a, b, mask), inputs)


@pytest.mark.parametrize("shape", [(N, C), (N, C, 4, 5)])
def test_mean_teacher_agrees_with_its_twin(shape: tuple[int, ...]) -> None:
    logits, taught = draw(*shape), draw(*shape, seed=1).softmax(1)
    mask = draw(N, *shape[2:], seed=2) > 0
    error = np.moveaxis((np_softmax(logits.numpy()) - taught.numpy()) ** 2, 1, -1)
    assert float(mean_teacher_loss(logits, taught, mask)) == pytest.approx(error[mask.numpy()].mean(), abs=1e-6)
    assert torch.autograd.gradcheck(lambda x: mean_teacher_loss(x, taught, mask), logits.requires_grad_())


def view(original: Tensor, valid: Tensor, seed: int) -> Images:
    generator = torch.Generator().manual_seed(seed)
    geometry = draw_geometry((len(original), *original.shape[2:]), generator, max_shift_px=2)
    return Images(*geometry.apply_masked(original, valid), None, geometry, torch.arange(len(original)))


def test_maps_are_carried_from_view_to_view_exactly() -> None:
    original, valid = draw(N, 2, 8, 8), draw(N, 8, 8, seed=1) > -1
    start, end = view(original, valid, 1), view(original, valid, 2)
    maps, seen = carried(start.pixels, start, end)
    assert 0.3 < seen.double().mean() < 0.9
    assert torch.equal(maps.movedim(1, -1)[seen], end.pixels.movedim(1, -1)[seen])
    assert not (seen & ~end.valid).any()


def test_mean_teacher_is_content_where_the_net_only_looks_at_pixels() -> None:
    """Teacher and student are the same net here; on weak views of maps they say the same of the same pixel."""
    trial = make_trial(make_method("mean_teacher", {"recipe": "weak"}), "segmentation")
    assert trial.loss().terms["unsupervised"] < 1e-12
    assert make_trial(make_method("mean_teacher"), "segmentation").loss().terms["unsupervised"] > 1e-6


def test_consistency_rises_over_the_training() -> None:
    for name in ("pi_model", "mean_teacher"):
        trial = make_trial(make_method(name, {"ramp": 0.5}), "scene")
        batch = trial.batch()
        totals = [
            trial.method.loss(trial.net, trial.extra, batch, Step(i, 100, trial.teacher), trial.rng).total
            for i in (0, 25, 50, 99)
        ]
        assert totals[0] < totals[1] < totals[2] == totals[3]


# Virtual adversarial training of a linear classifier of whole images, whose direction is known in closed form.

PIXELS = (N, 2, 3, 3)


def linear(weight: Tensor):
    return lambda x: x.flatten(1) @ weight


def test_direction_agrees_with_its_twin() -> None:
    weight, pixels, start = draw(18, C), draw(*PIXELS, seed=1), 0.1 * draw(*PIXELS, seed=2)
    valid = draw(N, 3, 3, seed=3) > -0.7
    classify = linear(weight)
    found = adversarial_direction(classify, pixels, classify(pixels), start, valid)
    x, r, w = (t.numpy() for t in (pixels.flatten(1), start.flatten(1), weight))
    gradient = ((np_softmax((x + r) @ w) - np_softmax(x @ w)) @ w.T).reshape(PIXELS)
    inside = np.broadcast_to(valid.numpy()[:, None], PIXELS)
    for i in range(N):
        expected = np.where(inside[i], gradient[i], 0)
        expected /= np.sqrt((expected**2).sum() / inside[i].sum())
        np.testing.assert_allclose(found[i].numpy(), expected, atol=1e-6)


def test_vat_agrees_with_its_twin() -> None:
    moved, clean, mask = draw(N, C), draw(N, C, seed=1), torch.arange(N) > 1
    p, q = np_softmax(clean.numpy())[2:], np_softmax(moved.numpy())[2:]
    expected = (p * np.log(p / q)).sum(1).mean()
    assert float(vat_loss(moved, clean, mask)) == pytest.approx(expected, abs=1e-6)
    assert torch.autograd.gradcheck(lambda x: vat_loss(x, clean, mask), moved.requires_grad_())


def test_the_direction_changes_more_than_a_random_one() -> None:
    weight, pixels = draw(18, C), draw(*PIXELS, seed=1)
    classify, valid, mask = linear(weight), torch.ones(N, 3, 3, dtype=torch.bool), torch.ones(N, dtype=torch.bool)
    clean, start = classify(pixels), draw(*PIXELS, seed=4)
    found = adversarial_direction(classify, pixels, clean, 1e-3 * start, valid)
    random = start / start.square().mean((1, 2, 3), keepdim=True).sqrt()
    worst, usual = (vat_loss(classify(pixels + 0.1 * r), clean, mask) for r in (found, random))
    assert worst > 2 * usual


def test_vat_leaves_the_statistics_of_batch_norm_to_images_that_are_data() -> None:
    def make_net(spec):
        return nn.Sequential(
            nn.Conv2d(spec.n_bands, 8, 1),
            nn.BatchNorm2d(8, momentum=None),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, spec.n_classes),
        )

    trial = make_trial(make_method("vat"), "scene", make_net)
    batch = trial.batch()
    trial.loss(batch)
    found = trial.net[1]
    assert found.num_batches_tracked == 2, "the labelled and the unlabelled images, each once"
    outputs = [trial.net[0](x["weak"].pixels) for x in (batch.labelled, batch.unlabelled)]
    expected = torch.stack([output.mean((0, 2, 3)) for output in outputs]).mean(0)
    torch.testing.assert_close(found.running_mean, expected)


def test_vat_does_not_depend_on_the_size_of_the_image() -> None:
    """Tiling a pooled image changes nothing: epsilon is a root mean square."""
    weight, pixels, start = draw(2, C), draw(*PIXELS, seed=1), draw(*PIXELS, seed=2)

    def classify(x: Tensor) -> Tensor:
        return x.mean((2, 3)) @ weight

    small, large = (
        adversarial_direction(classify, x, classify(x), 0.1 * s, torch.ones(N, *x.shape[2:], dtype=torch.bool))
        for x, s in ((pixels, start), (pixels.repeat(1, 1, 2, 2), start.repeat(1, 1, 2, 2)))
    )
    torch.testing.assert_close(large[:, :, :3, :3], small)
