"""A checkpoint is either whole and verified, or not there, whatever fails while it is written."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import nn
from toy_methods import TaskSource
from toy_training import SPEC, Toy, ToySource, digest

from berunda.errors import CheckpointError, OutputError
from berunda.methods._checking.trial import PointNet
from berunda.methods.contract import NetSpec
from berunda.methods.jem import JEM
from berunda.train.checkpoint import Files, load_checkpoint, save_checkpoint
from berunda.train.config import TrainConfig
from berunda.train.loop import train

CONFIG = TrainConfig(steps=12, n_labelled=4, checkpoint_every=3)


class FailingFiles(Files):
    """Fails at the n-th operation, before it or with it half done, and at every one after it."""

    def __init__(self, fail_at: int, *, half: bool) -> None:
        self.fail_at, self.half, self.n = fail_at, half, 0

    def _fails(self) -> bool:
        self.n += 1
        return self.n >= self.fail_at

    def make_folder(self, path: Path) -> None:
        self._guard(lambda: super(FailingFiles, self).make_folder(path))

    def write(self, path: Path, content: bytes) -> None:
        if self._fails():
            if self.half and self.n == self.fail_at:
                path.write_bytes(content[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write(path, content)

    def flush(self, path: Path) -> None:
        self._guard(lambda: super(FailingFiles, self).flush(path))

    def rename(self, source: Path, target: Path) -> None:
        self._guard(lambda: super(FailingFiles, self).rename(source, target))

    def remove(self, path: Path) -> None:
        if self._fails():
            if self.half and self.n == self.fail_at:
                next(iter(sorted(path.iterdir()))).unlink()
            raise OSError(errno.EIO, "Input/output error")
        super().remove(path)

    def _guard(self, act: Callable[[], None]) -> None:
        if self._fails():
            if self.half and self.n == self.fail_at:
                act()  # done, but the caller was told it failed
            raise OSError(errno.EIO, "Input/output error")
        act()


def _tensors(step: int) -> dict[str, torch.Tensor]:
    return {"a": torch.full((5,), float(step)), "b": torch.arange(4)}


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("again", [False, True])
def test_every_operation_may_fail(tmp_path: Path, half: bool, again: bool) -> None:
    """After three saves and a crash, the fourth (or a damaged third once more) fails at each operation."""
    step = 30 if again else 40
    n_failures = 0
    messages: list[str] = []
    for fail_at in range(1, 100):
        folder = tmp_path / str(fail_at)
        for earlier in (10, 20, 30):
            save_checkpoint(folder, earlier, _tensors(earlier), {"step": earlier})
        (folder / ".draft-step-00000007").mkdir()
        (folder / ".draft-step-00000007" / "state.json").write_text("{")
        if again:
            (folder / "step-00000030" / "state.json").write_text("{}")
        files = FailingFiles(fail_at, half=half)
        try:
            save_checkpoint(folder, step, _tensors(step), {"step": step}, files=files)
        except OutputError as error:
            n_failures += 1
            messages.append(str(error))
        else:
            break
        found = load_checkpoint(folder)
        assert found is not None
        assert found.step in ({20, 30} if again else {30, 40})
        assert found.meta == {"step": found.step}
        assert all(torch.equal(found.tensors[k], v) for k, v in _tensors(found.step).items())
        save_checkpoint(folder, 50, _tensors(50), {"step": 50})  # and the next save works and clears up
        assert load_checkpoint(folder).step == 50  # type: ignore[union-attr]
        assert not [path for path in folder.iterdir() if path.name.startswith(".")]
        assert len(list(folder.iterdir())) <= 3
    assert n_failures >= 14
    assert all(str(tmp_path) in message for message in messages)
    assert all("bytes" in message for message in messages)


def test_the_first_save_may_fail_anywhere(tmp_path: Path) -> None:
    for fail_at in range(1, 20):
        folder = tmp_path / str(fail_at)
        try:
            save_checkpoint(folder, 1, _tensors(1), {}, files=FailingFiles(fail_at, half=True))
        except OutputError:
            found = load_checkpoint(folder)
            assert found is None or found.step == 1
        else:
            return
    pytest.fail("the save never came through")


def test_order_of_operations(tmp_path: Path) -> None:
    """Written, flushed, manifest last, folder flushed, named, parent flushed; only then the old ones go."""
    done: list[str] = []

    class Watched(Files):
        def write(self, path: Path, content: bytes) -> None:
            done.append(f"write {path.name}")
            super().write(path, content)

        def flush(self, path: Path) -> None:
            done.append(f"flush {path.name}")
            super().flush(path)

        def rename(self, source: Path, target: Path) -> None:
            done.append(f"rename {target.name}")
            super().rename(source, target)

        def remove(self, path: Path) -> None:
            done.append(f"remove {path.name}")
            super().remove(path)

    folder = tmp_path / "checkpoints"
    save_checkpoint(folder, 1, _tensors(1), {})
    save_checkpoint(folder, 2, _tensors(2), {}, keep=1, files=Watched())
    assert done == [
        "write state.safetensors", "flush state.safetensors", "write state.json", "flush state.json",
        "write manifest.json", "flush manifest.json", "flush .draft-step-00000002", "rename step-00000002",
        "flush checkpoints", "rename .trash-step-00000001", "remove .trash-step-00000001",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["state.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "empty"])
def test_damage_leads_to_the_one_before(tmp_path: Path, name: str, damage: str) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, step, _tensors(step), {"step": step})
    path = tmp_path / "step-00000002" / name
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    elif damage == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
    found = load_checkpoint(tmp_path)
    assert found is not None
    if name == "manifest.json" and damage == "flip" and found.step == 2:
        assert json.loads(path.read_bytes())["files"]  # the flipped bit hit a number that is not relied on
    else:
        assert found.step == 1
    shutil.rmtree(tmp_path / "step-00000001")
    if found.step == 1:
        with pytest.raises(CheckpointError, match=r"none of 1 is whole.*remove the folder"):
            load_checkpoint(tmp_path)


def test_a_whole_checkpoint_is_not_written_again(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, _tensors(1), {})
    save_checkpoint(tmp_path, 1, _tensors(1), {}, files=FailingFiles(1, half=False))


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path) is None
    assert load_checkpoint(tmp_path / "missing") is None


def test_the_last_three_are_kept(tmp_path: Path) -> None:
    train(Toy(), SPEC, ToySource(), CONFIG, folder=tmp_path)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-00000006", "step-00000009", "step-00000012"]
    assert sorted(path.name for path in (tmp_path / "checkpoints" / names[0]).iterdir()) == [
        "manifest.json", "state.json", "state.safetensors",
    ]  # fmt: skip


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first = train(Toy(), SPEC, ToySource(), CONFIG, folder=tmp_path)

    class NoSource(ToySource):
        def labelled(self, rng, n):  # type: ignore[no-untyped-def]
            raise AssertionError

    again = train(Toy(), SPEC, NoSource(), replace(CONFIG, workers=0), folder=tmp_path)
    assert digest(again) == digest(first)
    assert again.images_seen == first.images_seen


@pytest.mark.parametrize("staged", [False, True])
def test_resuming_from_every_checkpoint_ends_the_same(tmp_path: Path, staged: bool) -> None:
    method = Toy(staged=staged, rho=0.05)
    config = replace(CONFIG, checkpoint_every=1, keep=100)
    whole = digest(train(method, SPEC, ToySource(), config, folder=tmp_path / "whole"))
    for step in range(1, 12):
        folder = tmp_path / f"from {step}"
        shutil.copytree(tmp_path / "whole", folder)
        for path in (folder / "checkpoints").iterdir():
            if path.name > f"step-{step:08d}":
                shutil.rmtree(path)
        assert digest(train(method, SPEC, ToySource(), config, folder=folder)) == whole


def test_the_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    train(Toy(), SPEC, ToySource(), CONFIG, folder=tmp_path)
    with pytest.raises(CheckpointError, match=r"config\.seed 0 found, 1 expected"):
        train(Toy(), SPEC, ToySource(), replace(CONFIG, seed=1), folder=tmp_path)
    with pytest.raises(CheckpointError, match=r"options\.weight 0\.5 found, 0\.6 expected"):
        train(Toy(weight=0.6), SPEC, ToySource(), CONFIG, folder=tmp_path)
    train(Toy(), SPEC, ToySource(), replace(CONFIG, workers=2, keep=5), folder=tmp_path)


def test_a_second_run_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    messages = []

    class Meeting(ToySource):
        def labelled(self, rng, n):  # type: ignore[no-untyped-def]
            if not messages:
                with pytest.raises(OutputError, match="another run is using it") as raised:
                    train(Toy(), SPEC, ToySource(), CONFIG, folder=tmp_path)
                messages.append(str(raised.value))
            return super().labelled(rng, n)

    train(Toy(), SPEC, Meeting(), replace(CONFIG, workers=0), folder=tmp_path)
    assert messages


def test_a_failing_disk_stops_the_run_and_it_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = digest(train(Toy(), SPEC, ToySource(), CONFIG))
    n_writes = 0
    write = Files.write

    def full(self: Files, path: Path, content: bytes) -> None:
        nonlocal n_writes
        n_writes += 1
        if n_writes == 8:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, path, content)

    monkeypatch.setattr(Files, "write", full)
    with pytest.raises(OutputError, match="No space left on device"):
        train(Toy(), SPEC, ToySource(), CONFIG, folder=tmp_path)
    assert digest(train(Toy(), SPEC, ToySource(), CONFIG, folder=tmp_path)) == whole


@dataclass(frozen=True)
class Tiny(JEM):
    """JEM on a net of single pixels."""

    def build(self, spec: NetSpec) -> nn.Module:
        return PointNet(spec)


def test_chains_lie_in_a_checkpoint_once_and_come_back_in_both_models(tmp_path: Path) -> None:
    method, spec = Tiny(replay=16, n_steps=1), NetSpec("scene", 4, 3, pretrained=False, crop_px=12)
    config = replace(CONFIG, steps=6, workers=0, device="cpu")
    whole = train(method, spec, TaskSource(task="scene"), config, folder=tmp_path)
    checkpoint = load_checkpoint(tmp_path / "checkpoints")
    assert checkpoint is not None
    assert [name for name in checkpoint.tensors if "replay" in name] == ["extra.replay"]
    shutil.rmtree(checkpoint.folder)
    resumed = train(method, spec, TaskSource(task="scene"), config, folder=tmp_path)
    assert digest(resumed) == digest(whole)
    assert torch.equal(resumed.averaged.extra.get_buffer("replay"), resumed.extra.get_buffer("replay"))
