"""The training loop: determinism, workers, schedule, groups, stages, sharpness, average, buffers, timing."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy_training import SPEC, TinyNet, Toy, ToySource, digest

from berunda.errors import ConfigError
from berunda.models.build import build_net
from berunda.train.config import TrainConfig
from berunda.train.loop import train
from berunda.train.run import ACTIVITIES, seeded

CONFIG = TrainConfig(steps=20, n_labelled=4, learning_rate=0.01)


class Recorder:
    """Progress that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, float]] = []

    def start(self, name: str, total: int) -> None:
        self.told.append((name, total))

    def advance(self, n: int = 1, **figures: float) -> None:
        self.told.append(("advance", n))

    def note(self, text: str) -> None:
        self.told.append((text, 0))

    def finish(self) -> None:
        self.told.append(("finish", 0))


def test_same_seed_gives_the_same_trace_bit_by_bit_over_50_steps() -> None:
    config = replace(CONFIG, steps=50)
    torch.manual_seed(1)
    first = train(Toy(), SPEC, ToySource(), config)
    torch.manual_seed(2)  # the global generator is neither read nor moved
    before = torch.get_rng_state()
    second = train(Toy(), SPEC, ToySource(), config)
    assert torch.equal(torch.get_rng_state(), before)
    assert len(first.log) == 50
    assert first.log == second.log
    assert digest(first) == digest(second)
    assert digest(train(Toy(), SPEC, ToySource(), replace(config, seed=1))) != digest(first)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_workers_change_nothing(workers: int) -> None:
    source = ToySource(pause_s=0.002)
    alone = digest(train(Toy(), SPEC, source, replace(CONFIG, workers=0)))
    assert digest(train(Toy(), SPEC, source, replace(CONFIG, workers=workers))) == alone


def test_it_learns_and_the_average_predicts() -> None:
    config = replace(CONFIG, steps=150, learning_rate=0.02)
    trained = train(Toy(), SPEC, ToySource(labelled_share=1.0), config)
    assert trained.log[-1]["supervised"] < 0.6 < 0.9 < trained.log[0]["supervised"]
    images = ToySource().unlabelled(trained_rng(), 16)
    with torch.no_grad():
        predicted = trained.model.net(images.pixels).argmax(1)
    assert (predicted == images.pixels[:, :3].argmax(1)).float().mean() > 0.8
    assert not trained.model.training


def trained_rng():  # type: ignore[no-untyped-def]
    from berunda.data.order import Randomness

    return Randomness(99)


def test_log_timing_and_counts() -> None:
    recorder = Recorder()
    trained = train(Toy(), SPEC, ToySource(), CONFIG, progress=recorder)
    assert [row["step"] for row in trained.log] == list(range(20))
    assert trained.log[0].keys() == {
        "step", "stage_index", "total", "supervised", "consistency", "gradient_norm", "learning_rate",
    }  # fmt: skip
    assert trained.images_seen == 20 * (4 + 8)
    assert set(trained.timing) == set(ACTIVITIES)
    assert min(trained.timing.values()) > 0
    assert trained.seconds == pytest.approx(sum(trained.timing.values()))
    assert recorder.told[0] == ("training (toy)", 20)
    assert sum(n for what, n in recorder.told if what == "advance") == 20
    assert recorder.told[-1] == ("finish", 0)


def test_late_looks_change_nothing() -> None:
    recorder = Recorder()
    trained = train(Toy(), SPEC, ToySource(), replace(CONFIG, check_every=7), progress=recorder)
    assert digest(trained) == digest(train(Toy(), SPEC, ToySource(), CONFIG))
    assert [n for what, n in recorder.told if what == "advance"] == [0, 7, 7, 6]


def test_buffer_updates_are_written_after_the_step() -> None:
    trained = train(Toy(), SPEC, ToySource(), CONFIG)
    level = torch.zeros(())
    for row in trained.log:
        level = 0.9 * level + 0.1 * torch.tensor(row["supervised"])
    torch.testing.assert_close(trained.extra.level, level)
    torch.testing.assert_close(trained.averaged.extra.level, level)


def test_no_unlabelled_data_is_fine() -> None:
    trained = train(Toy(), SPEC, ToySource(has_unlabelled=False), CONFIG)
    assert trained.images_seen == 20 * 4
    assert {row["consistency"] for row in trained.log} == {0.0}


def test_a_batch_without_any_label_gives_loss_0_and_goes_on() -> None:
    trained = train(Toy(weight=0.0), SPEC, ToySource(labelled_share=0.0), CONFIG)
    assert {row["total"] for row in trained.log} == {0.0}
    assert all(torch.isfinite(value).all() for value in trained.net.state_dict().values())


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_groups_scale_the_rate_by_prefix(optimizer: str) -> None:
    config = replace(CONFIG, steps=3, optimizer=optimizer, clip_norm=0.0)
    frozen = train(Toy(groups=(("net.encoder", 0.0),)), SPEC, ToySource(), config)
    free = train(Toy(), SPEC, ToySource(), config)
    with seeded(_net_key(config), torch.device("cpu")):
        start = TinyNet(SPEC)
    assert torch.equal(frozen.net.encoder.weight, start.encoder.weight)
    assert not torch.equal(frozen.net.head.weight, start.head.weight)
    assert not torch.equal(free.net.encoder.weight, start.encoder.weight)


def _net_key(config: TrainConfig) -> int:
    from berunda.data.order import key_of

    return key_of(config.seed, "net")


def test_weight_decay_spares_biases_and_norms() -> None:
    config = replace(CONFIG, steps=3, weight_decay=0.9, learning_rate=0.5, warmup_steps=0)
    trained = train(Toy(weight=0.0), SPEC, ToySource(labelled_share=0.0), config)  # no gradient, only decay
    with seeded(_net_key(config), torch.device("cpu")):
        start = TinyNet(SPEC)
    assert torch.equal(trained.net.norm.weight, start.norm.weight)
    assert torch.equal(trained.net.head.bias, start.head.bias)
    assert trained.net.head.weight.norm() < 0.5 * start.head.weight.norm()


def test_clipping_bounds_the_update_of_plain_descent() -> None:
    config = replace(CONFIG, steps=1, optimizer="sgd", weight_decay=0.0, warmup_steps=0, learning_rate=1.0)
    with seeded(_net_key(config), torch.device("cpu")):
        start = TinyNet(SPEC)
    for clip in (0.01, 0.1):
        trained = train(Toy(), SPEC, ToySource(), replace(config, clip_norm=clip))
        pairs = zip(trained.net.parameters(), start.parameters(), strict=True)
        moved = torch.stack([(a - b).norm() for a, b in pairs]).norm()
        assert moved <= 1.9 * clip * 1.01  # Nesterov's first step is 1.9 gradients
        assert trained.log[0]["gradient_norm"] > clip


def test_a_method_brings_a_factor_on_the_rate_and_a_bound_on_the_gradient() -> None:
    """The same as settings of the loop; of two bounds the smaller one holds."""
    config = replace(CONFIG, steps=6, optimizer="sgd")
    for rate, own, clip, smaller in ((0.5, 0.02, 0.1, 0.02), (2.0, 0.3, 0.1, 0.1), (1.0, 0.02, 0.0, 0.02)):
        brought = train(Toy(rate=rate, clip_norm=own), SPEC, ToySource(), replace(config, clip_norm=clip))
        given = replace(config, learning_rate=rate * config.learning_rate, clip_norm=smaller)
        assert digest(brought) == digest(train(Toy(), SPEC, ToySource(), given))
        assert brought.log[0]["gradient_norm"] > 0.1
        assert max(row["learning_rate"] for row in brought.log) == rate * config.learning_rate


def test_sharpness_changes_the_gradient_and_keeps_the_statistics_of_one_pass() -> None:
    config = replace(CONFIG, steps=1)
    plain, sharp = (train(Toy(rho=rho), SPEC, ToySource(), config) for rho in (0.0, 0.05))
    assert plain.log[0]["total"] == sharp.log[0]["total"]
    assert plain.log[0]["gradient_norm"] != sharp.log[0]["gradient_norm"]
    assert torch.equal(plain.net.norm.running_mean, sharp.net.norm.running_mean)
    assert torch.equal(plain.net.norm.num_batches_tracked, sharp.net.norm.num_batches_tracked)


def test_stages_divide_the_steps_and_predict_labels() -> None:
    source = ToySource(labelled_share=0.02)
    trained = train(Toy(staged=True), SPEC, source, replace(CONFIG, steps=41))
    stages = [row["stage_index"] for row in trained.log]
    assert stages == [0] * 20 + [1] * 21
    assert trained.log[20]["learning_rate"] == trained.log[0]["learning_rate"]  # the schedule starts anew


def test_predicted_labels_fill_what_is_missing_and_keep_what_is_given() -> None:
    from berunda.train.feed import RawBatch
    from berunda.train.views import with_predicted_labels

    source = ToySource(labelled_share=0.3)
    rng = trained_rng()
    labelled, more = source.labelled(rng, 2), source.unlabelled(rng, 3)
    net = build_net(replace(SPEC, pretrained=False)).eval()
    raw = with_predicted_labels(RawBatch(labelled, None, more), net, multilabel=False)
    labels = raw.labelled.labels
    assert labels is not None
    assert labelled.labels is not None
    assert labels.shape == (5, 12, 12)
    given = labelled.labels >= 0
    assert torch.equal(labels[:2][given], labelled.labels[given])
    assert torch.equal(labels < 0, ~raw.labelled.valid)
    expected = net(more.pixels).argmax(1)
    assert torch.equal(labels[2:][more.valid], expected[more.valid])
    assert raw.labelled.index.tolist() == [*labelled.index.tolist(), -1, -1, -1]


def test_faulty_stages_are_named() -> None:
    from berunda.methods.contract import Stage
    from berunda.train.stages import plan_stages

    for stages, message in [
        ((Stage("a", 0.5),), "add up to 1"),
        ((Stage("a", 1.0, labels="predicted"),), "no stage comes before"),
        ((Stage("a", 0.99), Stage("b", 0.01)), "gets no step"),
    ]:
        method = type("Odd", (Toy,), {"stages": lambda self, stages=stages: stages})()
        with pytest.raises(ConfigError, match=message):
            plan_stages(method, 10)


def test_task_that_the_method_does_not_serve() -> None:
    with pytest.raises(ConfigError, match="does not serve the task 'scene'"):
        train(Toy(), replace(SPEC, task="scene"), ToySource(), CONFIG)


def test_faults_of_the_settings_are_named_together() -> None:
    with pytest.raises(ConfigError) as raised:
        TrainConfig(steps=0, learning_rate=float("nan"), ema_decay=1.0, device="gpu", optimizer="adam")  # type: ignore[arg-type]
    for name in ("steps", "learning_rate", "ema_decay", "device", "optimizer"):
        assert name in str(raised.value)


def test_bf16_trains_close_to_fp32() -> None:
    fp32 = train(Toy(), SPEC, ToySource(), CONFIG)
    bf16 = train(Toy(), SPEC, ToySource(), replace(CONFIG, precision="bf16"))
    assert bf16.log[0]["total"] == pytest.approx(fp32.log[0]["total"], abs=2e-2)
    assert digest(bf16) != digest(fp32)


def test_the_house_net_resumes_bit_by_bit(tmp_path: Path) -> None:
    """Channels-last, depthwise convolutions and fused moments survive the way to the disk and back."""

    class House(Toy):
        def build(self, spec):  # type: ignore[no-untyped-def]
            return build_net(spec)

    spec = replace(SPEC, pretrained=True, pixel_path=True)
    for optimizer in ("adamw", "sgd"):
        config = TrainConfig(steps=6, n_labelled=2, checkpoint_every=3, optimizer=optimizer)  # type: ignore[arg-type]
        whole = digest(train(House(), spec, ToySource(), config))
        folder = tmp_path / optimizer
        train(House(), spec, ToySource(), config, folder=folder)
        _remove_newest(folder)
        resumed = train(House(), spec, ToySource(), config, folder=folder)
        assert digest(resumed) == whole
        assert len(resumed.log) == 6


def _remove_newest(folder: Path) -> None:
    import shutil

    shutil.rmtree(max((folder / "checkpoints").glob("step-*")))


def test_a_source_that_fails_is_heard(tmp_path: Path) -> None:
    class Broken(ToySource):
        def unlabelled(self, rng, n):  # type: ignore[no-untyped-def]
            raise OSError("disk gone")

    for workers in (0, 2):
        with pytest.raises(OSError, match="disk gone"):
            train(Toy(), SPEC, Broken(), replace(CONFIG, workers=workers), folder=tmp_path)


def test_method_and_spec_are_left_as_they_were() -> None:
    method = Toy()
    before = copy.deepcopy(method)
    train(method, SPEC, ToySource(), replace(CONFIG, steps=2))
    assert method == before
