"""A run that diverges goes back to a good checkpoint with smaller steps and says so, or ends with a clear error."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from killing import Loud
from torch import Tensor, nn
from toy_methods import TaskSource
from toy_training import SPEC, ToySource, digest

from berunda.data.order import Randomness
from berunda.errors import DivergedError
from berunda.methods import make_method
from berunda.methods._checking.trial import PointNet
from berunda.methods.contract import Batch, Loss, Method, Needs, NetSpec, Step, View
from berunda.methods.jem import JEM
from berunda.progress import Silent
from berunda.train.checkpoint import load_checkpoint
from berunda.train.config import TrainConfig
from berunda.train.loop import Trained, train
from berunda.train.watch import Watch, drift

CONFIG = TrainConfig(steps=60, n_labelled=4, checkpoint_every=20, workers=0, device="cpu")
KINDS = ("nan", "inf", "huge", "drift", "energies")


class Heard(Silent):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@dataclass(frozen=True)
class Unsteady(Method):
    """Cross-entropy that goes wrong from step 33 on, as `kind` says, while its steps are larger than `heals`."""

    name: ClassVar[str] = "unsteady"
    kind: str = ""
    heals: float = 0.6
    returns: int = 3
    calls: list[int] = field(default_factory=list, compare=False)

    def needs(self) -> Needs:
        return Needs(
            tasks=("segmentation",),
            unlabelled=(View("weak", "weak"),),
            unlabelled_ratio=1.0,
            watched=(("energy", 100.0),),
            returns=self.returns,
        )

    def build(self, spec: NetSpec) -> nn.Module:
        return PointNet(spec)

    def init(self, net: nn.Module, spec: NetSpec) -> nn.Module:
        extra = nn.Module()
        extra.register_buffer("step_share", torch.ones(()))
        return extra

    def calmed(self, extra: nn.Module) -> Mapping[str, Tensor]:
        return {"step_share": extra.get_buffer("step_share") / 2}

    def loss(self, net: nn.Module, extra: nn.Module, batch: Batch, step: Step, rng: Randomness) -> Loss:
        images = batch.labelled["weak"]
        assert images.labels is not None
        total = nn.functional.cross_entropy(net(images.pixels), images.labels, ignore_index=-1)
        energy = total.detach()
        if step.index >= 33 and float(extra.get_buffer("step_share")) > self.heals:
            late = step.index - 32
            total = total * {"nan": float("nan"), "inf": float("inf"), "huge": 1e12}.get(self.kind, 1.0)
            total = total * 1.3**late if self.kind == "drift" else total
            energy = energy - 2.0**late if self.kind == "energies" else energy
        return Loss(total, {"supervised": total.detach(), "energy": energy})


def run(method: Method, folder: Path | None, heard: Heard | None = None, steps: int = 60) -> Trained:
    return train(method, SPEC, ToySource(), replace(CONFIG, steps=steps), folder=folder, progress=heard)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_is_found_and_mended_by_smaller_steps(kind: str, tmp_path: Path) -> None:
    heard = Heard()
    trained = run(Unsteady(kind=kind), tmp_path, heard)
    assert len(trained.returned) == 1
    assert trained.returned[0] in heard.notes
    assert "went back to step 20" in trained.returned[0] or "went back to step 40" in trained.returned[0]
    assert "from there on steps are half as large (1 of 3 returns)" in trained.returned[0]
    assert float(trained.extra.get_buffer("step_share")) == 0.5
    assert [row["step"] for row in trained.log] == list(range(60))
    assert all(torch.isfinite(p).all() for p in trained.net.parameters())
    rates = {row["step"]: row["learning_rate"] for row in trained.log}
    whole = {row["step"]: row["learning_rate"] for row in run(Unsteady(), None).log}
    assert rates[10] == whole[10]
    assert rates[50] == pytest.approx(whole[50] / 2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_that_stays_ends_with_an_error(kind: str, tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match="it went back 3 times before, with smaller steps each time") as raised:
        run(Unsteady(kind=kind, heals=0.0), tmp_path)
    assert "of stage 'unsteady'" in str(raised.value)
    newest = load_checkpoint(tmp_path / "checkpoints")
    assert newest is not None
    assert all(torch.isfinite(v).all() for n, v in newest.tensors.items() if not n.startswith("log."))


def test_a_checkpoint_that_leads_nowhere_is_left_for_an_older_one(tmp_path: Path) -> None:
    trained = run(Unsteady(kind="nan", heals=0.2), tmp_path)
    assert [text.split("went back to step ")[1].split(",")[0] for text in trained.returned] == ["20", "0", "20"]


@pytest.mark.parametrize("folder", [True, False])
def test_without_returns_or_checkpoints_the_run_ends(folder: bool, tmp_path: Path) -> None:
    method = Unsteady(kind="nan", returns=0) if folder else Unsteady(kind="nan")
    with pytest.raises(DivergedError, match="step 33 of stage"):
        run(method, tmp_path if folder else None)


def test_a_run_that_went_back_and_was_stopped_ends_the_same(tmp_path: Path) -> None:
    class Stops(Loud):
        def advance(self, n: int = 1, **figures: float) -> None:
            if self.stopped is False and figures.get("loss") is not None and len(self.seen) > 45:
                self.stopped = True
                raise KeyboardInterrupt
            self.seen.append(n)

        seen: ClassVar[list[int]] = []
        stopped = False

    whole = digest(run(Unsteady(kind="nan"), tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        train(Unsteady(kind="nan"), SPEC, ToySource(), CONFIG, folder=tmp_path / "cut", progress=Stops())
    newest = load_checkpoint(tmp_path / "cut" / "checkpoints")
    assert newest is not None
    assert newest.meta["attempt"] == 1
    resumed = run(Unsteady(kind="nan"), tmp_path / "cut")
    assert digest(resumed) == whole
    assert len(resumed.returned) == 1


@dataclass(frozen=True)
class Tiny(JEM):
    """JEM on a net of single pixels."""

    def build(self, spec: NetSpec) -> nn.Module:
        return PointNet(spec)


def tiny_jem(options: dict[str, Any], folder: Path, method: type[JEM] = Tiny) -> Trained:
    spec = NetSpec("scene", 4, 3, pretrained=False, crop_px=12)
    settings = {"replay": 64, "variant": "sada", "rate": 1.0, **options}
    config = replace(CONFIG, steps=120, learning_rate=0.05)
    return train(method(**settings), spec, TaskSource(task="scene"), config, folder=folder)


def test_a_sound_jem_is_none_that_went_back(tmp_path: Path) -> None:
    assert tiny_jem({}, tmp_path).returned == ()


@pytest.mark.parametrize(
    "options",
    [{"step_size": 100.0}, {"n_steps": 1}, {"lambda_p": 100.0, "n_steps": 1, "restart": 1.0, "clip_norm": 0.0}],
)
def test_a_jem_that_comes_to_its_end_is_a_sound_one(options: dict[str, float], tmp_path: Path) -> None:
    """Long steps of chains, short chains, and a likelihood that outweighs the labels by far."""
    try:
        last = tiny_jem(options, tmp_path).log[-20:]
    except DivergedError:
        return  # what it says is the next tests' matter
    assert statistics.median(abs(row["likelihood"]) for row in last) < 10
    assert statistics.median(row["saturated"] for row in last) < 0.5
    assert all(abs(row[name]) < 100 for row in last for name in ("energy_data", "energy_samples"))


def test_a_likelihood_that_no_chain_follows_ends_the_run(tmp_path: Path) -> None:
    """Samples that are noise each time: images become likelier than them without end."""
    still = {"lambda_p": 100.0, "n_steps": 1, "restart": 1.0, "step_size": 1e-9, "variant": "jem", "clip_norm": 0.0}
    with pytest.raises(DivergedError, match="it went back 5 times before"):
        tiny_jem(still, tmp_path)


@dataclass(frozen=True)
class Hurt(Tiny):
    """JEM into which a fault is put at step 33, as `fault` says; it ends when the run has gone back."""

    fault: str = ""

    def loss(self, net: nn.Module, extra: nn.Module, batch: Batch, step: Step, rng: Randomness) -> Loss:
        at_work = step.index >= 33 and float(extra.get_buffer("step_share")) == 1
        with torch.no_grad():
            if at_work and self.fault in ("nan", "inf") and step.index == 33:
                next(net.parameters()).view(-1)[0] = float(self.fault)
            if at_work and self.fault == "drift":
                for parameter in net.parameters():
                    parameter.mul_(1.2)
            if at_work and self.fault == "lost chains":
                extra.get_buffer("replay").copy_(3 * extra.get_buffer("replay").sign())
        return super().loss(net, extra, batch, step, rng)


@pytest.mark.parametrize("fault", ["nan", "inf", "drift", "lost chains"])
def test_a_fault_put_into_jem_is_found_and_mended(fault: str, tmp_path: Path) -> None:
    trained = tiny_jem({"fault": fault, "restart": 0.0, "n_steps": 1}, tmp_path, Hurt)
    assert trained.returned
    assert all(torch.isfinite(p).all() for p in trained.net.parameters())
    assert statistics.median(abs(row["likelihood"]) for row in trained.log[-20:]) < 10
    assert statistics.median(row["saturated"] for row in trained.log[-20:]) < 0.5


def test_chains_that_are_lost_begin_anew_when_a_run_goes_back() -> None:
    extra = nn.Module()
    method = JEM(replay=4)
    method.chains.add_to(extra, NetSpec("scene", 4, 3, pretrained=False, crop_px=12))
    extra.get_buffer("begun").fill_(1)
    extra.get_buffer("replay")[1] = 1.0
    extra.get_buffer("replay")[2, 0, 0] = -3.0
    extra.get_buffer("replay")[3] = float("nan")
    calmed = method.calmed(extra)
    assert calmed["begun"].tolist() == [1, 0, 1, 0]
    assert float(calmed["step_share"]) == 0.5


def test_a_run_whose_checkpoints_are_damaged_ends_with_its_own_error(tmp_path: Path) -> None:
    class Damages(Heard):
        def advance(self, n: int = 1, **figures: float) -> None:
            for file in (tmp_path / "checkpoints").glob("*/state.safetensors"):
                file.write_bytes(b"damaged")

    with pytest.raises(DivergedError, match=r"step 33 of stage .* cannot go back either: .* is whole"):
        run(Unsteady(kind="nan"), tmp_path, Damages())


def test_incidents_that_lie_far_apart_count_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each return heals the fault for a while; with one return allowed the second incident ends the run, if near."""

    @dataclass(frozen=True)
    class Again(Unsteady):
        def loss(self, net: nn.Module, extra: nn.Module, batch: Batch, step: Step, rng: Randomness) -> Loss:
            loss = super().loss(net, extra, batch, step, rng)
            share = float(extra.get_buffer("step_share"))
            is_hit = (step.index >= 15 and share == 1) or (step.index >= 55 and share == 0.5)
            return replace(loss, total=loss.total * float("nan")) if is_hit else loss

    with pytest.raises(DivergedError, match="it went back 1 times before"):
        run(Again(returns=1), tmp_path / "near")
    monkeypatch.setattr("berunda.train.run._SOUND_STEPS", 50)
    assert len(run(Again(returns=1), tmp_path / "far").returned) == 2


def test_after_a_return_the_rate_rises_anew(tmp_path: Path) -> None:
    trained = run(Unsteady(kind="nan"), tmp_path)
    whole = {row["step"]: row["learning_rate"] for row in run(Unsteady(), None).log}
    shares = {row["step"]: row["learning_rate"] / whole[row["step"]] for row in trained.log}
    assert shares[19] == 1
    assert [shares[step] for step in (20, 24, 29, 40)] == pytest.approx([0.05, 0.25, 0.5, 0.5])


@pytest.mark.parametrize(
    "losses",
    [
        [2, 50, 1e4, *[1e5] * 100],  # at once
        [2, 2, 2, 2, *[100] * 60],  # within the first ten steps
        [-0.5, *[-40] * 60],
    ],
)
def test_a_blow_up_in_the_first_steps_does_not_become_the_level(losses: list[float]) -> None:
    assert drift(losses) is not None


def test_terms_may_not_stay_beyond_their_bounds() -> None:
    watch = Watch(bounds=(("gap", 10.0),), rows=[{"total": 1.0, "gap": 30.0}] * 5)
    told = [watch.drifted({"total": 1.0, "gap": -20.0 if step % 2 else 20.0}) for step in range(20)]
    assert not any(told[:14])
    assert told[14] == "term 'gap' stays at 20, beyond 10"
    mild = Watch(bounds=(("gap", 10.0),))
    assert not any(mild.drifted({"total": 1.0, "gap": 9.0 if step % 3 else 500.0}) for step in range(100))


def test_energies_that_run_away_together_are_found_though_their_difference_is_small() -> None:
    levels = [-2.0] * 20 + [-2.0 - 3.0 * i for i in range(100)]
    watch, blind = Watch((("energy_data", 100.0),)), Watch()
    found = [watch.drifted({"total": 0.5, "energy_data": level}) for level in levels]
    assert found[60] == ""  # levels may wander
    assert "term 'energy_data' drifted from -2 to -" in found[-1]
    assert not any(blind.drifted({"total": 0.5, "energy_data": level}) for level in levels)


def _found(losses: list[float], rows: int = 0) -> str:
    """Return what a watch says of the last of some supervised losses, `rows` of which were made before a resume."""
    told = [{"total": loss, "supervised": loss} for loss in losses]
    watch, deaf = Watch(rows=told[:rows], hears_silence=True), Watch(rows=told[:rows])
    heard = [deaf.drifted(figures) for figures in told[rows:]]
    assert not any("answers the same" in text for text in heard), "a run that cannot go back does not end by it"
    return [watch.drifted(figures) for figures in told[rows:]][-1]


def test_a_net_that_answers_the_same_to_everything_is_found_though_its_loss_is_that_of_an_untrained_one() -> None:
    lively = [2.3, 2.25] * 10 + [2.1, 1.7] * 30
    silent = [2.3 + 0.002 * (n % 5) for n in range(20)]
    assert _found([*lively, *silent[:19]]) == ""  # a bad stretch is none yet
    for rows in (0, 30, 90):
        text = "term 'supervised' stays at 2.304, where it began: the net answers the same to everything"
        assert _found([*lively, *silent], rows) == text


@pytest.mark.parametrize(
    "losses",
    [
        [2.3] * 100,  # it was never anything else
        [2.3, 2.25] * 10 + [1.2, 1.4] * 20 + [2.2, 2.4] * 20,  # it is as bad as in the beginning, and lives
        [2.3, 2.25] * 10 + [1.5, 1.0] * 20 + [1.5] * 40,  # it became quiet, and knows something
        [2.3, 2.28] * 10 + [2.1, 2.12] * 50,  # it learns slowly, in large batches
        [2.3, 2.1] * 20 + [900.0] * 4 + [2.3, 2.1] * 60,  # a spike is no measure of what is quiet
        [2.3, 2.28] * 20 + [9.0, 5.0] * 4 + [2.3, 2.28] * 20,  # nor is a stretch that ran away
        [0.3, 0.2] * 40 + [0.3] * 40,  # a later stage, which began well
    ],
)
def test_an_uneven_or_slow_loss_is_not_taken_for_such_a_net(losses: list[float]) -> None:
    assert _found(losses) == ""


@pytest.mark.parametrize("name", ["jem", "segjem", "fixmatch_jem", "vae", "hvae"])
def test_every_generative_method_asks_for_returns(name: str) -> None:
    assert make_method(name).needs().returns > 0


@pytest.mark.parametrize("name", ["jem", "segjem", "fixmatch_jem"])
def test_every_energy_method_has_its_energies_and_chains_watched(name: str) -> None:
    needs = make_method(name).needs()
    assert set(dict(needs.watched)) == {"energy_data", "energy_samples"}
    assert set(dict(needs.bounds)) == {"supervised", "gap", "saturated"}
    assert "gap" not in dict(make_method(name, {"lambda_p": 0.0}).needs().bounds)
