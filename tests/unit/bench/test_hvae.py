"""The benchmark of the HVAE: its landscapes, a tiny run that is resumed, and what its committed rows have to hold."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from scripts import load_script
from toy_masks import write_folder

from berunda.api import mask_bench
from berunda.bench.rows import RowFile
from berunda.data.images import TEST, TRAIN, VALIDATION
from berunda.data.masks.images import open_masks
from berunda.data.synthetic import CLASS_NAMES


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("benchmarks/hvae.py")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERUNDA_CACHE", str(tmp_path / "cache"))


def test_landscapes_are_made_once_and_are_a_data_set(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "COUNTS", {"train": 3, "val": 1, "test": 2})
    monkeypatch.setattr(script, "SIDE_PX", 64)
    folder = script.write_landscapes(tmp_path / "landscapes")
    masks = open_masks(str(folder))
    assert masks.name == "landscapes"
    assert [len(masks.of(part, labelled=True)) for part in (TRAIN, VALIDATION, TEST)] == [3, 1, 2]
    assert set(masks.classes) <= set(CLASS_NAMES)
    assert len(masks.classes) >= 3
    assert len(masks.bands) == 6
    assert masks.sizes.tolist() == [[64, 64]] * 6
    monkeypatch.setattr(script, "write_scene", lambda *_: pytest.fail("made again"))
    assert script.write_landscapes(folder) == folder
    monkeypatch.undo()
    monkeypatch.setattr(script, "COUNTS", {"train": 3, "val": 1, "test": 2})
    monkeypatch.setattr(script, "SIDE_PX", 64)
    monkeypatch.setenv("BERUNDA_CACHE", str(tmp_path / "other"))
    again = open_masks(str(script.write_landscapes(tmp_path / "elsewhere" / "landscapes")))
    assert again.fingerprint == masks.fingerprint  # so that a benchmark goes on where the folder was lost


def test_both_nets_get_rows_that_tell_whether_they_collapsed(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_folder(tmp_path / "set", n=24)
    monkeypatch.setattr(script, "STABLE_LABELS", "2")
    sound = script.bench
    monkeypatch.setattr(script, "bench", lambda options, *a, **k: sound(_fewer(options), *a, **k))
    out = tmp_path / "out"
    given = ["--datasets", str(folder), "--seeds", "1", "--stable-seeds", "2", "--steps", "2", "--crop-px", "32"]
    assert script.main([*given, "--out", str(out)]) == 0
    rows = RowFile(out / "hvae.json").rows()
    made = {(row["method"], row["variant"], row["seed"]) for row in rows}
    nets = {("supervised", "", 0), ("supervised", "small batch", 0), ("hvae", "", 0), ("hvae", "", 1)}
    assert made == {("random_forest", "", 0), *nets}
    for row in rows:
        assert isinstance(row["metrics"]["is_collapsed"], bool)
        assert 0 < row["metrics"]["majority_miou"] < 1
    assert all(row["returned"] == [] for row in rows if row["method"] != "random_forest")
    assert "**Stability**" in (out / "hvae.md").read_text()
    monkeypatch.setattr(mask_bench, "net_masks", lambda *_, **__: pytest.fail("made again"))
    assert script.main([*given, "--out", str(out)]) == 0


def _fewer(options):  # type: ignore[no-untyped-def]
    """Return the options with 2 labelled images instead of the suite's numbers."""
    return options.model_copy(update={"labels": ("2",), "n_labelled": 2, "device": "cpu"})


def test_no_committed_run_collapsed(script: ModuleType) -> None:
    path = script.RESULTS / "hvae.json"
    if not path.is_file():
        pytest.skip("no committed runs; python benchmarks/hvae.py makes them")
    rows = RowFile(path).rows()
    for dataset in ("dubai", script.LANDSCAPES):
        own = [row for row in rows if row["dataset"] == dataset]
        runs = {(row["method"], str(row["labels"]), row["seed"]) for row in own}
        assert runs >= {(m, n, s) for m in ("supervised", "hvae") for n in ("4", "16") for s in range(3)}
        assert runs >= {("hvae", script.STABLE_LABELS, seed) for seed in range(5)}
        assert not [row["seed"] for row in own if row["method"] == "hvae" and row["metrics"]["is_collapsed"]]
