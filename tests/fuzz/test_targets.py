"""The corpus replayed, and a short search for more; see tests/helpers/fuzzing.py for the rules and a longer one."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("resource")

from fuzz_targets import TARGETS
from fuzzing import CORPUS, Target, corpus, fault_of, fuzz

from berunda.errors import ConfigError, GeoError


def test_each_target_has_its_corpus() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_goes_well(name: str) -> None:
    inputs = corpus(name)
    assert len(inputs) >= 8
    assert {key: fault for key, data in inputs.items() if (fault := fault_of(TARGETS[name], data))} == {}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TARGETS)
def test_some_of_the_corpus_is_taken(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the targets would only ever see the first check fail."""
    monkeypatch.chdir(tmp_path)
    taken = []
    for key, data in corpus(name).items():
        (tmp_path / key).mkdir()
        monkeypatch.chdir(tmp_path / key)
        try:
            TARGETS[name].run(data, tmp_path / key)
        except Exception:
            continue
        taken.append(key)
    assert len(taken) >= 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TARGETS)
def test_mutations_find_nothing(name: str) -> None:
    found = fuzz(name, TARGETS[name], seconds=40, seed=0)
    assert next(((fault, data[:2000]) for data, fault in found), None) is None


def _connects(data: bytes, folder: Path) -> None:
    with socket.socket() as opened:
        opened.settimeout(0.1)
        opened.connect_ex(("127.0.0.1", 9))


def _writes_outside(data: bytes, folder: Path) -> None:
    (folder.parent / f"{folder.name}.outside").write_bytes(b"")
    (folder.parent / f"{folder.name}.outside").unlink()


def _reads_outside(data: bytes, folder: Path) -> None:
    Path("/etc/hostname").exists() and open("/etc/hostname").close()


def _computes(data: bytes, folder: Path) -> None:
    while True:
        pass


def _waits(data: bytes, folder: Path) -> None:
    time.sleep(100)


@pytest.mark.parametrize("run", [_computes, _waits])
def test_what_takes_long_is_found(run: Callable[[bytes, Path], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fuzzing.SECONDS", 0.1)
    assert fault_of(Target(run), b"") == "took over 0.1 s"


def _raises(error: Exception) -> Target:
    def run(data: bytes, folder: Path) -> None:
        raise error

    return Target(run)


@pytest.mark.parametrize(
    ("target", "told"),
    [
        (Target(_connects), "reached outside: socket.connect"),
        (Target(_writes_outside), "reached outside: open"),
        (Target(_reads_outside), "reached outside: open '/etc/hostname'"),
        (_raises(ValueError("x")), "ValueError: x"),
        (_raises(RecursionError()), "RecursionError"),
    ],
)
def test_the_guard_sees_what_it_should(target: Target, told: str) -> None:
    assert str(fault_of(target, b"")).startswith(told)


@pytest.mark.parametrize("error", [GeoError, ConfigError])
def test_what_a_message_quotes_is_escaped_and_cut(error: type[Exception]) -> None:
    quoted = str(error("a\nb \x1b[2J \u202e \ud800 " + "x" * 100_000 + " end"))
    assert quoted.startswith("a\\nb \\x1b[2J \\u202e \\ud800 xxx")
    assert quoted.endswith(" end")
    assert len(quoted) < 2100
    assert fault_of(_raises(error("a\n\x1b")), b"") is None
