"""Lists of images and tables of labels."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from toy_images import photo, write_tree, write_zip

from berunda.data.images import NO_LABEL, TEST, TRAIN, UNLABELLED, VALIDATION
from berunda.data.listing import Listing, Sample, files_of, labels_of, split_by_name
from berunda.data.tables import read_table
from berunda.errors import DataError


def test_hidden_files_and_other_suffixes_are_left_out(tmp_path: Path) -> None:
    names = ["a/1.png", "a/1.PNG", "a/.hidden.png", ".git/2.png", "a/3.txt", "b/c/d/4.png"]
    root = write_tree(tmp_path / "set", dict.fromkeys(names, b"x"))
    expected = ["a/1.PNG", "a/1.png", "b/c/d/4.png"]
    assert list(files_of(root, (".png",))) == expected
    packed = write_zip(tmp_path / "set.zip", {**dict.fromkeys(names, b"x"), "__MACOSX/a/._1.png": b"x"})
    assert list(files_of(packed, (".png",))) == expected


def test_folders_that_are_links_are_followed_once(tmp_path: Path) -> None:
    far = write_tree(tmp_path / "far", {"1.png": b"x"})
    root = write_tree(tmp_path / "set", {"b/2.png": b"x"})
    (root / "a").symlink_to(far, target_is_directory=True)
    (far / "loop").symlink_to(root, target_is_directory=True)
    assert list(files_of(root, (".png",))) == ["a/1.png", "b/2.png"]


def test_split_is_60_20_20_of_every_class_and_does_not_depend_on_the_order() -> None:
    names = [f"{label}/{label}_{number}.png" for label in "ab" for number in range(50)]
    labels = [0] * 50 + [1] * 50
    parts = split_by_name(names, labels)
    for label in (0, 1):
        mine = parts[[one == label for one in labels]]
        assert [(mine == part).sum() for part in (TRAIN, VALIDATION, TEST)] == [30, 10, 10]
    turned = split_by_name(names[::-1], labels[::-1])
    assert turned[::-1].tolist() == parts.tolist()


@pytest.mark.parametrize(("n", "expected"), [(1, [1, 0, 0]), (2, [1, 1, 0]), (3, [2, 0, 1]), (4, [2, 1, 1])])
def test_small_classes_train_first(n: int, expected: list[int]) -> None:
    parts = split_by_name([f"{number}.png" for number in range(n)], [0] * n)
    assert [int((parts == part).sum()) for part in (TRAIN, VALIDATION, TEST)] == expected


def test_images_without_label_are_unlabelled() -> None:
    assert split_by_name(["a.png", "b.png"], [NO_LABEL, 0]).tolist() == [UNLABELLED, TRAIN]


def test_a_class_outside_the_schema_is_named() -> None:
    with pytest.raises(DataError, match=r"where: class 'swamp' is not in the schema .*'2.png'.* forest, water"):
        labels_of(["1.png", "2.png"], ["forest", "swamp"], ["forest", "water"], "where")


def test_empty_lists_and_doubles_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images found"):
        Listing("x", "scene", ("a",), ())
    (file,) = files_of(write_tree(tmp_path, {"1.png": photo()}), (".png",)).values()
    with pytest.raises(DataError, match=r"'1.png' is listed twice"):
        Listing("x", "scene", ("a",), (Sample("1.png", file, 0, TRAIN),) * 2)


def table_of(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "table.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_table_with_one_class_an_image(tmp_path: Path) -> None:
    table = read_table(table_of(tmp_path, "\ufeffSplit,File,Label\nval,a\\1.png, sea \n\n,2.png,\n"), with_values=True)
    assert table.files == ("a/1.png", "2.png")
    assert table.names == ("sea", "")
    assert table.parts == (VALIDATION, TRAIN)
    assert table.classes == ()


def test_table_with_one_column_a_class(tmp_path: Path) -> None:
    table = read_table(table_of(tmp_path, "file,sea,trees,sha256\n1.png,1,,ab\n2.png,0,1.0,cd\n"), with_values=True)
    assert table.classes == ("sea", "trees")
    assert table.values[0][0] == 1
    assert math.isnan(table.values[0][1])
    assert table.values[1] == (0.0, 1.0)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "0 rows"),
        ("file,label\n", "1 rows"),
        ("name,label\n1.png,sea\n", "expected one called file"),
        ("file,label\n1.png\n", "row 2: 1 cells found, expected 2"),
        ("file,label,split\n1.png,sea,now\n", "row 2: split 'now'"),
        ("file,sea\n1.png,2\n", "row 2, column 'sea': '2' found, expected 1, 0 or nothing"),
        ("file,sea\n\n,\n1.png,1\n2.png,2\n", "row 5, column 'sea': '2' found"),
        ("file,label,split\n\n1.png,sea,now\n", "row 3: split 'now'"),
        ("file,label\n\n\n1.png\n", "row 4: 1 cells found, expected 2"),
        ("file,sea,land,sea \n1.png,1,0,1\n", "2 columns 'sea' found, expected one a class"),
        ("file,sea,,land\n1.png,1,0,1\n", "column 3 without a name found"),
    ],
)
def test_wrong_tables_are_told(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(DataError, match=told):
        read_table(table_of(tmp_path, text), with_values=True)


def test_columns_that_are_no_classes_may_be_called_alike_or_nothing(tmp_path: Path) -> None:
    path = table_of(tmp_path, "file,label,note,note,\n1.png,sea,a,b,c\n")
    assert read_table(path, with_values=False).names == ("sea",)


def test_a_table_in_another_encoding_is_told(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(b"file,label\n1.png,\xff\xfe\n")
    with pytest.raises(DataError, match="UTF-8"):
        read_table(path, with_values=False)
