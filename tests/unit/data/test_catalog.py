"""The catalogue: every published layout is read, and what is missing or odd is told."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
from toy_images import class_files, photo, write_tree, write_zip

from berunda.data import catalog
from berunda.data.catalog.contract import ClassFolders, Entry
from berunda.data.images import NO_LABEL, TEST, TRAIN, UNLABELLED, VALIDATION, ImageSet, open_images
from berunda.errors import ConfigError, DataError, SecurityError

DATA = Path(os.environ.get("BERUNDA_DATA", "") or "/nonexistent")
ENTRIES = catalog.entries()


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing is found but what a test puts below this folder."""
    monkeypatch.setenv("BERUNDA_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("BERUNDA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "data"


def needs(folder: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not (DATA / folder).is_dir(), reason=f"BERUNDA_DATA has no folder {folder}")


def opened(dataset: str, folder: Path | None = None, **options) -> ImageSet:
    return open_images(dataset, folder=folder, **options)


def counts(images: ImageSet) -> list[int]:
    return np.bincount(images.parts, minlength=4).tolist()


# What holds for all


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_facts_are_complete(entry: Entry) -> None:
    assert entry.title
    assert entry.about
    assert entry.licence
    assert set(entry.tasks) <= {"scene", "multilabel", "segmentation"}
    assert entry.__doc__
    for item in entry.downloads:
        assert item.url.startswith("https://")
        kind, _, digits = (item.checksum or "md5:" + "0" * 32).partition(":")
        assert len(digits) == {"md5": 32, "sha256": 64}[kind]
    if isinstance(entry, ClassFolders):
        assert len(set(entry.classes)) == len(entry.classes)
        assert entry.folders


def test_names_are_those_of_the_files() -> None:
    assert catalog.names() == tuple(sorted(entry.name for entry in ENTRIES))
    assert {"aid", "csv", "eurosat", "eurosat_ms", "folder", "resisc45", "so2sat", "ucmerced"} <= set(catalog.names())


@pytest.mark.parametrize("entry", [e for e in ENTRIES if e.downloads], ids=lambda entry: entry.name)
def test_missing_data_say_what_to_fetch_from_where_into_which_folder(entry: Entry, elsewhere: Path) -> None:
    assert not entry.is_present()
    with pytest.raises(DataError) as caught:
        opened(entry.name)
    for item in entry.downloads:
        assert item.file in str(caught.value)
        assert item.url in str(caught.value)
        assert (item.checksum or "no checksum known") in str(caught.value)
    assert str(elsewhere / entry.folders[0]) in str(caught.value)


def test_unknown_names_are_told_with_the_nearest(elsewhere: Path) -> None:
    with pytest.raises(DataError, match="did you mean 'eurosat'"):
        opened("eurosta")


def test_a_task_without_labels_is_refused(elsewhere: Path) -> None:
    write_tree(elsewhere / "aid", class_files(["Airport"], 1, suffix=".jpg", kind="JPEG"))
    with pytest.raises(ConfigError, match="expected one of scene"):
        opened("aid", task="multilabel")


LAYOUTS = {
    "eurosat": ("EuroSAT_RGB.zip", "EuroSAT_RGB/", ".jpg", "JPEG"),
    "resisc45": ("NWPU-RESISC45.zip", "NWPU-RESISC45/", ".jpg", "JPEG"),
    "aid": ("AID.zip", "AID/", ".jpg", "JPEG"),
    "ucmerced": ("UCMerced_LandUse.zip", "UCMerced_LandUse/Images/", ".tif", "TIFF"),
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("packed", [False, True])
def test_published_layouts_are_read_packed_and_unpacked(elsewhere: Path, name: str, packed: bool) -> None:
    archive, prefix, suffix, kind = LAYOUTS[name]
    entry = catalog.load(name)
    assert isinstance(entry, ClassFolders)
    files = class_files(entry.classes, 5, suffix=suffix, prefix=prefix, kind=kind)
    files[prefix + "readme.txt"] = b"hello"
    folder = elsewhere / entry.folders[0]
    write_zip(folder / archive, files) if packed else write_tree(folder, files)
    assert entry.is_present()
    images = opened(name)
    n = len(entry.classes)
    assert images.classes == entry.classes
    assert counts(images) == [3 * n, n, n, 0]
    assert np.bincount(images.labels).tolist() == [5] * n
    assert all(
        images.classes[label] == path.split("/")[0] for label, path in zip(images.labels, images.names, strict=True)
    )
    assert images.size == ((256, 256) if name == "ucmerced" else (8, 8))


def test_an_archive_can_be_named_itself(elsewhere: Path, tmp_path: Path) -> None:
    files = class_files(["Forest", "River"], 2, suffix=".jpg", prefix="2750/", kind="JPEG")
    path = write_zip(tmp_path / "mine.zip", files)
    images = opened("eurosat", path)
    assert len(images) == 4
    assert images.labels.tolist() == [1, 1, 8, 8]


def test_two_copies_of_an_image_are_refused(elsewhere: Path) -> None:
    files = class_files(["Forest"], 2, suffix=".jpg", kind="JPEG")
    write_tree(elsewhere / "eurosat_rgb", {**files, **{f"copy/{name}": content for name, content in files.items()}})
    with pytest.raises(DataError, match=r"is in .* twice"):
        opened("eurosat")


# EuroSAT


def eurosat_with_index(folder: Path, rows: list[str]) -> None:
    write_tree(folder, class_files(["Forest", "River"], 2, suffix=".jpg", kind="JPEG"))
    (folder / "index.csv").write_text("\n".join(["file,class,label,split,sha256", *rows]))


ROWS = [
    "Forest/Forest_0.jpg,Forest,1,test,x",
    "Forest/Forest_1.jpg,Forest,1,train,x",
    "River/River_0.jpg,River,8,val,x",
    "River/River_1.jpg,River,8,train,x",
]


def test_the_index_gives_the_split(elsewhere: Path) -> None:
    eurosat_with_index(elsewhere / "eurosat_rgb", ROWS)
    images = opened("eurosat")
    assert images.parts.tolist() == [TEST, TRAIN, VALIDATION, TRAIN]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (ROWS[1:], r"'Forest/Forest_0.jpg' is not in it"),
        ([ROWS[0].replace(",Forest,", ",River,"), *ROWS[1:]], r"'Forest/Forest_0.jpg' is River"),
        ([*ROWS, "River/River_7.jpg,River,8,train,x"], r"'River/River_7.jpg' has no image"),
    ],
)
def test_an_index_that_does_not_fit_is_told(elsewhere: Path, rows: list[str], told: str) -> None:
    eurosat_with_index(elsewhere / "eurosat_rgb", rows)
    with pytest.raises(DataError, match=told):
        opened("eurosat")


@needs("eurosat_rgb")
def test_the_real_eurosat_opens_fast_the_second_time(tmp_path: Path) -> None:
    began = time.process_time()
    first = opened("eurosat", DATA / "eurosat_rgb", cache=tmp_path)
    assert time.process_time() - began < 50
    began = time.process_time()
    images = opened("eurosat", DATA / "eurosat_rgb", cache=tmp_path)
    assert time.process_time() - began < 2
    assert images.fingerprint == first.fingerprint
    assert images.pixels.shape == (27000, 3, 64, 64)
    assert counts(images) == [16200, 5400, 5400, 0]
    hashed = ClassFolders.parts(catalog.load("eurosat"), DATA, images.names, images.labels.tolist())
    assert hashed == images.parts.tolist(), "the split of the index is the one by the hash of the names"


@needs("eurosat_13band_samples")
def test_the_13_bands_come_in_their_order(tmp_path: Path) -> None:
    images = opened("eurosat_ms", DATA / "eurosat_13band_samples", cache=tmp_path)
    assert images.pixels.shape == (6, 13, 64, 64)
    assert images.pixels.dtype == np.uint16
    mean = dict(zip(images.bands, images.pixels.mean((0, 2, 3)), strict=True))
    assert mean["B10"] < 50 < mean["B09"] < mean["B8A"], "cirrus is dark, vapour darker than near infrared"
    assert images.zero_is_missing
    packed = write_zip(
        tmp_path / "EuroSAT_MS.zip",
        {f"EuroSAT_MS/{name}": (DATA / "eurosat_13band_samples" / name).read_bytes() for name in images.names},
    )
    np.testing.assert_array_equal(opened("eurosat_ms", packed, cache=tmp_path).pixels, images.pixels)


def test_photographs_are_not_taken_for_13_bands(elsewhere: Path) -> None:
    write_tree(elsewhere / "eurosat_ms", class_files(["Forest"], 2, suffix=".tif", kind="TIFF"))
    with pytest.raises(DataError, match=r"3 bands found in .* expected 13"):
        opened("eurosat_ms")


# UC Merced


@needs("ucmerced_multilabel_128")
def test_the_real_labels_of_uc_merced_are_split_in_proportion(tmp_path: Path) -> None:
    images = opened("ucmerced", DATA / "ucmerced_multilabel_128", task="multilabel", cache=tmp_path)
    assert images.pixels.shape == (2100, 3, 128, 128)
    assert counts(images) == [1470, 210, 420, 0]
    assert len(images.classes) == 17
    assert images.labels.mean() * 17 == pytest.approx(3.33, abs=0.01)
    for part, share in ((TRAIN, 0.7), (VALIDATION, 0.1), (TEST, 0.2)):
        held = images.labels[images.of(part)].sum(0)
        assert (abs(held - share * images.labels.sum(0)) <= 3).all(), (part, held)
    scenes = opened("ucmerced", DATA / "ucmerced_multilabel_128", cache=tmp_path)
    assert counts(scenes) == [1260, 420, 420, 0]
    assert len(list((tmp_path / "images").glob("*/about.json"))) == 1, "both tasks share the pixels"


def test_images_of_uc_merced_are_brought_to_one_size(elsewhere: Path) -> None:
    folder = write_tree(elsewhere / "ucmerced", class_files(["beach", "river"], 2, suffix=".tif", kind="TIFF"))
    (folder / "beach" / "beach_0.tif").write_bytes(photo(size=(247, 255), kind="TIFF"))
    assert opened("ucmerced").size == (256, 256)


def test_the_table_of_uc_merced_is_asked_for(elsewhere: Path) -> None:
    folder = write_tree(elsewhere / "ucmerced", class_files(["beach"], 2, suffix=".tif", kind="TIFF"))
    with pytest.raises(DataError, match=r"labels.csv: not found"):
        opened("ucmerced", task="multilabel")
    (folder / "labels.csv").write_text("file,sea\nimages/beach/beach_0.webp,1\n")
    with pytest.raises(DataError, match=r"no row for 1 images, such as 'beach/beach_1.tif'"):
        opened("ucmerced", task="multilabel")
    (folder / "labels.csv").write_text("file,class,sea\nbeach_0.tif,beach,1\nbeach_1.tif,beach,0\n")
    assert opened("ucmerced", task="multilabel").labels.tolist() == [[1.0], [0.0]]


# So2Sat


def write_so2sat(path: Path, n: int, *, n_bands: int = 10, first: int = 0) -> np.ndarray:
    h5py = pytest.importorskip("h5py")
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = np.random.default_rng(n).integers(0, 28000, (n, 32, 32, n_bands))
    with h5py.File(path, "w") as file:
        file["sen1"] = np.zeros((n, 32, 32, 8))
        file["sen2"] = whole / 10000
        file["label"] = np.eye(17)[(first + np.arange(n)) % 17]
    return whole.transpose(0, 3, 1, 2)


def test_so2sat_is_read_with_its_split(elsewhere: Path) -> None:
    folder = elsewhere / "so2sat"
    expected = [
        write_so2sat(folder / f"{part}.h5", n) for part, n in (("training", 70), ("validation", 3), ("testing", 2))
    ]
    images = opened("so2sat")
    assert images.pixels.dtype == np.uint16
    np.testing.assert_array_equal(images.pixels, np.concatenate(expected))
    assert counts(images) == [70, 3, 2, 0]
    assert images.labels[:18].tolist() == [*range(17), 0]
    assert images.bands[7] == "B8A"
    np.testing.assert_array_equal(opened("so2sat").pixels, images.pixels)


def test_damaged_or_foreign_so2sat_files_are_told(elsewhere: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = elsewhere / "so2sat" / "training.h5"
    write_so2sat(path, 2, n_bands=8)
    with pytest.raises(DataError, match="2 images of 8 bands"):
        opened("so2sat")
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match="cannot be read as HDF5"):
        opened("so2sat")
    write_so2sat(elsewhere / "other.h5", 2)
    with h5py.File(path, "w") as file:
        file["label"] = np.eye(17)[:2]
        file["sen2"] = h5py.ExternalLink("../other.h5", "/sen2")
    with pytest.raises(SecurityError, match="'sen2' is a link"):
        opened("so2sat")
    with h5py.File(path, "w") as file:
        file["label"] = np.zeros((2, 17))
        file["sen2"] = np.zeros((2, 32, 32, 10))
    with pytest.raises(DataError, match="image 0 is not exactly one class"):
        opened("so2sat")


# Any folder


def test_folder_with_unlabelled_images(elsewhere: Path, tmp_path: Path) -> None:
    root = write_tree(tmp_path / "mine", {**class_files(["10", "9"], 5), "unlabelled/x/1.png": photo(1)})
    images = opened(str(root))
    assert images.name == "mine"
    assert images.classes == ("9", "10")
    assert counts(images) == [6, 2, 2, 1]
    (free,) = images.of(UNLABELLED)
    assert images.labels[free] == NO_LABEL
    assert images.names[free] == "unlabelled/x/1.png"


def test_folder_with_parts_and_without_validation(elsewhere: Path, tmp_path: Path) -> None:
    files = class_files(["a", "b"], 10, prefix="train/") | class_files(["a", "b"], 3, prefix="test/")
    root = write_tree(tmp_path / "mine", files)
    assert counts(opened(str(root))) == [16, 4, 6, 0]
    write_tree(root, class_files(["a", "b"], 1, prefix="val/"))
    assert counts(opened("folder", root)) == [20, 2, 6, 0]


def test_an_archive_of_folders(elsewhere: Path, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "mine.zip", class_files(["a", "b"], 5, prefix="mine/"))
    images = opened(str(path))
    assert images.classes == ("a", "b")
    assert counts(images) == [6, 2, 2, 0]


def test_a_test_folder_of_another_class_is_told(elsewhere: Path, tmp_path: Path) -> None:
    files = class_files(["a", "b"], 2, prefix="train/") | class_files(["c"], 1, prefix="test/")
    with pytest.raises(DataError, match=r"class 'c' is not in the schema \(image 'test/c/c_0.png'\)"):
        opened(str(write_tree(tmp_path / "mine", files)))


def test_an_image_beside_the_class_folders_is_told(elsewhere: Path, tmp_path: Path) -> None:
    root = write_tree(tmp_path / "mine", {**class_files(["a", "b"], 2), "lost.png": photo()})
    with pytest.raises(DataError, match=r"'lost.png' lies in no class's folder"):
        opened(str(root))


def test_a_folder_of_images_alone_has_no_labels(elsewhere: Path, tmp_path: Path) -> None:
    images = opened(str(write_tree(tmp_path / "mine", {"1.png": photo(), "2.png": photo(1)})))
    assert images.classes == ()
    assert counts(images) == [0, 0, 0, 2]


def test_an_empty_class_folder_is_a_class(elsewhere: Path, tmp_path: Path) -> None:
    root = write_tree(tmp_path / "mine", class_files(["a", "b"], 2))
    (root / "c").mkdir()
    assert opened(str(root)).classes == ("a", "b", "c")


def test_a_folder_without_images_is_told(elsewhere: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no images found, expected files \.jpg"):
        opened(str(write_tree(tmp_path / "mine", {"a/readme.txt": b"x"})))


# Any table


def table(root: Path, text: str, n_images: int = 4) -> Path:
    write_tree(root, {f"{number}.png": photo(number) for number in range(n_images)})
    (root / "table.csv").write_text(text)
    return root / "table.csv"


def test_table_of_scenes(elsewhere: Path, tmp_path: Path) -> None:
    text = "file,label,split\n0.png,sea,train\n1.png,land,train\n2.png,sea,test\n3.png,,\n"
    images = opened(str(table(tmp_path, text)))
    assert images.task == "scene"
    assert images.classes == ("land", "sea")
    assert images.labels.tolist() == [1, 0, 1, NO_LABEL]
    assert images.parts.tolist() == [TRAIN, TRAIN, TEST, UNLABELLED]


def test_table_of_several_labels(elsewhere: Path, tmp_path: Path) -> None:
    images = opened(str(table(tmp_path, "file,sea,land\n0.png,1,0\n1.png,,1\n2.png,,\n3.png,0,0\n")))
    assert images.task == "multilabel"
    assert images.classes == ("sea", "land")
    np.testing.assert_array_equal(images.labels, [[1, 0], [np.nan, 1], [np.nan, np.nan], [0, 0]])
    assert images.parts[2] == UNLABELLED
    assert sorted(images.parts.tolist()) == [TRAIN, TRAIN, TEST, UNLABELLED]


@pytest.mark.parametrize(
    ("text", "error", "told"),
    [
        ("file,label\n9.png,sea\n", DataError, r"'9.png' is not in"),
        ("file,label\n../0.png,sea\n", SecurityError, "refused"),
        ("file,label\n/etc/passwd,sea\n", SecurityError, "refused"),
        ("file,label,split\n0.png,sea,train\n1.png,land,test\n", DataError, "class 'land' is not in the schema"),
        ("file,label\n0.png,sea\n0.png,sea\n", DataError, "listed twice"),
        ("file\n0.png\n", DataError, "no column for a class"),
    ],
)
def test_wrong_tables_are_told(elsewhere: Path, tmp_path: Path, text: str, error: type, told: str) -> None:
    with pytest.raises(error, match=told):
        opened(str(table(tmp_path, text)))


def test_a_missing_table_is_told(elsewhere: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not found in"):
        opened("csv", tmp_path / "no.csv")
    with pytest.raises(DataError, match="name the folder that holds it"):
        opened("folder")
