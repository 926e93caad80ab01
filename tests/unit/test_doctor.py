"""The doctor: finds what is there, and says what to do about what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from berunda import doctor
from berunda.errors import ConfigError


def test_this_machine_has_what_the_tests_need(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BERUNDA_CACHE", str(tmp_path / "not" / "yet"))
    monkeypatch.setenv("BERUNDA_DATA", str(tmp_path))
    monkeypatch.setattr(doctor, "FREE_BYTES", 1)
    findings = {finding.name: finding for finding in doctor.examine()}
    for name in (
        "Python",
        "Berunda",
        "torch",
        "raster drivers",
        "vector drivers",
        "packaged weights",
        "cache",
    ):
        assert findings[name].status == "ok", findings[name]
        assert findings[name].advice == ""
    assert not (tmp_path / "not").exists()
    assert "JP2OpenJPEG" in findings["raster drivers"].found


def test_little_space_and_a_missing_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "FREE_BYTES", 1 << 62)
    found = doctor._space("cache", tmp_path, "BERUNDA_CACHE")
    assert (found.status, "BERUNDA_CACHE" in found.advice) == ("missing", True)
    monkeypatch.setenv("BERUNDA_DATA", str(tmp_path / "none"))
    assert doctor._benchmark_data().status == "missing"
    monkeypatch.delenv("BERUNDA_DATA")
    assert doctor._benchmark_data().status == "optional"


def test_a_driver_that_is_missing() -> None:
    found = doctor._drivers("raster drivers", "GDAL 3", ("GTiff", "COG"), ["COG"], "rasterio")
    assert found.status == "missing"
    assert found.found == "GDAL 3, without COG"
    assert "rasterio" in found.advice


@pytest.mark.parametrize("error", [ImportError("No module named 'torch'"), ConfigError("weights"), OSError("disk")])
def test_a_look_that_fails_is_a_finding(error: Exception) -> None:
    def look() -> doctor.Finding:
        raise error

    found = doctor._guarded("torch", look)
    assert (found.status, found.found) == ("missing", str(error))
    assert found.advice


def test_extras() -> None:
    assert doctor._extra("json", "tests").status == "ok"
    assert doctor._extra("no_such_package", "tests").status == "optional"
