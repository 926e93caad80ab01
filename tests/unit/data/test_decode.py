"""Decoding once into the cache: what is decoded, what is refused, and when it is decoded again."""

from __future__ import annotations

import io
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from toy_images import class_files, photo, write_tree, write_zip

from berunda.data import decode
from berunda.data.images import ImageSet, open_images
from berunda.data.photo import Undecodable, decode_image, resampled
from berunda.errors import DataError, OutputError, SecurityError


def opened(root: Path, cache: Path, *, skip_broken: bool = False) -> ImageSet:
    return open_images(str(root), cache=cache, skip_broken=skip_broken)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def n_decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []

    def spy(content: bytes, name: str, path: Path | None) -> object:
        names.append(name)
        return decode_image(content, name, path)

    monkeypatch.setattr(decode, "decode_image", spy)
    return names


@pytest.mark.parametrize("packed", [False, True])
def test_pixels_are_those_of_the_files_in_order(tmp_path: Path, cache: Path, packed: bool) -> None:
    files = class_files(["a", "b"], 70)
    root = write_zip(tmp_path / "set.zip", files) if packed else write_tree(tmp_path / "set", files)
    images = opened(root, cache)
    assert sorted(images.names) == sorted(files)
    for name, pixels in zip(images.names, images.pixels, strict=True):
        expected = np.asarray(Image.open(io.BytesIO(files[name]))).transpose(2, 0, 1)
        np.testing.assert_array_equal(pixels, expected)
    assert images.labels.tolist() == [0] * 70 + [1] * 70
    assert images.bands == ("red", "green", "blue")
    assert not images.pixels.flags.writeable
    assert not images.labels.flags.writeable


def test_the_second_time_nothing_is_decoded_and_nothing_differs(
    tmp_path: Path, cache: Path, n_decoded: list[str]
) -> None:
    root = write_tree(tmp_path / "set", class_files(["a", "b"], 3))
    first, second = opened(root, cache), opened(root, cache)
    assert len(n_decoded) == 6
    np.testing.assert_array_equal(first.pixels, second.pixels)
    assert first.fingerprint == second.fingerprint


def test_the_time_of_opening_leaves_decoding_out(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tree(tmp_path / "toy", class_files(["a", "b"], 3))
    fill = decode._fill

    def slow(*given: Any) -> Any:
        time.sleep(2.0)
        return fill(*given)

    monkeypatch.setattr(decode, "_fill", slow)
    assert 0 < opened(tmp_path / "toy", cache).opening_s < 2.0
    assert 0 < opened(tmp_path / "toy", cache).opening_s < 2.0


def test_equal_content_elsewhere_is_not_decoded_again(tmp_path: Path, cache: Path, n_decoded: list[str]) -> None:
    files = class_files(["a", "b"], 3)
    one = opened(write_tree(tmp_path / "x" / "set", files), cache)
    two = opened(write_tree(tmp_path / "y" / "set", files), cache)
    assert len(n_decoded) == 6
    assert one.fingerprint == two.fingerprint


def test_a_changed_image_and_a_changed_label_change_the_fingerprint(tmp_path: Path, cache: Path) -> None:
    root = write_tree(tmp_path / "set", class_files(["a", "b"], 3))
    prints = {opened(root, cache).fingerprint}
    (root / "a" / "a_0.png").write_bytes(photo(77))
    changed = opened(root, cache)
    prints.add(changed.fingerprint)
    expected = np.asarray(Image.open(root / "a" / "a_0.png")).transpose(2, 0, 1)
    np.testing.assert_array_equal(changed.pixels[0], expected)
    (root / "b" / "b_0.png").rename(root / "a" / "b_0.png")
    prints.add(opened(root, cache).fingerprint)
    assert len(prints) == 3


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "pixels.npy").write_bytes(b"nonsense"),
        lambda folder: os.truncate(folder / "pixels.npy", 500),
        lambda folder: (folder / "about.json").write_text("{"),
        lambda folder: (folder / "about.json").write_text("[]"),
        lambda folder: (folder / "pixels.npy").unlink(),
        lambda folder: (folder / "pixels.npy").write_bytes((folder / "pixels.npy").read_bytes()[:-1] + b"\7"),
    ],
    ids=["nonsense", "cut", "half a description", "other description", "no pixels", "one byte"],
)
def test_a_damaged_cache_is_decoded_again(tmp_path: Path, cache: Path, n_decoded: list[str], damage) -> None:
    root = write_tree(tmp_path / "set", class_files(["a", "b"], 3))
    expected = np.array(opened(root, cache).pixels)
    (folder,) = (path.parent for path in (cache / "images").glob("*/about.json"))
    damage(folder)
    np.testing.assert_array_equal(opened(root, cache).pixels, expected)
    assert len(n_decoded) == 12


def test_a_run_that_was_killed_leaves_nothing_in_the_way(tmp_path: Path, cache: Path) -> None:
    root = write_tree(tmp_path / "set", class_files(["a", "b"], 3))
    opened(root, cache)
    (folder,) = (path.parent for path in (cache / "images").glob("*/about.json"))
    partial = folder.with_name(folder.name + ".partial")
    folder.rename(partial)
    assert len(opened(root, cache)) == 6
    assert not partial.exists()


def test_several_at_once_decode_once(tmp_path: Path, cache: Path, n_decoded: list[str]) -> None:
    root = write_tree(tmp_path / "set", class_files(["a", "b"], 20))
    found: list[ImageSet] = []
    threads = [threading.Thread(target=lambda: found.append(opened(root, cache))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(n_decoded) == 40
    assert len({images.fingerprint for images in found}) == 1
    assert len(found) == 4


@pytest.mark.parametrize("packed", [False, True])
def test_truncated_images_are_named_and_skipped_only_when_asked_for(
    tmp_path: Path, cache: Path, n_decoded: list[str], packed: bool
) -> None:
    files = class_files(["a", "b"], 3, suffix=".jpg", kind="JPEG")
    files["a/a_1.jpg"] = files["a/a_1.jpg"][:-200]
    files["b/b_2.jpg"] = b""
    root = write_zip(tmp_path / "set.zip", files) if packed else write_tree(tmp_path / "set", files)
    with pytest.raises(DataError, match=r"2 of 6 images .* 'a/a_1.jpg' \([Tt]runcated.*is empty.*--skip-broken"):
        opened(root, cache)
    images = opened(root, cache, skip_broken=True)
    assert images.skipped == ("a/a_1.jpg", "b/b_2.jpg")
    assert images.names == ("a/a_0.jpg", "a/a_2.jpg", "b/b_0.jpg", "b/b_1.jpg")
    assert images.labels.tolist() == [0, 0, 1, 1]
    for name, pixels in zip(images.names, images.pixels, strict=True):
        np.testing.assert_array_equal(pixels, np.asarray(Image.open(io.BytesIO(files[name]))).transpose(2, 0, 1))
    assert len(n_decoded) == 6, "what is broken is remembered"


def test_only_broken_images_are_an_error_even_when_skipped(tmp_path: Path, cache: Path) -> None:
    root = write_tree(tmp_path / "set", {"a/1.png": b"x", "b/2.png": b"y"})
    with pytest.raises(DataError, match="2 of 2 images cannot be decoded"):
        opened(root, cache, skip_broken=True)


@pytest.mark.parametrize(
    ("odd", "told"),
    [
        (photo(size=(8, 9)), "3 bands of 8x9 px uint8"),
        (photo(bands=1), "1 bands of 8x8 px uint8"),
    ],
)
def test_images_that_differ_are_named(tmp_path: Path, cache: Path, odd: bytes, told: str) -> None:
    root = write_tree(tmp_path / "set", {**class_files(["a", "b"], 2), "b/odd.png": odd})
    with pytest.raises(DataError, match=f"'a/a_0.png' has 3 bands of 8x8 px uint8, 'b/odd.png' has {told}"):
        opened(root, cache)


def test_archive_with_a_name_outside_is_refused(tmp_path: Path, cache: Path) -> None:
    path = write_zip(tmp_path / "set.zip", {**class_files(["a", "b"], 2), "../evil.png": photo()})
    with pytest.raises(SecurityError, match="evil"):
        opened(path, cache)


def test_a_member_with_a_wrong_checksum_is_a_broken_image(tmp_path: Path, cache: Path) -> None:
    path = write_zip(tmp_path / "set.zip", class_files(["a", "b"], 2))
    content = bytearray(path.read_bytes())
    at = content.index(b"\x89PNG") + 60
    content[at] ^= 255
    path.write_bytes(content)
    assert opened(path, cache, skip_broken=True).skipped == ("a/a_0.png",)


def test_a_cache_that_cannot_be_written_says_so(tmp_path: Path, cache: Path) -> None:
    cache.write_text("a file is in the way")
    with pytest.raises(OutputError, match="BERUNDA_CACHE"):
        opened(write_tree(tmp_path / "set", class_files(["a", "b"], 2)), cache)


def test_too_little_room_is_told_before_it_is_used(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr(decode.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OutputError, match="0 MiB free"):
        opened(write_tree(tmp_path / "set", class_files(["a", "b"], 2)), cache)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
def test_photographs_of_all_formats(kind: str) -> None:
    pixels, bands, is_raster = decode_image(photo(kind=kind), f"x.{kind.lower()}", None)
    assert pixels.shape == (3, 8, 8)
    assert pixels.dtype == np.uint8
    assert bands == ("red", "green", "blue")
    assert not is_raster


@pytest.mark.parametrize(
    ("image", "shape", "dtype"),
    [
        (Image.new("RGBA", (4, 3)), (3, 3, 4), np.uint8),
        (Image.new("P", (4, 3)), (3, 3, 4), np.uint8),
        (Image.new("L", (4, 3)), (1, 3, 4), np.uint8),
        (Image.fromarray(np.full((3, 4), 999, np.uint16)), (1, 3, 4), np.uint16),
    ],
)
def test_kinds_of_pixels(image: Image.Image, shape: tuple[int, ...], dtype: type) -> None:
    file = io.BytesIO()
    image.save(file, "PNG")
    pixels = decode_image(file.getvalue(), "x.png", None).pixels
    assert pixels.shape == shape
    assert pixels.dtype == dtype


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("content", [b"", b"II*\0", b"MM\0*" + bytes(40), b"GIF89a" + bytes(20), bytes(100)])
def test_other_content_cannot_be_decoded(content: bytes) -> None:
    with pytest.raises(Undecodable):
        decode_image(content, "x.tif", None)


def test_a_huge_image_is_refused_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("berunda.data.photo.MAX_PIXELS", 63)
    with pytest.raises(Undecodable, match="8x8 pixels, at most 63"):
        decode_image(photo(), "x.png", None)


def test_resampling_keeps_mean_and_type() -> None:
    pixels = np.random.default_rng(0).integers(0, 60000, (2, 64, 60), dtype=np.uint16)
    small = resampled(pixels, 16)
    assert small.shape == (2, 16, 16)
    assert small.dtype == np.uint16
    np.testing.assert_allclose(small.mean((1, 2)), pixels.mean((1, 2)), rtol=0.02)
    assert resampled(small, 16) is small
