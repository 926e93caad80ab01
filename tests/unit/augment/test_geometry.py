"""Geometries move pixels there and back, exactly."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from berunda.augment.geometry import FLIP_COLS, FLIP_ROWS, TRANSPOSE, Geometry, draw_geometry
from berunda.errors import DataError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def reference_apply(x: torch.Tensor, turn: int, shift: list[int], fill: float) -> torch.Tensor:
    """One (H, W) image, by torch's own flips and slices."""
    if turn & TRANSPOSE:
        x = x.T
    if turn & FLIP_ROWS:
        x = x.flip(0)
    if turn & FLIP_COLS:
        x = x.flip(1)
    out = torch.full_like(x, fill)
    n_rows, n_cols = x.shape
    for row in range(n_rows):
        for col in range(n_cols):
            if 0 <= row - shift[0] < n_rows and 0 <= col - shift[1] < n_cols:
                out[row, col] = x[row - shift[0], col - shift[1]]
    return out


@pytest.mark.parametrize("turn", range(8))
def test_apply_agrees_with_flips_and_slices(turn):
    shift = [(turn % 5) - 2, (turn % 3) - 1]
    image = torch.arange(25).view(1, 5, 5)
    geometry = Geometry(torch.tensor([turn]), torch.tensor([shift]))
    torch.testing.assert_close(geometry.apply(image, -1)[0], reference_apply(image[0], turn, shift, -1))


def test_eight_turns_are_all_drawn_and_differ():
    geometry = draw_geometry((400, 6, 6), generator())
    assert sorted(set(geometry.turn.tolist())) == list(range(8))
    image = torch.arange(36).view(1, 6, 6).expand(8, 6, 6)
    turned = Geometry(torch.arange(8), torch.zeros(8, 2, dtype=torch.int64)).apply(image)
    assert len({tuple(x.flatten().tolist()) for x in turned}) == 8


def test_shift_stays_within_its_range():
    shift = draw_geometry((500, 8, 8), generator(), max_shift_px=3).shift_px
    assert shift.min() == -3
    assert shift.max() == 3


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**31),
    rows=st.integers(1, 9),
    cols=st.integers(1, 9),
    square=st.booleans(),
    max_shift_px=st.integers(0, 3),
)
def test_inverse_restores_all_that_was_kept(seed, rows, cols, square, max_shift_px):
    cols = rows if square else cols
    geometry = draw_geometry((4, rows, cols), generator(seed), max_shift_px=max_shift_px)
    image = torch.arange(4 * rows * cols).view(4, rows, cols)
    kept = geometry.inverse(geometry.apply(torch.ones_like(image, dtype=torch.bool)))
    back = geometry.inverse(geometry.apply(image, -1), -1)
    assert torch.equal(back, image.masked_fill(~kept, -1))
    if max_shift_px == 0:
        assert kept.all()


def test_labels_and_pixels_move_together():
    geometry = draw_geometry((6, 16, 16), generator(3), max_shift_px=4)
    labels = torch.randint(0, 5, (6, 16, 16), generator=generator(1))
    pixels = labels[:, None].float().repeat(1, 3, 1, 1)
    moved = geometry.apply(labels, -1)
    shown = moved >= 0
    for band in geometry.apply(pixels).unbind(1):
        assert torch.equal(band[shown], moved[shown].float())
    assert (geometry.apply(pixels)[:, 0][~shown] == 0).all()


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.bfloat16, torch.float64])
def test_type_is_kept(dtype):
    geometry = draw_geometry((2, 4, 4), generator(), max_shift_px=1)
    assert geometry.apply(torch.ones(2, 4, 4).to(dtype)).dtype == dtype


def test_invalid_values_are_never_read():
    pixels = torch.ones(3, 2, 8, 8)
    valid = torch.ones(3, 8, 8, dtype=torch.bool)
    valid[:, 2:4] = False
    pixels.masked_fill_(~valid[:, None], float("nan"))
    for extra in ({}, {"log_scale": 0.2, "rotation_deg": 20.0}):
        geometry = draw_geometry((3, 8, 8), generator(), max_shift_px=1, **extra)
        view, valid_view = geometry.apply_masked(pixels, valid)
        assert view.isfinite().all()
        assert (view[~valid_view[:, None].expand_as(view)] == 0).all()
        torch.testing.assert_close(
            view[valid_view[:, None].expand_as(view)],
            torch.ones(int(valid_view.sum()) * 2),
            atol=2e-3,
            rtol=0,
        )


def test_affine_of_a_ramp_inverts():
    geometry = draw_geometry((4, 32, 32), generator(), log_scale=0.3, rotation_deg=30)
    ramp = torch.linspace(0, 1, 32, dtype=torch.float64).expand(4, 1, 32, 32).contiguous()
    inside = geometry.inverse(geometry.apply(torch.ones(4, 1, 32, 32, dtype=torch.bool)))
    back = geometry.inverse(geometry.apply(ramp))
    assert inside.float().mean() > 0.4
    torch.testing.assert_close(back[inside], ramp[inside], atol=1e-6, rtol=0)


def test_affine_keeps_labels_whole():
    geometry = draw_geometry((4, 16, 16), generator(), log_scale=0.3, rotation_deg=45)
    labels = torch.randint(0, 2, (4, 16, 16), generator=generator(2)) * 7
    assert set(geometry.apply(labels, -1).unique().tolist()) <= {-1, 0, 7}


def test_identity_changes_nothing_and_takes_any_shape():
    image = torch.rand(2, 3, 4, 7)
    assert torch.equal(Geometry.identity(2).apply(image), image)


def test_transposing_a_rectangle_is_refused():
    geometry = Geometry(torch.tensor([4]), torch.zeros(1, 2, dtype=torch.int64))
    with pytest.raises(DataError, match="expected a square image"):
        geometry.apply(torch.zeros(1, 4, 5))


def test_wrong_number_of_samples_is_refused():
    with pytest.raises(DataError, match=r"expected \(2, H, W\)"):
        Geometry.identity(2).apply(torch.zeros(3, 4, 4))


def test_select_and_empty():
    geometry = draw_geometry((4, 6, 6), generator(), max_shift_px=1, rotation_deg=10)
    image = torch.rand(4, 6, 6)
    picked = torch.tensor([2, 0])
    torch.testing.assert_close(geometry.select(picked).apply(image[picked]), geometry.apply(image)[picked])
    assert draw_geometry((0, 6, 6), generator()).apply(torch.zeros(0, 2, 6, 6)).shape == (0, 2, 6, 6)


def test_gradient_passes():
    x = torch.rand(2, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    geometry = draw_geometry((2, 4, 4), generator(), max_shift_px=1)
    assert torch.autograd.gradcheck(lambda x: geometry.apply(x), (x,))
