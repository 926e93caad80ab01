"""Permutations far from each other, shuffled patches and holes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from berunda.augment.puzzle import draw_holes, far_permutations, shuffle_patches
from berunda.errors import ConfigError


def distances(orders: np.ndarray) -> np.ndarray:
    """Hamming distances between all pairs."""
    return (orders[:, None] != orders[None]).sum(axis=2)[np.triu_indices(len(orders), 1)]


@pytest.mark.parametrize("n", [1, 9, 30, 100])
def test_permutations_are_permutations_and_differ(n) -> None:
    orders = far_permutations(n)
    assert orders.shape == (n, 9)
    assert (np.sort(orders, axis=1) == np.arange(9)).all()
    assert len(np.unique(orders, axis=0)) == n


def test_the_first_nine_differ_everywhere() -> None:
    """Nine permutations of nine patches can differ in all places, and the greedy choice finds such nine."""
    assert distances(far_permutations(9)).min() == 9


def test_they_are_further_apart_than_random_ones() -> None:
    found = distances(far_permutations(100))
    rng = np.random.default_rng(0)
    random = distances(np.stack([rng.permutation(9) for _ in range(100)]))
    assert found.min() >= 6
    assert found.min() > random.min()
    assert found.mean() > random.mean()


def test_each_choice_is_the_furthest_there_is() -> None:
    """A twin by brute force for four patches: no permutation left is further from those chosen before."""
    from itertools import permutations

    everything = np.array(list(permutations(range(4))))
    orders = far_permutations(8, 4)
    for i in range(1, len(orders)):
        least = (everything[:, None] != orders[None, :i]).sum(axis=2).min(axis=1)
        assert (orders[i] != orders[:i]).sum(axis=1).min() == least.max()


def test_a_longer_list_begins_with_the_shorter() -> None:
    assert (far_permutations(30)[:10] == far_permutations(10)).all()


def test_more_than_there_are_is_refused() -> None:
    with pytest.raises(ConfigError, match="found 25, expected at most 24"):
        far_permutations(25, 4)


def test_shuffling_moves_whole_patches() -> None:
    x = torch.arange(2 * 3 * 7 * 8).view(2, 3, 7, 8)
    order = torch.tensor(far_permutations(5)[[1, 4]])
    found = shuffle_patches(x, order)
    assert found.shape == (2, 3, 6, 6)
    for n in range(2):
        for j, source in enumerate(order[n].tolist()):
            to, fro = divmod(j, 3), divmod(source, 3)
            got = found[n, :, 2 * to[0] : 2 * to[0] + 2, 2 * to[1] : 2 * to[1] + 2]
            assert torch.equal(got, x[n, :, 2 * fro[0] : 2 * fro[0] + 2, 2 * fro[1] : 2 * fro[1] + 2])


def test_pixels_labels_and_masks_move_alike() -> None:
    labels = torch.randint(0, 5, (4, 12, 12), generator=torch.Generator().manual_seed(0))
    order = torch.tensor(far_permutations(4))
    moved = shuffle_patches(labels[:, None].float(), order)[:, 0]
    assert torch.equal(moved, shuffle_patches(labels, order).float())
    assert torch.equal(shuffle_patches(labels > 2, order), moved > 2)
    assert torch.equal(shuffle_patches(labels, order)[0], labels[0]), "the first permutation changes nothing"


@pytest.mark.parametrize("shape", [(4, 12, 12), (4, 5, 9), (3, 1, 1)])
def test_holes_are_squares_inside_the_crop(shape) -> None:
    side = min(3, *shape[1:])
    holes = draw_holes(shape, 3, torch.Generator().manual_seed(0))
    assert holes.shape == shape
    for hole in holes:
        rows, cols = np.nonzero(hole.numpy())
        assert len(rows) == side * side
        assert np.ptp(rows) == np.ptp(cols) == side - 1


def test_holes_reach_every_pixel() -> None:
    holes = draw_holes((400, 6, 6), 2, torch.Generator().manual_seed(1))
    assert holes.any(0).all()
