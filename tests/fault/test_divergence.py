"""A run that goes wrong is stopped before the update, and says where."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy_training import SPEC, Toy, ToySource

from berunda.errors import DivergedError
from berunda.train.checkpoint import load_checkpoint
from berunda.train.config import TrainConfig
from berunda.train.log import Monitor
from berunda.train.loop import train
from berunda.train.watch import drift

CONFIG = TrainConfig(steps=100, n_labelled=4, checkpoint_every=30)


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("nan", r"term 'consistency' is nan"),
        ("inf", r"term 'consistency' is inf"),
        ("term", r"term 'consistency' is nan"),
        ("gradient", r"the norm of the gradient is (nan|inf)"),
        ("huge", r"the total loss is 1e\+09"),
    ],
)
def test_faults_stop_the_run_at_once(kind: str, named: str, tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=named) as raised:
        train(Toy(faults={37: kind}), SPEC, ToySource(), CONFIG, folder=tmp_path)
    message = str(raised.value)
    assert "step 37 of stage 'toy'" in message
    assert "batch of labelled samples " in message
    assert "unlabelled samples " in message
    assert "no update was made from it" in message
    assert "\n" not in message
    checkpoint = load_checkpoint(tmp_path / "checkpoints")
    assert checkpoint is not None
    assert checkpoint.step == 30
    assert all(torch.isfinite(v).all() for n, v in checkpoint.tensors.items() if not n.startswith("log."))


@pytest.mark.parametrize("kind", ["nan", "gradient", "huge"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_late_looks_still_block_the_update(kind: str, optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked at every 10 steps only: the device itself must refuse the updates of steps 33 to 39."""
    seen: dict[int, list[torch.Tensor]] = {}
    look = Monitor.look
    nets = []

    class Watched(Toy):
        def build(self, spec):  # type: ignore[no-untyped-def]
            nets.append(super().build(spec))
            return nets[-1]

    def looked(self: Monitor) -> None:
        seen[len(seen)] = [p.detach().clone() for p in nets[-1].parameters()]
        look(self)

    monkeypatch.setattr(Monitor, "look", looked)
    config = replace(CONFIG, steps=60, check_every=10, optimizer=optimizer, checkpoint_every=0)
    with pytest.raises(DivergedError, match="step 33 of"):
        train(Watched(faults={33: kind}), SPEC, ToySource(), config)
    blocked = seen[len(seen) - 1]
    with pytest.raises(DivergedError, match="step 33 of"):
        train(Watched(faults={33: kind}), SPEC, ToySource(), replace(config, check_every=1))
    stopped = seen[len(seen) - 1]
    assert all(torch.equal(a, b) for a, b in zip(blocked, stopped, strict=True))


def test_a_slow_drift_is_stopped_within_50_steps() -> None:
    with pytest.raises(DivergedError, match="the loss drifted from") as raised:
        train(Toy(faults={-1: "drift"}), SPEC, ToySource(), replace(CONFIG, steps=200))
    step = int(str(raised.value).split("at step ")[1].split(" ")[0])
    assert 25 < step <= 75


def test_drift_is_seen_in_either_direction_and_not_in_sound_losses() -> None:
    assert drift([0.7 - 0.6 * i / 500 for i in range(500)]) is None
    assert drift([50.0 * 0.99**i for i in range(500)]) is None
    assert drift([1.0, 900.0, 1.0] * 30) is None  # single spikes are no drift
    assert drift([0.0] * 20 + [-2.0 * i for i in range(50)]) is not None
    assert drift([1e3 * 1.05**i for i in range(70)]) is not None


def test_a_bad_state_is_never_checkpointed(tmp_path: Path) -> None:
    config = replace(CONFIG, check_every=50, checkpoint_every=5)
    with pytest.raises(DivergedError, match="step 12 of"):
        train(Toy(faults={12: "nan"}), SPEC, ToySource(), config, folder=tmp_path)
    checkpoint = load_checkpoint(tmp_path / "checkpoints")
    assert checkpoint is not None
    assert checkpoint.step == 10
