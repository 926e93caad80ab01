"""The scripts on generative methods: the picture of an HVAE, and what the chains of JEM cost."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image
from scripts import load_script
from toy_masks import write_folder

from berunda.api.train_verb import train
from berunda.bench.rows import RowFile
from berunda.errors import ConfigError
from berunda.options.train import TrainOptions

ROOT = Path(__file__).resolve().parents[3] / "benchmarks"


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    return load_script(f"benchmarks/{name}.py")


def test_make_bench_calls_no_script_that_needs_arguments() -> None:
    makefile = (ROOT.parent / "Makefile").read_text()
    left_out = re.findall(r"%/(\w+\.py)", makefile.split("filter-out")[1].split(",")[0])
    for path in ROOT.glob("*.py"):
        needs_arguments = re.search(r"required=True|add_argument\(\"[a-z]", path.read_text())
        assert not needs_arguments or path.name in left_out, path.name


def test_an_hvae_is_shown_and_other_models_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERUNDA_CACHE", str(tmp_path / "cache"))
    images = write_folder(tmp_path / "set", n=10)
    for method in ("hvae", "supervised"):
        given = {"steps": 2, "n_labelled": 2, "crop_px": 32, "device": "cpu", "method": method}
        train(TrainOptions(dataset=str(images), labelled_images=2, **given), tmp_path / method)  # type: ignore[arg-type]
    shown = script("hvae_pictures", monkeypatch)
    out = tmp_path / "pictures.png"
    shown.main([str(tmp_path / "hvae"), str(images), "--out", str(out), "--n", "2"])
    with Image.open(out) as picture:
        assert picture.size[0] > 1000
    with pytest.raises(ConfigError, match="'supervised' found, expected 'hvae'"):
        shown.main([str(tmp_path / "supervised"), str(images), "--out", str(out)])


def test_the_cost_of_chains_becomes_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = script("sampling_speed", monkeypatch)
    results = tmp_path / "rows.json"
    measured.main(["--px", "8", "--labelled", "4", "--steps", "2", "--results", str(results)])
    rows = {row["variant"]: row["metrics"] for row in RowFile(results).rows()}
    assert {name: metrics["gradients"] for name, metrics in rows.items()} == {"jem": 20, "jem++": 10, "sada": 5}
    assert rows["sada"]["chains_s"] < rows["jem"]["chains_s"]
    assert rows["jem"]["chains_share"] == rows["jem"]["step_share"] == 1
    for name in ("jem++", "sada"):
        assert rows[name]["chains_share"] == rows[name]["chains_s"] / rows["jem"]["chains_s"]
        assert rows[name]["step_share"] == rows[name]["step_s"] / rows["jem"]["step_s"]
        assert rows[name]["images_per_s"] > 0
