"""The file of a benchmark: whole at any moment, one row a run, resumable."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from berunda.bench.rows import REQUIRED, RowFile, refuse_other_settings
from berunda.errors import ConfigError, DataError


def row(method: str = "m", seed: int = 0, **more: Any) -> dict[str, Any]:
    known = dict.fromkeys(REQUIRED, "") | {"suite": "s", "method": method, "seed": seed, "metrics": {"miou": 0.5}}
    return known | more


def test_rows_are_added_found_and_replaced(tmp_path: Path) -> None:
    rows = RowFile(tmp_path / "s.json")
    assert rows.rows() == []
    rows.add([row(seed=1), row(seed=0)])
    assert rows.has(suite="s", method="m", seed=1)
    assert not rows.has(suite="s", method="m", seed=2)
    rows.add([row(seed=1, metrics={"miou": 0.7})])
    assert [(r["seed"], r["metrics"]["miou"]) for r in rows.rows()] == [(0, 0.5), (1, 0.7)]


def test_variants_are_runs_of_their_own(tmp_path: Path) -> None:
    rows = RowFile(tmp_path / "s.json")
    rows.add([row(variant="a"), row(variant="b"), row()])
    assert len(rows.rows()) == 3


def test_several_processes_lose_no_row(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    program = (
        "import json, sys; from berunda.bench.rows import RowFile\n"
        "row = json.loads(sys.argv[2])\n"
        "for seed in range(int(sys.argv[3]), 9, 3): RowFile(sys.argv[1]).add([{**row, 'seed': seed}])"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", program, str(path), json.dumps(row()), str(k)]) for k in range(3)
    ]
    assert [process.wait(60) for process in started] == [0, 0, 0]
    assert sorted(r["seed"] for r in RowFile(path).rows()) == list(range(9))


def test_a_row_without_its_protocol_is_refused(tmp_path: Path) -> None:
    short = row()
    del short["command"], short["hardware"]
    with pytest.raises(DataError, match="lacks hardware, command"):
        RowFile(tmp_path / "s.json").add([short])


@pytest.mark.parametrize("text", ["{", json.dumps({"rows": []}), json.dumps([1])])
def test_another_file_is_refused_and_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "s.json"
    path.write_text(text)
    with pytest.raises(DataError, match="move it away"):
        RowFile(path).add([row()])
    assert path.read_text() == text


def test_a_figure_that_is_no_number_is_refused(tmp_path: Path) -> None:
    rows = RowFile(tmp_path / "s.json")
    rows.add([row()])
    with pytest.raises(ValueError, match="JSON"):
        rows.add([row(seed=1, metrics={"miou": float("nan")})])
    assert len(rows.rows()) == 1


def test_rows_that_were_made_otherwise_or_do_not_say_how_are_refused(tmp_path: Path) -> None:
    own = {"fingerprint": "aa", "steps": 5, "symmetries": 4}

    def told(setting: dict[str, Any], encoder: str = "net") -> RowFile:
        rows = RowFile(tmp_path / f"{len(list(tmp_path.iterdir()))}.json")
        rows.path.write_text(json.dumps([{"dataset": "images", "encoder": encoder, "setting": setting}]))
        return rows

    refuse_other_settings(told(own), own, "images", "net")
    refuse_other_settings(told({"fingerprint": "aa"}), own, "images", "net")  # of a floor
    refuse_other_settings(told(own | {"steps": 6}, "another"), own, "images", "net")
    for other, encoder in (
        (own | {"steps": 6}, "net"),
        ({"fingerprint": "aa", "steps": 5}, "net"),
        ({"steps": 5, "symmetries": 4}, "net"),
        ({"fingerprint": "bb"}, "net"),
        (own | {"fingerprint": "bb"}, "another"),
    ):
        with pytest.raises(ConfigError, match="trained otherwise"):
            refuse_other_settings(told(other, encoder), own, "images", "net")
