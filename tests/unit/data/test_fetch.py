"""Fetching published data sets: checked, whole, and only by https."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest

from berunda.data import fetch
from berunda.data.catalog import aid, eurosat
from berunda.data.catalog.contract import Download
from berunda.errors import DataError, FetchError, SecurityError

CONTENT = b"an archive"
URL = "https://example.org/a.zip"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    checksum = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
    monkeypatch.setattr(eurosat.EuroSAT, "downloads", (Download("a.zip", URL, checksum),))
    return tmp_path / "data"


def test_a_file_comes_into_place_when_its_checksum_is_right(folder: Path) -> None:
    asked: list[str] = []

    def open_url(url: str) -> io.BytesIO:
        asked.append(url)
        return io.BytesIO(CONTENT)

    assert fetch.fetch_dataset("eurosat", folder, open_url=open_url) == folder
    assert (folder / "a.zip").read_bytes() == CONTENT
    fetch.fetch_dataset("eurosat", folder, open_url=open_url)
    assert asked == [URL], "what is there is not fetched again"


def test_another_checksum_leaves_nothing(folder: Path) -> None:
    with pytest.raises(SecurityError, match="nothing of it is kept"):
        fetch.fetch_dataset("eurosat", folder, open_url=lambda _: io.BytesIO(b"other"))
    assert list(folder.iterdir()) == []


def test_an_interrupted_fetch_leaves_nothing(folder: Path) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise ConnectionResetError("gone")

    with pytest.raises(FetchError, match="by other means"):
        fetch.fetch_dataset("eurosat", folder, open_url=lambda _: Broken())
    assert list(folder.iterdir()) == []


def test_files_without_a_checksum_or_address_are_fetched_by_hand(tmp_path: Path) -> None:
    assert aid.AID.downloads[0].checksum is None
    for name in ("aid", "so2sat", "folder"):
        with pytest.raises(DataError, match="not found in"):
            fetch.fetch_dataset(name, tmp_path)


def test_only_https_is_opened_and_followed() -> None:
    with pytest.raises(SecurityError, match="expected https"):
        fetch._open_https("http://example.org/a.zip")
    request = type("Request", (), {"full_url": URL})()
    with pytest.raises(SecurityError, match="leads to http://"):
        fetch._OnlyHttps().redirect_request(request, None, 302, "", {}, "http://example.org/a.zip")


def test_the_verb_fetches_what_it_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    import berunda.data.fetch
    from berunda.cli.main import main

    asked: list[str] = []
    monkeypatch.setattr(berunda.data.fetch, "fetch_dataset", lambda name, **_: asked.append(name))
    assert main(["datasets", "eurosat", "--fetch"]) == 0
    assert asked == ["eurosat"]
    assert main(["datasets", "--fetch"]) == 2
