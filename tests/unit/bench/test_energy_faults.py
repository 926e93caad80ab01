"""Faults in JEM, put in on purpose: the script at a tiny size, and what its committed rows have to hold."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from scripts import load_script
from tiny_eurosat import write_archive

from berunda.bench.rows import RowFile

N_SEEDS, N_STEPS = 5, 300
TINY = "--seeds 1 --steps 12 --px 8 --labelled 4 --gradients 1 --labels 2"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("benchmarks/energy_faults.py")


@pytest.fixture(scope="module")
def made(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """The arguments of a call, and the rows it made, by fault."""
    folder = tmp_path_factory.mktemp("faults")
    write_archive(folder, side_px=8)
    given = [*TINY.split(), "--data", str(folder), "--results", str(folder / "rows.json")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BERUNDA_CACHE", str(folder / "cache"))
        assert script.main(given) == 0
    return given, {row["variant"]: row for row in RowFile(folder / "rows.json").rows()}


def test_every_fault_gets_a_row_that_says_when_it_began_and_how_the_run_ended(
    script: ModuleType, made: tuple[list[str], dict[str, dict[str, Any]]]
) -> None:
    rows = made[1]
    assert set(rows) == set(script.FAULTS)
    for fault, row in rows.items():
        m = row["metrics"]
        assert (m["injected"] is None) == (fault == script.SOUND)
        assert m["injected"] is None or 4 <= m["injected"] < 8
        assert row["ended"] in ("sound", "recovered", "with an error")
        assert row["command"].startswith("python benchmarks/energy_faults.py --seeds 1")
        assert "12 steps of jem++ of 1 gradients a chain, 8 images of 8 px" in row["protocol"]
        assert ("oa" in m) == (row["ended"] != "with an error")
    assert rows[script.SOUND]["metrics"]["returns"] == 0


def test_a_fault_is_found_at_its_step_and_mended_unless_it_stays(
    script: ModuleType, made: tuple[list[str], dict[str, dict[str, Any]]]
) -> None:
    rows = made[1]
    for fault in ("one weight NaN", "one weight infinite"):
        m = rows[fault]["metrics"]
        assert (m["detected"], m["steps_to_find"], m["back_to"], m["returns"]) == (m["injected"], 0, 0, 1)
        assert rows[fault]["ended"] == "recovered"
        assert len(rows[fault]["returned"]) == 1
    stays = rows[script.STAYS]
    assert (stays["ended"], stays["metrics"]["returns"], stays["metrics"]["is_error"]) == ("with an error", 5, 1)
    assert stays["metrics"]["detected"] >= stays["metrics"]["injected"]
    assert "the total loss is nan" in stays["error"]
    assert "it went back 5 times before, with smaller steps each time" in stays["error"]
    assert stays["metrics"]["is_undetected"] == 0


def test_what_is_there_is_not_made_again_and_other_settings_are_refused(
    script: ModuleType,
    made: tuple[list[str], dict[str, dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(script, "row_of", lambda *_: pytest.fail("a run was made again"))
    monkeypatch.setenv("BERUNDA_CACHE", str(Path(made[0][-1]).parent / "cache"))
    assert script.main(made[0]) == 0
    assert script.main([*made[0], "--rate", "0.01"]) == 1
    assert "its runs were trained otherwise: rate 0.001 (now 0.01)" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        script.main(["--faults", "lightning"])
    assert "--faults: found 'lightning', expected some of: none, one weight NaN" in capsys.readouterr().err


def test_a_run_that_is_worse_than_the_sound_one_though_nothing_was_found_is_called_undetected(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BERUNDA_CACHE", str(tmp_path / "cache"))
    write_archive(tmp_path, side_px=8)
    monkeypatch.setattr(script, "LEAST_SHARE", 1e9)
    results = tmp_path / "rows.json"
    fault = "steps of chains 100 times too long"
    script.main([*TINY.split(), "--faults", fault, "--data", str(tmp_path), "--results", str(results)])
    row = next(row for row in RowFile(results).rows() if row["variant"] == fault)
    assert row["metrics"]["is_undetected"] == 1


def test_no_divergence_of_the_committed_runs_was_missed(script: ModuleType) -> None:
    if not script.RESULTS.is_file():
        pytest.skip("no committed runs; python benchmarks/energy_faults.py makes them")
    rows = RowFile(script.RESULTS).rows()
    assert {(row["variant"], row["seed"]) for row in rows} == {(f, s) for f in script.FAULTS for s in range(N_SEEDS)}
    for row in rows:
        what, m = f"{row['variant']}, seed {row['seed']}", row["metrics"]
        assert row["setting"]["steps"] == N_STEPS, what
        assert m["is_undetected"] == 0, what
        assert row["ended"] != "with an error" or "it went back 5 times before" in row["error"], what
        assert (row["ended"] == "recovered") == bool(row["returned"]), what
        if row["variant"] in ("one weight NaN", "one weight infinite"):
            assert m["detected"] <= m["injected"], what  # earlier, where the run diverged by itself before
        assert row["ended"] == "with an error" or row["variant"] != script.STAYS, what
