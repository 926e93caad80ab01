"""The options of a map run: checked all at once, written and read back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from berunda.config import MapConfig, dump_config, load_config
from berunda.errors import ConfigError, OutputError, SecurityError
from berunda.schema import expected_of, parse_value

NEEDED = {"scenes": ["scene.tif"], "labels": "polygons.gpkg"}


def write(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_are_valid_and_unchangeable() -> None:
    config = MapConfig(scenes=["scene.tif"], labels=Path("polygons.gpkg"))
    assert config.effort == "standard"
    assert config.labels == "polygons.gpkg"
    with pytest.raises(Exception, match="frozen"):
        config.seed = 3  # type: ignore[misc]


def test_every_option_is_described_and_says_what_it_expects() -> None:
    for name, field in MapConfig.model_fields.items():
        assert field.description is not None, name
        assert field.description.endswith("."), name
        assert len(expected_of(MapConfig, name)) > 5, name


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        MapConfig(crop=1, seed=-1, effort="slow", test_share=float("nan"), method="os.system", mask=" ", steps=2.5)
    lines = str(caught.value).splitlines()
    assert lines[0] == "9 options are wrong:"
    for word in ("'crop_px'", "seed", "effort", "test_share", "method", "mask", "steps", "scenes", "labels"):
        assert any(word in line for line in lines[1:]), word


def test_a_single_problem_is_one_line_with_place_found_and_expected() -> None:
    with pytest.raises(ConfigError) as caught:
        MapConfig.make({**NEEDED, "crop_px": 8}, where="run.yaml")
    assert str(caught.value) == "run.yaml: crop_px: found 8, expected a whole number from 32 to 1024 px"


def test_flags_are_named_as_the_command_line_spells_them() -> None:
    with pytest.raises(ConfigError) as caught:
        MapConfig.make({"polygons_per_class": "0", "method_options": ["a"]}, flags=True)
    text = str(caught.value)
    assert all(word in text for word in ("--polygons-per-class", "--option", "SCENE", "--labels"))


@pytest.mark.parametrize(
    ("key", "near"), [("polygons-per-class", "polygons_per_class"), ("sede", "seed"), ("Effort", "effort")]
)
def test_unknown_keys_are_refused_with_the_nearest(key: str, near: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown option '{key}'; did you mean '{near}'"):
        MapConfig.make({**NEEDED, key: 1})


def test_a_key_that_is_like_no_other_lists_the_valid_ones() -> None:
    with pytest.raises(ConfigError, match="expected one of scenes, labels, field"):
        MapConfig.make({**NEEDED, "zzzzqqq": 1})


def test_options_that_contradict_each_other() -> None:
    with pytest.raises(ConfigError, match="scenes: found with synthetic"):
        MapConfig(scenes=["a.tif"], synthetic=True)
    with pytest.raises(ConfigError, match=r"bands: found B02 twice"):
        MapConfig(**NEEDED, bands=["B02", "B03", "B02"])
    with pytest.raises(ConfigError, match=r"block_px: found 64 px, expected at least crop_px \(128 px\)"):
        MapConfig(**NEEDED, block_px=64, crop_px=128)
    assert MapConfig(**NEEDED, crop_px=256).block_px is None
    assert MapConfig(synthetic=True).scenes == ()


def test_texts_of_the_command_line_are_read() -> None:
    config = MapConfig(
        **NEEDED,
        bands="B02, B8A",
        classes="meadow=grassland,scrub=",
        method_options=["aux=l1", "threshold=9.5e-1", "align=true", "n=3"],
        seed="7",
    )
    assert config.bands == ("B02", "B8A")
    assert config.classes == {"meadow": "grassland", "scrub": ""}
    assert config.method_options == {"aux": "l1", "threshold": 0.95, "align": True, "n": 3}
    assert config.seed == 7


@pytest.mark.parametrize("text", ["meadow", "a=b,a=c", "=b", "a=b,,c=d"])
def test_class_mappings_that_cannot_be_read(text: str) -> None:
    with pytest.raises(ConfigError, match="classes"):
        MapConfig(**NEEDED, classes=text)


def test_class_names_that_yaml_takes_for_something_else(tmp_path: Path) -> None:
    path = write(tmp_path, "scenes: a.tif\nlabels: b.gpkg\nclasses: {3: water, scrub: }\n")
    assert load_config(path).classes == {"3": "water", "scrub": ""}
    path = write(tmp_path, "scenes: a.tif\nlabels: b.gpkg\nclasses: {no: water}\n")
    with pytest.raises(ConfigError, match="put it in quotes"):
        load_config(path)


def test_replaced_is_checked() -> None:
    config = MapConfig(**NEEDED)
    assert config.replaced(seed=5).seed == 5
    with pytest.raises(ConfigError, match="seed"):
        config.replaced(seed=-5)


def test_paths_count_from_the_folder_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "scenes: [a.tif, /x/b.tif, 'https://host/c.tif', /vsicurl/d]\nlabels: ../l.gpkg\n")
    config = load_config(path)
    assert config.scenes == (str(tmp_path / "a.tif"), "/x/b.tif", "https://host/c.tif", "/vsicurl/d")
    assert config.labels == str(tmp_path.parent / "l.gpkg")


@settings(max_examples=30, deadline=None)
@given(
    names=st.dictionaries(st.text(min_size=1, max_size=8), st.text(max_size=8), max_size=4),
    seed=st.integers(0, 2**63 - 1),
    share=st.floats(0.05, 0.9),
    steps=st.none() | st.integers(1, 1000),
)
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    names: dict[str, str],
    seed: int,
    share: float,
    steps: int | None,
) -> None:
    path = tmp_path_factory.mktemp("config") / "run.yaml"
    config = MapConfig(**NEEDED, classes=names, seed=seed, test_share=share, steps=steps).resolved()
    dump_config(config, path)
    assert load_config(path) == config
    assert [entry.name for entry in path.parent.iterdir()] == ["run.yaml"]


def test_the_written_file_holds_every_option(tmp_path: Path) -> None:
    dump_config(MapConfig(**NEEDED), tmp_path / "run.yaml")
    text = (tmp_path / "run.yaml").read_text()
    assert all(f"\n{name}:" in text for name in MapConfig.model_fields)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"file/run\.yaml.*cannot be written"):
        dump_config(MapConfig(**NEEDED), tmp_path / "file" / "run.yaml")


def test_a_folder_that_is_missing_is_made(tmp_path: Path) -> None:
    dump_config(MapConfig(**NEEDED, seed=41), tmp_path / "new" / "run.yaml")
    assert load_config(tmp_path / "new" / "run.yaml").seed == 41
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["run.yaml"]


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("- a\n- b\n", ConfigError, "found a list"),
        ("just words", ConfigError, "found a single value of type str"),
        ("seed: [1\n", ConfigError, "line 2"),
        ("seed: 1\nseed: 2\n", ConfigError, "'seed' is given twice"),
        ("1: 2\n", ConfigError, "keys that are not names"),
        ("seed: " + "1" * 5000, ConfigError, "a number of 5000 characters"),
        ("seed: 1" + ":1" * 60_000, ConfigError, "a number of 120001 characters"),
        ("seed: 0x" + "f" * 5000, ConfigError, "a number of 5002 characters"),
        ("method: !!python/object/apply:os.system ['touch canary']\n", SecurityError, "tag"),
        ("method: !!python/name:os.system\n", SecurityError, "tag"),
        ("scenes: &a [x]\nlabels: *a\n", SecurityError, "anchors"),
        ("field: " + "[" * 50 + "]" * 50, SecurityError, "deep"),
        ("field: " + "[" * 100_000, SecurityError, "deep"),
        ("#" * (1 << 20) + "\n", SecurityError, "bytes"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, text: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        load_config(write(tmp_path, text))
    assert "run.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_import_paths_are_no_methods(tmp_path: Path) -> None:
    path = write(tmp_path, "scenes: a.tif\nlabels: b.gpkg\nmethod: os.system\nencoder: 'os:system'\n")
    with pytest.raises(ConfigError, match="2 options are wrong"):
        load_config(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(tmp_path / "bytes.yaml")


def test_parse_value() -> None:
    assert [parse_value(text) for text in ("True", "-3", ".5", "1e-3", "l1", "nan", "1_0")] == [
        True,
        -3,
        0.5,
        0.001,
        "l1",
        "nan",
        "1_0",
    ]


def test_importing_the_configuration_is_cheap() -> None:
    code = "import berunda.config, sys; print([m for m in ('torch', 'rasterio', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_numbers_of_thousands_of_digits_are_told() -> None:
    with pytest.raises(ConfigError, match="a number of thousands of digits"):
        MapConfig.make({**NEEDED, "seed": 10**5000, "bands": [10**5000]})


def test_a_home_folder_that_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no home folder is known for '~nobody-of-this-name'"):
        load_config(write(tmp_path, "scenes: ~nobody-of-this-name/a.tif\nlabels: b.gpkg\nfield: class\n"))


def test_of_very_many_problems_some_are_listed() -> None:
    with pytest.raises(ConfigError, match="3000 options are wrong:") as caught:
        MapConfig.make({**NEEDED, **{f"key{i}": 1 for i in range(3000)}})
    assert len(str(caught.value).split("\n")) == 22
    assert str(caught.value).endswith("and 2980 more")
