"""Archives that somebody else made: nothing is written outside the folder, nothing beyond its size."""

from __future__ import annotations

import os
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from berunda.data.archive import MAX_RATIO, Archive, extract_members
from berunda.errors import DataError, SecurityError


def archive_of(folder: Path, members: dict[str, bytes], mode: int = 0) -> Path:
    path = folder / "archive.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = mode << 16
            opened.writestr(info, content)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


def test_only_the_chosen_members_are_written_under_the_chosen_names(tmp_path: Path, root: Path) -> None:
    path = archive_of(tmp_path, {"a/b.txt": b"one", "c.txt": b"two", "evil.sh": b"rm"})
    written = extract_members(path, {"a/b.txt": "x/y.txt", "c.txt": "c.txt"}, root)
    assert written == (root / "x" / "y.txt", root / "c.txt")
    assert [file.read_bytes() for file in written] == [b"one", b"two"]
    assert files_below(root) == {"x/y.txt", "c.txt"}


NAMES = [
    "../evil",
    "a/../../evil",
    "/tmp/evil",
    "\\evil",
    "C:\\evil",
    "C:evil",
    "a\\..\\evil",
    "..",
    "a\nb",
    "",
]


@pytest.mark.parametrize("name", NAMES)
def test_members_and_targets_that_leave_the_folder(name: str, tmp_path: Path, root: Path) -> None:
    path = archive_of(tmp_path, {name or "x": b"evil", "good": b"good"})
    before = files_below(tmp_path)
    if name:
        with pytest.raises(SecurityError, match="refused"):
            extract_members(path, {name: "fine"}, root)
    with pytest.raises(SecurityError, match="refused"):
        extract_members(path, {"good": name}, root)
    assert files_below(tmp_path) == before


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFDIR])
def test_links_and_devices(kind: int, tmp_path: Path, root: Path) -> None:
    path = archive_of(tmp_path, {"link": b"/etc/passwd"}, mode=kind | 0o777)
    with pytest.raises(SecurityError, match="link or device"):
        extract_members(path, {"link": "link"}, root)
    assert files_below(root) == set()


def test_a_link_inside_the_folder_is_not_followed(tmp_path: Path, root: Path) -> None:
    path = archive_of(tmp_path, {"a": b"evil"})
    outside = tmp_path / "outside"
    outside.mkdir()
    os.symlink(outside, root / "sub")
    with pytest.raises(SecurityError, match="outside"):
        extract_members(path, {"a": "sub/a"}, root)
    os.symlink(outside / "target", root / "a")
    with pytest.raises(DataError, match="exists already"):
        extract_members(path, {"a": "a"}, root)
    assert files_below(outside) == set()


def test_bombs_are_refused_by_ratio_and_by_size(tmp_path: Path, root: Path) -> None:
    path = archive_of(tmp_path, {"bomb": bytes(64 << 20)})
    with pytest.raises(SecurityError, match=f"more than {MAX_RATIO} times"):
        extract_members(path, {"bomb": "bomb"}, root)
    path = archive_of(tmp_path, {"big": os.urandom(1 << 20)})
    with pytest.raises(SecurityError, match="at most 1000 expected"):
        extract_members(path, {"big": "big"}, root, max_bytes=1000)
    assert files_below(root) == set()


def test_a_member_that_declares_less_than_it_holds(tmp_path: Path, root: Path) -> None:
    path = archive_of(tmp_path, {"liar": bytes(300_000)})
    content = path.read_bytes()
    path.write_bytes(content.replace(struct.pack("<I", 300_000), struct.pack("<I", 10)))
    with pytest.raises((SecurityError, DataError)):
        extract_members(path, {"liar": "liar"}, root)
    assert sum(file.stat().st_size for file in root.rglob("*")) <= 10


def test_damaged_missing_and_repeated_members(tmp_path: Path, root: Path) -> None:
    path = archive_of(tmp_path, {"a": os.urandom(5000)})
    with pytest.raises(DataError, match="'b' is missing"):
        extract_members(path, {"b": "b"}, root)
    content = bytearray(path.read_bytes())
    content[200] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be unpacked"):
        extract_members(path, {"a": "a"}, root)
    path.write_bytes(b"no archive")
    with pytest.raises(DataError, match="cannot be unpacked"):
        extract_members(path, {"a": "b"}, root)
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("a", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            opened.writestr("a", b"2")
    with pytest.raises(SecurityError, match="more than once"):
        extract_members(path, {"a": "c"}, root)


# Reading into memory


def test_members_are_read_and_folders_are_none(tmp_path: Path) -> None:
    path = archive_of(tmp_path, {"a/": b"", "a/b.txt": b"one"})
    with Archive(path) as opened:
        assert list(opened.members) == ["a/b.txt"]
        assert opened.read("a/b.txt", 10) == b"one"
        with pytest.raises(DataError, match="is missing"):
            opened.read("c.txt", 10)
        with pytest.raises(SecurityError, match="3 bytes unpacked, at most 2"):
            opened.read("a/b.txt", 2)


@pytest.mark.parametrize("name", [name for name in NAMES if name])
def test_one_bad_name_refuses_the_archive(tmp_path: Path, name: str) -> None:
    path = archive_of(tmp_path, {"good.txt": b"x", name: b"x"})
    with pytest.raises(SecurityError, match="refused"):
        Archive(path)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_refuse_the_archive(tmp_path: Path, kind: int) -> None:
    with pytest.raises(SecurityError, match="link or device"):
        Archive(archive_of(tmp_path, {"a.txt": b"/etc/passwd"}, kind | 0o777))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_doubles_and_masses_refuse_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive_of(tmp_path, {"a.txt": b"x"})
    with zipfile.ZipFile(path, "a") as opened:
        opened.writestr("a.txt", b"y")
    with pytest.raises(SecurityError, match="more than once"):
        Archive(path)
    monkeypatch.setattr("berunda.data.archive.MAX_MEMBERS", 1)
    with pytest.raises(SecurityError, match="2 members, at most 1"):
        Archive(path)


def test_bombs_are_not_unpacked_into_memory(tmp_path: Path) -> None:
    with (
        Archive(archive_of(tmp_path, {"a.txt": bytes(20 << 20)})) as opened,
        pytest.raises(SecurityError, match="times"),
    ):
        opened.read("a.txt", 1 << 30)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x05\x06"])
def test_what_is_no_archive_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be opened"):
        Archive(path)
