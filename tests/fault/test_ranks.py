"""Two ranks on the CPU: the same gradients as one, resumed bit by bit, and none waits for one that is gone."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from toy_ranks import LONG, LOOP, METHODS, Remembering, after_one_step, launch
from toy_training import SPEC, Toy, ToySource, digest

from berunda.cli.session import Session, exit_code_of
from berunda.errors import CheckpointError, DataError
from berunda.progress import Silent
from berunda.train.checkpoint import load_checkpoint
from berunda.train.loop import train

PATIENCE_S = 240  # on a busy machine


def _finish(child: subprocess.Popen[str]) -> str:
    """Wait for the ranks to end and return what they complained of."""
    try:
        return child.communicate(timeout=PATIENCE_S)[1]
    finally:
        child.terminate()


def _run(task: str, folder: Path) -> list[dict[str, Any]]:
    child = launch(task, folder)
    complaints = _finish(child)
    assert child.returncode == 0, complaints
    return [json.loads((folder / f"{task}-{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def stepped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what one step on two ranks leads to."""
    folder = tmp_path_factory.mktemp("gradients")
    _run("gradients", folder)
    return folder


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The folder and the findings of the trainings of `toy_ranks`."""
    folder = tmp_path_factory.mktemp("resumes")
    return folder, _run("resumes", folder)


@pytest.mark.parametrize("case", METHODS)
def test_two_ranks_find_the_gradients_of_one(stepped: Path, case: str) -> None:
    """Weights move by 1.9 gradients in the first step; running class shares and figures agree as well."""
    ranks = [load_file(stepped / f"{case}-False-{rank}.safetensors") for rank in range(2)]
    assert all(torch.equal(ranks[0][name], ranks[1][name]) for name in ranks[0])
    tensors, figures = after_one_step(case)
    for name, value in tensors.items():
        torch.testing.assert_close(ranks[0][name], value, rtol=0, atol=1e-8)
    for name, figure in figures.items():
        assert ranks[0][f"figure.{name}"].item() == pytest.approx(figure, rel=1e-6, abs=1e-7)
    assert figures["gradient_norm"] > 0.1


def test_batch_norm_makes_a_difference_that_is_small_and_the_same_on_all_ranks(stepped: Path) -> None:
    ranks = [load_file(stepped / f"supervised-True-{rank}.safetensors") for rank in range(2)]
    assert all(torch.equal(ranks[0][name], ranks[1][name]) for name in ranks[0])
    tensors, figures = after_one_step("supervised", norm=True)
    assert not torch.equal(ranks[0]["net.body.weight"], tensors["net.body.weight"])
    assert ranks[0]["figure.gradient_norm"].item() == pytest.approx(figures["gradient_norm"], rel=0.05)
    torch.testing.assert_close(ranks[0]["net.norm.running_mean"], tensors["net.norm.running_mean"])


def test_ranks_agree_and_resume_bit_by_bit(resumed: tuple[Path, list[dict[str, Any]]]) -> None:
    first, second = resumed[1]
    for found in (first, second):
        assert found["bit-exact True"]
        assert found["bit-exact False"]
        assert found["counted True"] == 4  # 2 images a rank, added up
        assert found["failed True"] == "ValueError: this image cannot be read"
    assert first["shared True"] == second["shared True"]
    assert first["shared False"] == second["shared False"]
    assert first["own True"] != second["own True"]


def test_ranks_stop_together(resumed: tuple[Path, list[dict[str, Any]]]) -> None:
    first, second = resumed[1]
    assert first["diverged"] == second["diverged"]
    assert "term 'consistency' is nan" in first["diverged"]
    assert first["unlike"] == second["unlike"]
    assert "ConfigError: training on 2 ranks: found settings or data that differ between them" in first["unlike"]
    assert first["uneven"] == second["uneven"]
    assert "training on 2 ranks: a step has 3 labelled images, expected a multiple" in first["uneven"]
    assert "rank 1 ended with ValueError: this image cannot be read" in first["failed on one"]
    assert second["failed on one"] == "ValueError: this image cannot be read"


def test_one_group_does_several_trainings(resumed: tuple[Path, list[dict[str, Any]]]) -> None:
    first, second = resumed[1]
    assert first["together"] == second["together"]
    assert len(set(first["together"])) == 1
    assert first["waited"] == "ValueError: nothing to train with"
    assert "training on 2 ranks: rank 0 ended with ValueError: nothing to train with, so rank 1" in second["waited"]


def test_ranks_but_the_first_print_errors_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> None:
        session.say("something")
        session.progress.note("something")
        raise DataError("the data are wrong")

    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    session = Session()
    assert exit_code_of(fails, session) == 2
    assert capsys.readouterr() == ("", "berunda (rank 1): error: the data are wrong\n")


def test_a_rank_can_train_alone(resumed: tuple[Path, list[dict[str, Any]]]) -> None:
    alone = digest(train(Toy(), SPEC, ToySource(), LOOP))
    assert [found["alone"] for found in resumed[1]] == [alone, alone]


def test_another_number_of_ranks(resumed: tuple[Path, list[dict[str, Any]]]) -> None:
    """With shards it is refused; without, it is said that the bits differ."""
    folder = resumed[0]
    shards = sorted(path.name for path in (folder / "keeps-True").glob("checkpoints/step-00000009/shard-*"))
    assert shards == ["shard-0000.safetensors", "shard-0001.safetensors"]
    own = [load_checkpoint(folder / "keeps-True" / "checkpoints", rank) for rank in range(2)]
    seen = [found.tensors["extra.seen"] for found in own if found is not None]
    assert not torch.equal(seen[0], seen[1])
    with pytest.raises(CheckpointError, match=r"holds buffers \(seen\) of each of 2 ranks, found 1 ranks; start 2"):
        train(Remembering(), SPEC, ToySource(), LOOP, folder=folder / "keeps-True")
    (folder / "keeps-True/checkpoints/step-00000009/shard-0001.safetensors").write_bytes(b"")
    earlier = load_checkpoint(folder / "keeps-True" / "checkpoints")
    assert earlier is not None
    assert earlier.step == 6

    class Notes(Silent):
        said = ""

        def note(self, text: str) -> None:
            self.said += text

    notes = Notes()
    train(Remembering(keeps=False), SPEC, ToySource(), LOOP, folder=folder / "keeps-False", progress=notes)
    assert "the checkpoint is of 2 ranks, now 1: sums are rounded differently" in notes.said


def test_ranks_go_back_together(tmp_path: Path) -> None:
    """Only one of them meets the fault: both go back to the same step, and end with the same weights."""
    first, second = _run("returns", tmp_path)
    back = {"once": ["3"], "twice": ["3", "0"]}
    for name, steps in back.items():
        assert first[f"{name} told"] == second[f"{name} told"]
        assert [re.findall(r"went back to step (\d+), ", text) for text in first[f"{name} told"]] == [
            [n] for n in steps
        ]
        assert all("at step 5 of stage 'toy': " in text for text in first[f"{name} told"])
        for found in (first, second):
            assert found[f"{name} steps"] == list(range(9))
            assert found[f"{name} share"] == 0.5 ** len(steps)
        assert first[f"{name} shared"] == second[f"{name} shared"]
        assert first[f"{name} own"] != second[f"{name} own"]
    for found in (first, second):
        assert found["cut"] == "ValueError: this image cannot be read"
        assert found["resumed"] == found["once all"]
    assert first["stays"] == second["stays"]
    assert "it went back 3 times before, with smaller steps each time" in first["stays"]
    assert all("the ranks find none and that of step 3 after 0 returns" in found["apart"] for found in (first, second))
    assert first["looks"] == second["looks"]
    assert "found settings or data that differ between them" in first["looks"]


def _wait(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _strike(folder: Path, number: signal.Signals, rank: int) -> tuple[float, str]:
    """Start a long training, strike a rank after the fifth step; return how long the other went on and what it said."""
    steps = folder / "steps"
    with launch("long", folder) as child:
        try:
            _wait(lambda: steps.exists() and len(steps.read_text().splitlines()) >= 5)
            processes = [int((folder / f"process-{rank}").read_text()) for rank in range(2)]
            os.kill(processes[rank], number)
            struck = time.monotonic()
            _wait(lambda: not _lives(processes[1 - rank]))
            seconds = time.monotonic() - struck
            if _lives(processes[rank]):
                os.kill(processes[rank], signal.SIGKILL)
            complaints = _finish(child)
            assert child.returncode != 0
        finally:
            child.kill()
    return seconds, complaints


def _lives(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.parametrize(
    ("number", "rank", "says"),
    [
        (signal.SIGKILL, 1, "training on 2 ranks: rank 1 g"),
        (signal.SIGSTOP, 0, "rank 0 gave no sign of life for 3 s: it was killed or hangs, so rank 1 ends too"),
    ],
)
def test_a_rank_that_is_gone_ends_the_other(tmp_path: Path, number: signal.Signals, rank: int, says: str) -> None:
    seconds, complaints = _strike(tmp_path, number, rank)
    n_waiting = os.getloadavg()[0] / (os.cpu_count() or 1)
    assert seconds < 10 * max(1.0, n_waiting)
    assert says in complaints, complaints
    assert "start the same command again to go on from the last checkpoint" in complaints
    newest = load_checkpoint(tmp_path / "run" / "checkpoints")
    assert newest is not None
    assert newest.step >= 3


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_what_was_killed_resumes_bit_by_bit(tmp_path: Path, rank: int) -> None:
    whole, struck = tmp_path / "whole", tmp_path / "struck"
    whole.mkdir()
    struck.mkdir()
    expected = _run("long", whole)
    _strike(struck, signal.SIGKILL, rank)
    newest = load_checkpoint(struck / "run" / "checkpoints")
    assert newest is not None
    assert 0 < newest.step < LONG.steps
    assert _run("long", struck) == expected


@pytest.mark.slow
def test_sigterm_to_the_launcher_leaves_a_checkpoint(tmp_path: Path) -> None:
    steps = tmp_path / "steps"
    with launch("long", tmp_path) as child:
        _wait(lambda: steps.exists() and len(steps.read_text().splitlines()) >= 5)
        n_done = len(steps.read_text().splitlines())
        child.terminate()
        _finish(child)
    newest = load_checkpoint(tmp_path / "run" / "checkpoints")
    assert newest is not None
    assert newest.step >= n_done
    assert newest.step % 3 or newest.step > n_done
