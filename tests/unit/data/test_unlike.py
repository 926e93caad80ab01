"""Images unlike the training ones: classes that nobody sees, and another data set at the same size."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_eurosat import write_archive

from berunda.data.images import TEST, ImageSet, open_images
from berunda.data.resampling import averaged_images
from berunda.data.unlike import held_out_images, without_classes
from berunda.errors import DataError

HELD = ("Forest", "SeaLake")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    folder = tmp_path_factory.mktemp("eurosat")
    write_archive(folder)
    return open_images("eurosat", folder=folder, cache=folder / "cache")


def test_held_out_classes_are_seen_by_nobody(images: ImageSet) -> None:
    kept = without_classes(images, HELD)
    assert kept.classes == tuple(name for name in images.classes if name not in HELD)
    assert not any(name.split("/")[0] in HELD for name in kept.names)
    assert [kept.classes[label] for label in kept.labels] == [name.split("/")[0] for name in kept.names]
    assert kept.fingerprint != images.fingerprint
    held = held_out_images(images, HELD)
    assert {name.split("/")[0] for name in held.names} == set(HELD)
    assert (held.parts == TEST).all()
    assert without_classes(images, ()) is images
    for function in (without_classes, held_out_images):
        with pytest.raises(DataError, match="'Ocean' to hold out"):
            function(images, ("Ocean",))


def test_images_are_averaged_over_the_area(images: ImageSet) -> None:
    found = averaged_images(images, 8)
    assert found.size == (8, 8)
    expected = images.pixels[5, 1, 4:6, 8:10].astype(float).mean()
    assert found.pixels[5, 1, 2, 4] == pytest.approx(expected)
    assert np.array_equal(averaged_images(images, 16).pixels, images.pixels)
    with pytest.raises(DataError, match="expected a multiple of 24"):
        averaged_images(images, 24)
