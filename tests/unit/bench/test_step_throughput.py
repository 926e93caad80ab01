"""The benchmark of a step against its bare forward and backward, with a tiny setting."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripts import load_script

from berunda.bench.rows import RowFile
from berunda.train.loop import ACTIVITIES


def test_a_step_is_taken_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = load_script("benchmarks/step_throughput.py")
    results = tmp_path / "step_throughput.json"
    script.main([*("--labelled", "2", "--px", "16", "--steps", "2", "--repeats", "1"), "--results", str(results)])
    row = RowFile(results).rows()[0]
    metrics = row["metrics"]
    assert row["variant"] == "8 trained, 6 forward images a step"
    assert sum(metrics[name] for name in ACTIVITIES) == pytest.approx(metrics["step"], rel=1e-6)
    assert metrics["share_of_bare"] == pytest.approx(metrics["bare"] / metrics["step"])
    assert metrics["share_of_bare_trained"] < metrics["share_of_bare"]
    assert row["images_per_s"] == pytest.approx(10 / metrics["step"])
    told = capsys.readouterr().out
    assert all(f"| {name.replace('_', ' ')} |" in told for name in ACTIVITIES)
