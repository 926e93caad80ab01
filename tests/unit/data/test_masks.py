"""Images with masks: what is read, what is refused, which images and crops are drawn."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from toy_masks import CLASSES_CSV, COLORS, NAMES, scene, write_folder, write_png, write_tif

from berunda.data.images import TEST, TRAIN, UNLABELLED, VALIDATION
from berunda.data.masks.draw import draw_masks
from berunda.data.masks.images import MaskSet, open_masks
from berunda.data.masks.schema import NO_DATA, NO_LABEL, MaskSchema
from berunda.data.masks.source import MaskSource
from berunda.data.order import Randomness
from berunda.errors import ConfigError, DataError
from berunda.geo.grid import Window


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERUNDA_CACHE", str(tmp_path / "cache"))


def opened(folder: Path) -> MaskSet:
    return open_masks(str(folder))


# What is read


def test_pixels_and_classes_come_back_as_they_were_written(tmp_path: Path) -> None:
    masks = opened(write_folder(tmp_path / "set"))
    assert (masks.classes, masks.bands, len(masks)) == (NAMES, ("red", "green", "blue"), 10)
    assert masks.colors == ("#c82828", "#28a03c", "#283cc8")
    for index, name in enumerate(masks.names):
        image, classes = scene(48, int(name[-6:-4]))
        np.testing.assert_array_equal(masks.pixels(index), image.transpose(2, 0, 1))
        np.testing.assert_array_equal(masks.labels(index), classes)
    assert np.bincount(masks.parts, minlength=4).tolist() == [6, 2, 2, 0]


def test_images_of_different_sizes_lie_in_one_store(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", n=5)
    image, classes = scene(80, 9)
    write_png(folder / "images" / "wide.png", image[:30])
    write_png(folder / "masks" / "wide.png", np.array(COLORS, np.uint8)[classes[:30]])
    masks = opened(folder)
    index = masks.names.index("images/wide.png")
    assert masks.sizes[index].tolist() == [30, 80]
    np.testing.assert_array_equal(masks.pixels(index), image[:30].transpose(2, 0, 1))
    np.testing.assert_array_equal(masks.labels(index), classes[:30])


def test_the_second_opening_decodes_nothing_and_a_damaged_store_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from berunda.data.masks import decode

    folder, turns = write_folder(tmp_path / "set", n=5), []
    fill = decode._fill
    monkeypatch.setattr(decode, "_fill", lambda *args: turns.append(1) or fill(*args))
    first = opened(folder)
    expected = np.array(first.flat_labels)
    assert opened(folder).fingerprint == first.fingerprint
    assert len(turns) == 1
    (stored,) = (tmp_path / "cache" / "masks").glob("*/labels.npy")
    content = bytearray(stored.read_bytes())
    content[-1] ^= 1
    stored.write_bytes(bytes(content))
    np.testing.assert_array_equal(opened(folder).flat_labels, expected)
    assert len(turns) == 2


def test_the_time_of_opening_leaves_decoding_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from berunda.data.masks import decode

    folder, fill = write_folder(tmp_path / "set", n=5), decode._fill
    monkeypatch.setattr(decode, "_fill", lambda *args: time.sleep(2.0) or fill(*args))
    assert 0 < opened(folder).opening_s < 2.0


def test_index_masks_need_no_table_and_ignore_0_and_255(tmp_path: Path) -> None:
    for number in range(5):
        image, classes = scene(32, number)
        values = (classes + 1).astype(np.uint8)
        values[0, :3] = (0, 255, 3)
        write_png(tmp_path / "set" / "images" / f"{number}.png", image)
        write_png(tmp_path / "set" / "masks" / f"{number}.png", values)
    masks = opened(tmp_path / "set")
    assert masks.classes == ("class 1", "class 2", "class 3")
    assert masks.codes(0)[0, :3].tolist() == [NO_LABEL, NO_LABEL, 2]


def test_palette_pngs_count_as_indices(tmp_path: Path) -> None:
    from PIL import Image

    for number in range(5):
        image, classes = scene(32, number)
        write_png(tmp_path / "set" / "images" / f"{number}.png", image)
        picture = Image.fromarray((classes + 1).astype(np.uint8), "P")
        picture.putpalette([0, 0, 0, 9, 9, 9, 80, 80, 80, 200, 1, 1])
        (tmp_path / "set" / "masks").mkdir(exist_ok=True)
        picture.save(tmp_path / "set" / "masks" / f"{number}.png")
    (tmp_path / "set" / "classes.csv").write_text("value,name,color\n1,roof,#010203\n2,grass,\n3,roof,\n")
    masks = opened(tmp_path / "set")
    assert masks.classes == ("roof", "grass")
    assert set(np.unique(masks.labels(0))) == {0, 1}


def test_nodata_of_rasters_is_neither_seen_nor_labelled(tmp_path: Path) -> None:
    for number in range(5):
        image, classes = scene(32, number)
        image[:4] = 0
        values = (classes + 1).astype(np.uint8)
        values[:, :2] = 7
        write_tif(tmp_path / "set" / "images" / f"{number}.tif", image.transpose(2, 0, 1), nodata=0)
        write_tif(tmp_path / "set" / "masks" / f"{number}.tif", values[None], nodata=7)
    masks = opened(tmp_path / "set")
    assert masks.classes == ("class 1", "class 2", "class 3")
    assert (masks.codes(0)[:4] == NO_DATA).all()
    assert (masks.codes(0)[4:, :2] == NO_LABEL).all()
    pixels, valid, _ = masks.crop(0, Window(-2, 0, 10, 32), masks.scaling())
    assert not valid[:6].any()
    assert valid[6:].all()
    assert (pixels[:, :6] == 0).all()


def test_five_sites_are_split_whole(tmp_path: Path) -> None:
    for site in range(6):
        write_folder(tmp_path / "set" / f"Site {site}", n=2)
    (tmp_path / "set" / "classes.csv").write_text(CLASSES_CSV)
    masks = opened(tmp_path / "set")
    by_site = {
        site: {int(p) for p, s in zip(masks.parts, masks.sites, strict=True) if s == site} for site in masks.sites
    }
    assert all(len(parts) == 1 for parts in by_site.values())
    assert {TRAIN, VALIDATION, TEST} == {part for parts in by_site.values() for part in parts}


# What is refused before anything is trained


def test_masks_of_another_size_are_counted_and_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", n=6)
    for name in ("part_01.png", "part_04.png"):
        write_png(folder / "masks" / name, np.zeros((40, 48, 3), np.uint8))
    with pytest.raises(
        DataError, match=r"2 masks of another size than their image: .*part_01.png has 48 x 40 px, .*48 x 48"
    ):
        opened(folder)


def test_unknown_colours_are_counted_with_the_first_place(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", n=6)
    _, classes = scene(48, 3)
    mask = np.array(COLORS, np.uint8)[classes]
    mask[5, 7] = mask[5, 9] = mask[30, 1] = (1, 2, 3)
    mask[40, 40] = (9, 9, 9)
    write_png(folder / "masks" / "part_03.png", mask)
    told = (
        r"part_03.png: 2 colours outside the schema found in 4 pixels: #010203 in 3 pixels, first at row 5, column 7; "
    )
    with pytest.raises(DataError, match=told + "#090909 in 1 pixels, first at row 40, column 40"):
        opened(folder)


def test_label_indices_outside_the_schema_are_counted(tmp_path: Path) -> None:
    for number in range(5):
        image, classes = scene(32, number)
        write_png(tmp_path / "set" / "images" / f"{number}.png", image)
        write_png(tmp_path / "set" / "masks" / f"{number}.png", (classes + 1).astype(np.uint8))
    (tmp_path / "set" / "classes.csv").write_text("value,name\n1,roof\n2,grass\n")
    with pytest.raises(
        DataError, match=r"1 label indices outside the schema found in \d+ pixels: 3 in \d+ pixels, first"
    ):
        opened(tmp_path / "set")


def test_images_without_masks_are_counted(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", parts={"train": 4, "test": 2})
    (folder / "train" / "masks" / "part_02.png").unlink()
    with pytest.raises(DataError, match=r"1 images of the labelled split have no mask, the first is .*part_02.png"):
        opened(folder)


def test_an_empty_unlabelled_split_is_an_error(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", parts={"train": 4, "test": 2})
    (folder / "unlabelled").mkdir()
    with pytest.raises(DataError, match="the unlabelled split is there but holds no image"):
        opened(folder)


def test_masks_without_image_and_colours_without_table_are_errors(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", n=5)
    (folder / "images" / "part_02.png").unlink()
    with pytest.raises(DataError, match=r"1 masks without an image of the same name, the first is 'masks/part_02.png'"):
        opened(folder)
    other = write_folder(tmp_path / "other", n=5)
    (other / "classes.csv").unlink()
    with pytest.raises(DataError, match=r"masks hold colours .*#c82828.* and no classes.csv says what they mean"):
        opened(other)


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("value,name\n1,a\n1,b\n", "1 found twice"),
        ("value,name\n1,a\n", "1 classes found, expected 2"),
        ("value,name\n1,a\nred,b\n", "line 3: value 'red' found"),
        ("number,what\n1,a\n", "columns value and name not found"),
        ("value,name\n#ff0000,a\n#ff00,b\n", "'#ff00' found, expected #rrggbb"),
        ("value,name\n1,a\n70000,b\n", "values 1 to 70000 found, expected 0 to 65535"),
    ],
)
def test_a_wrong_table_is_told(tmp_path: Path, table: str, told: str) -> None:
    folder = write_folder(tmp_path / "set", n=5)
    (folder / "classes.csv").write_text(table)
    with pytest.raises(DataError, match=told):
        opened(folder)


def test_a_data_set_without_masks_is_refused(tmp_path: Path) -> None:
    write_png(tmp_path / "eurosat" / "Forest" / "Forest_1.jpg", scene(16, 0)[0])
    with pytest.raises(ConfigError, match="it has no masks"):
        open_masks("eurosat", folder=tmp_path / "eurosat")


def test_several_values_can_mean_one_class() -> None:
    schema = MaskSchema.of_indices({7: "flat", 8: "flat", 24: "human"}, (0,))
    assert schema.names == ("flat", "human")
    assert schema.classes_of(np.array([[7, 8, 24, 0]]), "m").tolist() == [[0, 0, 1, NO_LABEL]]
    with pytest.raises(DataError, match="70000 in 1 pixels, first at row 0, column 1"):
        schema.classes_of(np.array([[7, 70000]]), "m")


# Which images and crops are drawn


def test_draws_are_nested_differ_by_seed_and_show_every_class(tmp_path: Path) -> None:
    masks = opened(write_folder(tmp_path / "set", n=20))
    small, large = (draw_masks(masks, n, "images", 0) for n in (3, 6))
    assert set(small.train) < set(large.train)
    assert len(small.validation) == 3
    assert small.absent == ()
    assert set(small.unlabelled) >= set(masks.of(TRAIN))
    assert not set(small.unlabelled) & set(small.test)
    assert any(set(draw_masks(masks, 3, "images", seed).train) != set(small.train) for seed in (1, 2, 3))
    assert len(draw_masks(masks, 0.5, "fraction", 0).train) == 6
    with pytest.raises(DataError, match="13 labelled images asked for, 12 training images with masks found"):
        draw_masks(masks, 13, "images", 0)


def test_labelled_crops_show_every_class_as_often_and_hold_its_pixel(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", n=10, side=64)
    masks = opened(folder)
    drawn = draw_masks(masks, 2, "images", 0)
    source = MaskSource(masks, drawn.train, drawn.unlabelled, masks.scaling(), 16)
    batch = source.labelled(Randomness(0).at(1), 60)
    again = source.labelled(Randomness(0).at(1), 60)
    assert batch.labels is not None
    np.testing.assert_array_equal(batch.pixels.numpy(), again.pixels.numpy())
    assert batch.pixels.shape == (60, 3, 16, 16)
    assert batch.valid.all()
    assert all(len(np.unique(labels.numpy())) >= 1 for labels in batch.labels)
    shares = np.bincount(batch.labels.numpy().ravel(), minlength=3) / batch.labels.numel()
    assert (shares > 0.2).all()


def test_crops_larger_than_the_image_are_surrounded_by_nothing(tmp_path: Path) -> None:
    masks = opened(write_folder(tmp_path / "set", n=5, side=20))
    drawn = draw_masks(masks, 1, "images", 0)
    batch = MaskSource(masks, drawn.train, drawn.unlabelled, masks.scaling(), 32).unlabelled(Randomness(0), 4)
    assert batch.labels is None
    assert batch.valid.numpy().sum(axis=(1, 2)).tolist() == [400] * 4
    assert (batch.pixels.numpy()[:, :, 20:] == 0).all()


def test_no_unlabelled_image_and_no_labelled_pixel_are_told(tmp_path: Path) -> None:
    masks = opened(write_folder(tmp_path / "set", n=5))
    source = MaskSource(masks, masks.of(TRAIN), np.array([], np.int64), masks.scaling(), 16)
    assert not source.has_unlabelled
    with pytest.raises(DataError, match="0 unlabelled images found, but the method needs some"):
        source.unlabelled(Randomness(0), 2)
    with pytest.raises(DataError, match="no labelled pixel found in 0 labelled images"):
        MaskSource(masks, np.array([], np.int64), masks.of(TRAIN), masks.scaling(), 16)


def test_unlabelled_images_come_from_their_folder(tmp_path: Path) -> None:
    masks = opened(write_folder(tmp_path / "set", parts={"train": 5, "test": 2, "unlabelled": 3}))
    assert (masks.parts == UNLABELLED).sum() == 3
    assert not masks.has_mask[masks.parts == UNLABELLED].any()


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (b"value,name,color\n1,roof,red\n2,grass,\n", r"colour 'red' found, expected #rrggbb"),
        (b"value,name\n1,ro\tof\n2,grass\n", r"class name 'ro\\tof' found"),
        (b"value,name\n1,caf\xe9\n2,grass\n", r"classes.csv: is no table of text"),
    ],
)
def test_a_table_of_classes_that_cannot_be_shown_is_refused_at_once(tmp_path: Path, table: bytes, told: str) -> None:
    folder = write_folder(tmp_path / "set")
    (folder / "classes.csv").write_bytes(table)
    with pytest.raises(DataError, match=told):
        opened(folder)
