from __future__ import annotations

import datetime

import numpy as np
import pytest

from berunda.errors import GeoError
from berunda.geo.classes import class_name, map_classes


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (3.0, "3"),
        (np.float64(3.0), "3"),
        (np.int32(7), "7"),
        (2.5, "2.5"),
        (True, "true"),
        ("  forest\n edge ", "forest edge"),
        ("e\u0301", "\u00e9"),
        ("a\x00b\ud800c\u200d", "abc\u200d"),
        ("", None),
        ("  ", None),
        (None, None),
        (float("nan"), None),
        (np.float32("nan"), None),
        (np.datetime64("NaT"), None),
        (datetime.date(2020, 1, 2), "2020-01-02"),
    ],
)
def test_values_become_names(value: object, name: str | None) -> None:
    assert class_name(value) == name


def test_classes_are_merged_renamed_and_dropped() -> None:
    names = ["meadow", "grass", None, "scrub", "water"]
    assert map_classes(names, {"meadow": "green", "grass": "green", "scrub": ""}, "f") == [
        "green",
        "green",
        None,
        "",
        "water",
    ]
    assert map_classes(names, None, "f") == names


def test_unknown_old_names_are_explained() -> None:
    with pytest.raises(GeoError, match=r"'medow', which is not in labels\.gpkg: .* did you mean 'meadow'"):
        map_classes(["meadow"], {"medow": "x"}, "labels.gpkg")
    with pytest.raises(GeoError, match="did you mean 'Meadow'"):
        map_classes(["Meadow", "b"], {"MEADOW": "x"}, "f")


def test_a_mapping_may_name_further_known_classes() -> None:
    assert map_classes(["meadow"], {"glacier": ""}, "f", ["glacier"]) == ["meadow"]
    with pytest.raises(GeoError, match="did you mean 'glacier'"):
        map_classes(["meadow"], {"glacer": ""}, "f", ["glacier"])


def test_no_classes_and_too_many_are_errors() -> None:
    with pytest.raises(GeoError, match="no classes left"):
        map_classes(["a"], {"a": ""}, "f")
    with pytest.raises(GeoError, match="no feature has a value"):
        map_classes([None], None, "f")
    with pytest.raises(GeoError, match=r"256 different classes .* at most 255"):
        map_classes([str(i) for i in range(256)], None, "f")
    assert len(map_classes([str(i) for i in range(255)], None, "f")) == 255
