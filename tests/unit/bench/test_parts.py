"""Files cut into parts come back bit by bit, or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from berunda.bench.parts import INDEX, join_parts, split_files
from berunda.errors import DataError, SecurityError


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    found = {"a.bin": bytes(range(256)) * 5, "sub/b.bin": b"", "sub/c.txt": b"end"}
    paths = {name: tmp_path / "in" / name for name in found}
    for name, path in paths.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(found[name])
    return paths


@pytest.mark.parametrize("part_bytes", [1, 100, 1283, 5000])
def test_parts_are_small_and_come_back(files: dict[str, Path], tmp_path: Path, part_bytes: int) -> None:
    if part_bytes == 1:
        files = {"sub/c.txt": files["sub/c.txt"]}
    written = split_files(files, tmp_path / "parts", part_bytes)
    assert all(path.stat().st_size <= part_bytes for path in written[:-1])
    assert written[-1].name == INDEX
    join_parts([tmp_path / "parts"], tmp_path / "out")
    for name, path in files.items():
        assert (tmp_path / "out" / name).read_bytes() == path.read_bytes()


def test_parts_may_lie_apart_and_older_ones_go(files: dict[str, Path], tmp_path: Path) -> None:
    split_files(files, tmp_path / "parts", 10)
    split_files(files, tmp_path / "parts", 700)
    assert len(list((tmp_path / "parts").glob("part-*"))) == 2
    (tmp_path / "apart").mkdir()
    (tmp_path / "parts" / "part-001").rename(tmp_path / "apart" / "part-001")
    with pytest.raises(DataError, match="part-001: not found"):
        join_parts([tmp_path / "parts"], tmp_path / "out")
    assert len(join_parts([tmp_path / "parts", tmp_path / "apart"], tmp_path / "out")) == 3


def test_damage_is_found(files: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    split_files(files, folder, 700)
    content = bytearray((folder / "part-000").read_bytes())
    content[7] ^= 1
    (folder / "part-000").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.bin .* damaged"):
        join_parts([folder], tmp_path / "out")
    for text in ("{", "[]", json.dumps({"parts": [], "files": [{"name": "x"}]})):
        (folder / INDEX).write_text(text)
        with pytest.raises(DataError, match="not an index"):
            join_parts([folder], tmp_path / "out")


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "", "a\\x"])
def test_no_file_is_written_outside(files: dict[str, Path], tmp_path: Path, name: str) -> None:
    folder = tmp_path / "parts"
    split_files(files, folder, 700)
    index = json.loads((folder / INDEX).read_text())
    index["files"][0]["name"] = name
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(SecurityError):
        join_parts([folder], tmp_path / "out")
    index["parts"] = ["../part-000"]
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(SecurityError, match="names a part"):
        join_parts([folder], tmp_path / "out")
