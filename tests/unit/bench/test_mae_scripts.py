"""The scripts on masked autoencoders, with tiny settings: what hiding patches saves, how well gaps are filled."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scripts import load_script
from toy_rasters import write_tif

from berunda.bench.rows import RowFile
from berunda.data.demo_scene import BANDS


def test_steps_are_compared_with_that_of_all_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured, results = load_script("benchmarks/mae_speed.py"), tmp_path / "rows.json"
    few = [*("--px", "32"), *("--images", "4"), *("--steps", "1"), *("--repeats", "1")]
    measured.main(["--encoders", "vit_mini_patch16", *few, "--results", str(results)])
    rows = {row["variant"]: row for row in RowFile(results).rows()}
    assert set(rows) == {"all tokens", "visible tokens, ratio 0.75", "supervised, all tokens"}
    assert rows["all tokens"]["metrics"]["share_of_all_tokens"] == 1
    for row in rows.values():
        assert (row["images_a_step"], row["n_steps"], row["repeats"]) == (4, 1, 1)
        assert "--px 32" in row["command"]
    assert "the target of 45%" in capsys.readouterr().out


def test_filled_gaps_are_compared_with_the_local_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured, results = load_script("benchmarks/inpaint.py"), tmp_path / "rows.json"
    values = np.random.default_rng(0).integers(300, 1500, (len(BANDS), 64, 128)).astype(np.uint16)
    values[:, 40:50, 100:110] = 3000
    path = write_tif(tmp_path / "scene.tif", values, names=BANDS)
    monkeypatch.setattr(measured, "demo_scene", lambda progress: SimpleNamespace(bands=(path,)))
    monkeypatch.setattr(measured, "N_DISCS", 2)
    few = [*("--px", "16"), *("--images", "2"), *("--steps", "1"), *("--seeds", "0")]
    measured.main(["--encoder", "vit_mini_patch8", *few, "--results", str(results)])
    rows = {row["method"]: row for row in RowFile(results).rows()}
    assert set(rows) == {"local_mean", "ssl_mae"}
    errors = {name: row["metrics"]["hidden_mae"] for name, row in rows.items()}
    assert 0.1 < errors["local_mean"] < 1
    assert np.isfinite(errors["ssl_mae"])
    assert rows["ssl_mae"]["metrics"]["times_local_mean"] == pytest.approx(errors["ssl_mae"] / errors["local_mean"])
    assert 0 < rows["ssl_mae"]["n_hidden_px"] < 64 * 64
