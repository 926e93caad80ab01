"""The lattice, tiles, the journal and the tiles' files."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from affine import Affine

from berunda.errors import OutputError
from berunda.geo.grid import Grid, Shape, Window
from berunda.mapping.journal import Journal, Receipt, read_journal
from berunda.mapping.plan import Lattice, Plan
from berunda.mapping.predictor import Planes
from berunda.mapping.tiles import TileStore


def plan(rows=300, cols=500, tile_px=64, window_px=64, margin_px=16, batch=3) -> Plan:
    lattice = Lattice(window_px, margin_px, batch)
    tile = lattice.tile_shape(tile_px)
    grid = Grid(Shape(rows, cols), Affine(10, 0, 0, 0, -10, 0), "")
    return Plan("s", "b", grid, lattice, (("precision", "fp32"),), *tile)


def every_batch(of: Plan):
    return {batch for i in range(of.n_tiles) for batch in of.lattice.batches(of.tile(i))}


@pytest.mark.parametrize("rows", [1, 31, 32, 33, 300])
@pytest.mark.parametrize("cols", [1, 95, 96, 97, 500])
@pytest.mark.parametrize("tile_px", [1, 40, 64, 100, 10_000])
def test_tiles_and_windows_cover_every_pixel_once(rows, cols, tile_px):
    made = plan(rows, cols, tile_px)
    tiles, windows = np.zeros((rows, cols), int), np.zeros((rows, cols), int)
    for i in range(made.n_tiles):
        tiles[made.tile(i).slices] += 1
    for batch in every_batch(made):
        for window in batch:
            windows[window.slices] += 1
    assert (tiles == 1).all()
    assert (windows == 1).all()


@pytest.mark.parametrize("tile_px", [40, 64, 100, 200, 10_000])
def test_batches_are_the_same_for_any_size_of_tiles(tile_px):
    assert every_batch(plan(tile_px=tile_px)) == every_batch(plan(tile_px=1))


def test_tiles_under_a_window_are_those_that_share_pixels():
    made = plan()
    window = Window(30, 90, 40, 200)
    expected = [i for i in range(made.n_tiles) if made.tile(i).intersect(window)]
    assert list(made.tiles_under(window)) == expected


def test_the_identity_does_not_depend_on_tiles_but_the_digest_does():
    one, two = plan(tile_px=64), plan(tile_px=300)
    assert one.identity == two.identity
    assert one.digest != two.digest
    for change in ({"scene": "x"}, {"bundle": "x"}, {"numerics": ()}, {"lattice": Lattice(64, 8, 3)}):
        assert replace(one, **change).identity != one.identity


def test_the_journal_remembers(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path, "p") as journal:
        journal.record(Receipt(3, "a" * 64, 10))
        journal.record(Receipt(1, "", 0))
    with Journal(path, "p") as journal:
        assert journal.receipts == {3: Receipt(3, "a" * 64, 10), 1: Receipt(1, "", 0)}


def test_a_journal_cut_anywhere_keeps_its_whole_lines(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path, "p") as journal:
        for i in range(3):
            journal.record(Receipt(i, "a" * 64, 10))
    data = path.read_bytes()
    for cut in {*range(0, len(data), 7), len(data) - 1, len(data)}:
        path.write_bytes(data[:cut])
        whole = data[:cut].count(b"\n")
        with Journal(path, "p") as journal:
            assert sorted(journal.receipts) == list(range(max(0, whole - 1)))
            journal.record(Receipt(9, "b" * 64, 1))
        assert sorted(read_journal(path, "p")[0]) == [*range(max(0, whole - 1)), 9]


@pytest.mark.parametrize(
    "line",
    [b"\0\0\0\0\n", b"{}\n", b"[]\n", b'{"index": -1, "n_bytes": 0, "sha256": ""}\n', b"[" * 100_000 + b"\n"]
    + [json.dumps({"index": v, "n_bytes": 0, "sha256": ""}).encode() + b"\n" for v in (True, "1", 1.5, None)],
)
def test_a_damaged_line_ends_the_journal(tmp_path, line):
    path = tmp_path / "journal.jsonl"
    with Journal(path, "p") as journal:
        journal.record(Receipt(0, "a" * 64, 10))
    with path.open("ab") as file:
        file.write(line + b'{"index": 5, "n_bytes": 0, "sha256": ""}\n')
    with Journal(path, "p") as journal:
        assert sorted(journal.receipts) == [0]


def test_a_journal_of_another_plan_counts_for_nothing(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path, "old") as journal:
        journal.record(Receipt(0, "a" * 64, 10))
    with Journal(path, "new") as journal:
        assert journal.receipts == {}
    assert read_journal(path, "old") == ({}, 0)


def random_planes(rows=20, cols=30) -> Planes:
    draw = np.random.default_rng(0)
    reals = [draw.random((rows, cols)).astype(np.float32) for _ in range(3)]
    reals[0][3, 4] = np.nan
    return Planes(draw.integers(0, 5, (rows, cols)).astype(np.uint8), *reals)


def test_a_tile_comes_back_in_rows(tmp_path):
    store, planes = TileStore(tmp_path), random_planes()
    receipt = store.write(7, planes)
    store.check(receipt, Shape(20, 30))
    back = store.read_rows(receipt, Shape(20, 30), slice(5, 12))
    for a, b in zip(planes.arrays(), back.arrays(), strict=True):
        np.testing.assert_array_equal(a[5:12], b)
    assert [p.name for p in tmp_path.iterdir()] == ["00000007.tile"]


def test_a_damaged_tile_is_found(tmp_path):
    store = TileStore(tmp_path)
    receipt = store.write(7, random_planes())
    path = store.path(7)
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    assert not store.is_intact(receipt, Shape(20, 30))
    with pytest.raises(OutputError, match=r"00000007\.tile"):
        store.check(receipt, Shape(20, 30))
    path.write_bytes(data[:-1])
    assert not store.is_intact(receipt, Shape(20, 30))
    path.unlink()
    assert not store.is_intact(receipt, Shape(20, 30))
    assert not store.is_intact(store.write(7, random_planes()), Shape(20, 31))


def test_a_tile_without_data_has_no_file(tmp_path):
    store = TileStore(tmp_path)
    receipt = store.write(2, None)
    assert store.is_intact(receipt, Shape(4, 5))
    assert (store.read_rows(receipt, Shape(4, 5), slice(0, 4)).classes == 0).all()
    assert not list(tmp_path.iterdir())
