"""The command line: what verbs hand on, what they print, how they end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import berunda
from berunda.cli.assessment import assessment_lines
from berunda.cli.main import main
from berunda.cli.verbs import VERBS
from berunda.config import MapConfig, dump_config
from berunda.errors import GeoError, OutputError

RUN = [sys.executable, "-m", "berunda"]
MAP = ["map", "scene.tif", "--labels", "polygons.gpkg", "--out", "out"]


class Outcome:
    warnings = ("Few labels.",)
    is_complete = True

    def summary_lines(self) -> list[str]:
        return ["Map: out/map.tif"]


ESTIMATE = SimpleNamespace(value=12.34, half_width=1.5)
ASSESSMENT = SimpleNamespace(
    statement="Design-based estimates.",
    scores=SimpleNamespace(oa=0.75, miou=None),
    area=SimpleNamespace(oa=SimpleNamespace(value=0.8, half_width=0.1), class_names=("forest",), area_ha=(ESTIMATE,)),
    area_unit="ha",
    warnings=("Few points.",),
    page=Path("o/assess.html"),
)


class Api:
    """Stands for `berunda.api`; keeps what it was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.error: BaseException | None = None

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            self.calls.append((name, arguments, options))
            if self.error is not None:
                raise self.error
            answers = {"info": [("bands", "B02, B03"), ("size", "3 x 4 px")], "assess": ASSESSMENT}
            return answers.get(name, Outcome())

        return call


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    fake = Api()
    monkeypatch.setitem(sys.modules, "berunda.api", fake)
    monkeypatch.setattr(berunda, "api", fake, raising=False)
    return fake


def test_help_is_fast_and_imports_nothing_heavy() -> None:
    heavy = (
        "torch",
        "rasterio",
        "geopandas",
        "numpy",
        "matplotlib",
        "sklearn",
        "rich.progress",
        "berunda.api",
    )
    for arguments, further in ((["--help"], ("pydantic", "yaml")), (["map", "--help"], ())):
        code = (
            f"import sys; from berunda.cli.main import main; code = main({arguments!r}); "
            f"print('LOADED', [m for m in {(*heavy, *further)!r} if m in sys.modules]); sys.exit(code)"
        )
        times = []
        for _ in range(3):
            began = time.perf_counter()
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            times.append(time.perf_counter() - began)
        assert "LOADED []" in done.stdout
        assert min(times) < 0.5, times


@pytest.mark.parametrize("verb", [verb.name for verb in VERBS])
def test_every_verb_has_help_with_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"  berunda {verb}" in text
    assert "Example" in text
    assert "--quiet" in text
    assert "--seed" in text
    assert "--debug" in text


def test_every_option_of_a_map_run_is_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    main(["map", "--help"])
    text = capsys.readouterr().out
    spelled = [MapConfig.spell(name, True) for name in MapConfig.model_fields]
    assert [name for name in spelled if f" {name}" not in text and f"[{name}" not in text] == []


def test_what_is_on_by_default_has_a_flag_that_switches_it_off(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    assert [main([*MAP, *more]) for more in ([], ["--no-pretrained"], ["--pretrained"])] == [0, 0, 0]
    assert [call[1][0].pretrained for call in api.calls] == [True, False, True]
    main(["map", "--help"])
    text = capsys.readouterr().out
    assert "--no-pretrained" in text
    assert "on by default" in text


@pytest.mark.parametrize("verb", ["map", "predict"])
def test_workers_are_threads_and_a_device_can_be_chosen(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    main([verb, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "Tiles mapped at a time, by threads" in text
    assert "--device" in text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"berunda {berunda.__version__}\n"


def test_map_hands_on_what_was_given(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(
        [
            *MAP,
            "b.tif",
            "--field",
            "class",
            "--classes",
            "a=b,c=",
            "--option",
            "aux=l1",
            "--seed",
            "3",
            "--compare",
        ]
    )
    assert code == 0
    name, (config, out), options = api.calls[0]
    assert (name, out) == ("map_scene", Path("out"))
    assert config == MapConfig(
        scenes=["scene.tif", "b.tif"],
        labels="polygons.gpkg",
        field="class",
        classes={"a": "b", "c": ""},
        method_options={"aux": "l1"},
        seed=3,
        compare=True,
    )
    assert set(options) == {"progress"}
    assert capsys.readouterr().out == "Map: out/map.tif\nwarning: Few labels.\n"


def test_a_configuration_is_repeated_and_flags_change_it(api: Api, tmp_path: Path) -> None:
    config = MapConfig(scenes=["/s.tif"], labels="/l.gpkg", crop_px=96, seed=4, compare=True)
    dump_config(config, tmp_path / "run.yaml")
    assert main(["map", "--config", str(tmp_path / "run.yaml"), "--out", "out"]) == 0
    assert main(["map", "--config", str(tmp_path / "run.yaml"), "--out", "out", "--seed", "5"]) == 0
    assert [call[1][0] for call in api.calls] == [config, config.replaced(seed=5)]


@pytest.mark.parametrize(
    "words", [["predict", "model", "a.tif", "--out", "o"], ["info", "a.tif"], ["methods"], ["doctor"]]
)
def test_a_seed_is_taken_where_nothing_is_random(
    words: list[str], api: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("berunda.doctor.examine", list)
    assert main([*words, "--seed", "7"]) == 0
    assert main([*words, "--seed", "x"]) == 2
    assert "--seed" in capsys.readouterr().err


def test_the_other_verbs_hand_on_what_was_given(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--out", "o", "--synthetic", "--seed", "2"]) == 0
    assert main(["predict", "model", "a.tif", "b.tif", "--out", "o", "--workers", "2", "--bands", "B02,B03"]) == 0
    assert (
        main(
            [
                *("assess", "map.tif", "--reference", "r.gpkg", "--field", "c", "--out", "o", "--design", "random"),
                *("--zero-is-class", "--seed", "3"),
            ]
        )
        == 0
    )
    capsys.readouterr()
    assert main(["info", "model"]) == 0
    demo, predict, assess, info = api.calls
    assert demo[:2] == ("demo", (Path("o"),))
    assert (demo[2]["seed"], demo[2]["synthetic"]) == (2, True)
    assert predict[1] == (Path("model"), ("a.tif", "b.tif"), Path("o"))
    assert (predict[2]["workers"], predict[2]["bands"]) == (2, ("B02", "B03"))
    assert predict[2]["device"] == "auto"
    assert assess[1] == (Path("map.tif"), Path("r.gpkg"))
    assert assess[2] == {
        "field": "c",
        "out": Path("o"),
        "design": "random",
        "classes": {},
        "zero_is_class": True,
        "seed": 3,
    }
    assert info[1] == ("model",)
    assert capsys.readouterr().out == "bands  B02, B03\nsize   3 x 4 px\n"


def test_an_assessment_in_lines() -> None:
    assert list(assessment_lines(ASSESSMENT)) == [
        "Design-based estimates.",
        "overall accuracy 0.750, mean IoU absent",
        "overall accuracy 0.800 ± 0.100 (95% interval)",
        "forest: 12.3 ± 1.5 ha",
        "warning: Few points.",
        "report: o/assess.html",
    ]


def test_quiet_prints_nothing(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*MAP, "--quiet"]) == 0
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["fly"],
        ["map", "--nonsense"],
        ["map", "scene.tif", "--labels", "l.gpkg"],
        ["map", "--out", "out"],
        [*MAP, "--seed", "x"],
        [*MAP, "--effort", "slow", "--crop-px", "7"],
        [*MAP, "--config", "missing.yaml"],
        ["predict", "model", "--out", "o"],
        ["predict", "model", "a.tif", "--out", "o", "--tile-px", "0"],
        ["assess", "m", "--reference", "r", "--out", "o", "--design", "guess"],
        ["info"],
        ["demo"],
    ],
)
def test_wrong_input_ends_with_2_and_no_traceback(
    arguments: list[str], api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "rror" in captured.err
    assert "Traceback" not in captured.err
    assert api.calls == []


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (GeoError("scene.tif: band 3: truncated"), 2, "berunda: error: scene.tif: band 3: truncated\n"),
        (OutputError("out: disk full"), 1, "berunda: error: out: disk full\n"),
        (KeyError("x"), 1, "--debug for the traceback\n"),
        (OSError(28, "No space left on device", "out/map.tif"), 1, "out/map.tif: No space left on device\n"),
        (MemoryError(), 1, "out of memory"),
        (KeyboardInterrupt(), 130, "stopped by the keyboard"),
    ],
)
def test_errors_become_one_line_and_a_code(
    error: BaseException, code: int, words: str, api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    api.error = error
    assert main(MAP) == code
    text = capsys.readouterr().err
    assert words in text
    assert text.count("\n") == 1
    assert main([*MAP, "--debug"]) == code
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_a_closed_pipe_is_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    code = "import sys; from berunda.cli.session import *; "
    code += "sys.exit(exit_code_of(lambda: print('x' * 99), Session()))"
    done = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_the_module_runs_as_the_command_does() -> None:
    done = subprocess.run([*RUN, "map"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--out" in done.stderr


def test_doctor_prints_what_is_missing_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    findings = [
        SimpleNamespace(name="torch", status="ok", found="2.9", advice=""),
        SimpleNamespace(name="drivers", status="missing", found="without COG", advice="install rasterio"),
    ]
    monkeypatch.setattr("berunda.doctor.examine", lambda: findings)
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "missing  drivers  without COG" in text
    assert "drivers: install rasterio" in text
    monkeypatch.setattr("berunda.doctor.examine", lambda: findings[:1])
    assert main(["doctor"]) == 0
