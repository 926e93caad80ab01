"""Planted duplicates, overlaps and neighbours are found, and nothing else is."""

from __future__ import annotations

import io
import tracemalloc

import numpy as np
import pytest
import shapely
from PIL import Image
from toy_sites import picture

from berunda.assess.duplicates import _standardized, content_hash, find_duplicates, perceptual_hash
from berunda.assess.leakage import Placed, find_leaks
from berunda.errors import DataError


def described(pictures: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    thumbs = np.stack([np.asarray(Image.fromarray(p).resize((40, 40), Image.Resampling.BILINEAR)) for p in pictures])
    hashes = np.array([perceptual_hash(t) for t in thumbs], np.uint64)
    return hashes, np.array([content_hash(p) for p in pictures], np.uint64), thumbs


def reencoded(image: np.ndarray, quality: int = 60) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def test_copies_are_found_stored_again_resized_and_brightened() -> None:
    originals = [picture(k, side=64) for k in range(60)]
    bright = np.clip(originals[3] * 1.15 + 8, 0, 255).astype(np.uint8)
    small = np.asarray(Image.fromarray(originals[4]).resize((48, 48)))
    copies = [originals[0], reencoded(originals[1]), bright, small]
    hashes, contents, thumbs = described([*originals, *copies])
    found = {(p.first, p.second): p.is_exact for p in find_duplicates(hashes, contents, thumbs)}
    assert found == {(0, 60): True, (1, 61): False, (3, 62): False, (4, 63): False}


def test_pictures_of_many_images_are_never_copied_as_a_whole() -> None:
    n = 20_000
    thumbs = np.random.default_rng(0).integers(0, 255, (n, 10, 10, 3), dtype=np.uint8)
    tracemalloc.start()
    unit, spread = _standardized(thumbs)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * (unit.nbytes + spread.nbytes)
    grey = thumbs.astype(np.float64).mean(axis=3).reshape(n, -1)
    np.testing.assert_allclose(spread, grey.std(axis=1), rtol=1e-5)
    expected = (grey - grey.mean(axis=1, keepdims=True)) / grey.std(axis=1, keepdims=True)
    np.testing.assert_allclose(unit, expected, atol=1e-5)


def test_pairs_within_a_group_do_not_count() -> None:
    image = picture(1)
    hashes, contents, thumbs = described([image, image, picture(2)])
    assert find_duplicates(hashes, contents, thumbs, groups=np.array([0, 0, 1])) == []
    assert len(find_duplicates(hashes, contents, thumbs, groups=np.array([0, 1, 1]))) == 1


def test_among_thousands_of_equal_images_a_leak_is_found() -> None:
    n = 2500
    thumbs = np.zeros((n + 1, 2, 2, 3), np.uint8)
    groups = np.array([0] * n + [1])
    found = find_duplicates(np.zeros(n + 1, np.uint64), np.zeros(n + 1, np.uint64), thumbs, groups=groups)
    assert {pair.second for pair in found} == {n}
    assert len(found) == n


def test_blank_pictures_are_no_near_duplicates() -> None:
    rng = np.random.default_rng(0)
    blank = [np.clip(100 + rng.normal(size=(32, 32, 3)), 0, 255).astype(np.uint8) for _ in range(20)]
    assert find_duplicates(*described(blank)) == []


def placed(boxes: list[shapely.Polygon | None], parts: list[str], buffer: float = 2.0) -> Placed:
    n = len(boxes)
    hashes, contents, thumbs = described([picture(k) for k in range(n)])
    shapes = np.full(n, None, dtype=object)
    shapes[:] = boxes
    names = tuple(f"i{k}" for k in range(n))
    return Placed(names, tuple(parts), shapes, np.zeros(n, int), np.full(n, buffer), hashes, contents, thumbs)


def test_overlaps_and_neighbours_are_found_and_touching_the_buffer_is_not() -> None:
    test = shapely.box(0, 0, 10, 10)
    boxes = [
        test,
        shapely.box(5, 5, 15, 15),  # a quarter of it
        shapely.box(11, 0, 21, 10),  # one apart
        shapely.box(0, 12, 10, 22),  # exactly the buffer
        shapely.box(100, 0, 110, 10),
        shapely.box(11, 0, 12, 10),  # near, but without labels
        None,
    ]
    parts = ["test", *["labelled"] * 4, "unlabelled", "labelled"]
    leaks = find_leaks(placed(boxes, parts))
    assert [(leak.kind, leak.first, leak.part) for leak in leaks] == [
        ("overlap", "i1", "labelled"),
        ("neighbour", "i2", "labelled"),
        ("neighbour", "i5", "unlabelled"),
    ]
    assert "25%" in leaks[0].detail


def test_places_in_other_spaces_are_not_compared() -> None:
    both = placed([shapely.box(0, 0, 1, 1)] * 2, ["test", "labelled"])
    assert [leak.kind for leak in find_leaks(both)] == ["overlap"]
    apart = Placed(**{**vars(both), "spaces": np.array([0, 1])})
    assert find_leaks(apart) == []


def test_a_thousand_random_layouts_leak_exactly_where_numpy_says() -> None:
    rng = np.random.default_rng(1)
    template = placed([shapely.box(0, 0, 1, 1)] * 12, ["test"] * 12)
    for _ in range(1000):
        corner = rng.integers(0, 60, (12, 2)).astype(float)
        parts = np.where(rng.random(12) < 0.4, "test", "labelled")
        parts[:2] = "test", "labelled"
        shapes = np.array([shapely.box(x, y, x + 5, y + 5) for x, y in corner], dtype=object)
        found = find_leaks(Placed(**{**vars(template), "footprints": shapes, "parts": tuple(parts)}))
        gap = np.maximum(np.abs(corner[:, None] - corner[None]) - 5, 0)
        near = np.hypot(gap[..., 0], gap[..., 1]) < 2.0
        expected = {(f"i{i}", f"i{j}") for i, j in zip(*np.nonzero(near), strict=True)}
        crossing = {(a, b) for a, b in expected if parts[int(a[1:])] == "labelled" and parts[int(b[1:])] == "test"}
        assert {(leak.first, leak.second) for leak in found} == crossing


def test_a_split_of_one_part_has_nothing_to_audit() -> None:
    with pytest.raises(DataError, match="nothing to audit"):
        find_leaks(placed([None, None], ["labelled", "unlabelled"]))
