"""Hidden pixels: how they begin, how rounds of drawing change them, and that sampled ones become likelier."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from berunda import losses
from berunda.data.order import Randomness
from berunda.data.scaling import CLIP
from berunda.methods import make_method
from berunda.methods._checking.trial import make_trial
from berunda.methods._filling import ROUNDS, continued, redrawn


def hidden_square(n: int = 2, rows: int = 11, cols: int = 14) -> Tensor:
    """(n, rows, cols): True but for a square."""
    known = torch.ones(n, rows, cols, dtype=torch.bool)
    known[:, 3:8, 4:10] = False
    return known


def test_a_continuation_is_even_where_the_rest_is_and_stays_within_its_range() -> None:
    known = hidden_square()
    even = torch.tensor([0.3, -0.7]).view(1, 2, 1, 1).expand(2, 2, 11, 14)
    torch.testing.assert_close(continued(even.where(known[:, None], torch.nan), known), even)
    noise = torch.rand(2, 2, 11, 14, generator=torch.Generator().manual_seed(0))
    found = continued(noise, known)
    assert torch.equal(found.where(known[:, None], 0), noise.where(known[:, None], 0))
    assert float(found.min()) >= float(noise.min())
    assert float(found.max()) <= float(noise.max())


def test_a_continuation_is_nearer_to_what_is_nearer() -> None:
    ramp = torch.linspace(-1, 1, 32).expand(1, 1, 32, 32)
    known = torch.ones(1, 32, 32, dtype=torch.bool)
    known[:, :, 10:22] = False
    found = continued(ramp, known)
    assert float((found - ramp).abs().max()) < 0.3
    assert bool((found[..., 10] < found[..., 21]).all())


def test_an_image_of_which_nothing_is_known_stays_unknown_and_spoils_no_other() -> None:
    known = hidden_square()
    known[1] = False
    pixels = torch.rand(2, 3, 11, 14)
    for found in (continued(pixels, known), redrawn(pixels, known, lambda image: image.nan_to_num(1.0))):
        assert bool(found[0].isfinite().all())
        assert bool(found[1].isnan().all())


def test_rounds_lead_the_hidden_part_to_what_the_model_makes_of_the_whole() -> None:
    known, seen = hidden_square(1), []
    pixels = torch.zeros(1, 1, 11, 14).masked_fill(~known[:, None], 9.0)

    def rebuild(image: Tensor) -> Tensor:
        seen.append(image)
        return 0.5 * image + 1.0

    found = redrawn(pixels, known, rebuild)
    assert len(seen) == ROUNDS
    torch.testing.assert_close(found[0, 0][~known[0]], torch.full((30,), 2.0), atol=1e-4, rtol=0)
    assert not found[0, 0][known[0]].any()
    assert float(redrawn(pixels, known, lambda image: image + 5).max()) == CLIP


@pytest.mark.parametrize(("name", "task"), [("jem", "scene"), ("segjem", "segmentation"), ("fixmatch_jem", "scene")])
def test_sampled_pixels_are_likelier_than_where_they_began_and_the_rest_stays(name: str, task: str) -> None:
    trial = make_trial(make_method(name, {"variant": "sada", "replay": 32}), task)  # type: ignore[arg-type]
    pixels, nets = trial.labelled.pixels, (trial.net, trial.extra)
    known = hidden_square(len(pixels), 12, 12)
    found = trial.method.fill(*nets, pixels, known, Randomness(0))
    assert not found.requires_grad
    assert torch.equal(found.where(known[:, None], 0), pixels.where(known[:, None], 0))

    def energies(images: Tensor) -> Tensor:
        with torch.no_grad():
            return losses.energy(trial.method.predict(*nets, images)).view(len(images), -1).sum(1)

    assert bool((energies(found) < energies(continued(pixels, known))).all())
    assert all(p.grad is None for p in trial.net.parameters())


def test_a_trained_hvae_fills_with_what_it_paints_and_not_with_mixtures() -> None:
    trial = make_trial(make_method("hvae", {"width": 16}), "segmentation", n_labelled=16)
    trial.train(120, learning_rate=0.01)
    method: Any = trial.method
    pixels, colours = trial.labelled.pixels, 2 * torch.eye(3, 4)
    known, inner = trial.labelled.valid.clone(), torch.zeros_like(trial.labelled.valid)
    known[:, 2:10, 2:10] = False
    inner[:, 3:9, 3:9] = True
    with torch.no_grad():
        found = method.fill(trial.net, trial.extra, pixels, known, Randomness(0))
        painted = method.rebuilt(trial.net, trial.extra, pixels)

    def apart(images: Tensor) -> float:
        """Return how far hidden pixels are from the colour of the class that is nearest."""
        return float(torch.cdist(images.movedim(1, -1)[inner], colours).amin(1).mean())

    assert apart(found) < 1.15 * apart(painted)
    assert apart(found) < 0.75 * apart(continued(pixels, known))
