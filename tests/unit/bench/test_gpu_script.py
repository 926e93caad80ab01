"""The script for one GPU, with a tiny setting on the processor: packed data, pieces of a run, rows."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from gpu_scripts import rows_of, run_with_few_packages, whole_and_in_pieces
from safetensors.torch import save_file
from scripts import load_script
from tiny_eurosat import write_archive

from berunda.bench import piece_options, pieces
from berunda.bench.experiment import Job
from berunda.bench.parts import INDEX
from berunda.bench.pieces import Pieces
from berunda.bench.resident import ResidentSource
from berunda.bench.rows import REQUIRED, RowFile
from berunda.bench.suite import Arm
from berunda.bench.timm_net import TimmNet, load_weights, with_weights
from berunda.data.image_source import ImageSource
from berunda.data.images import TRAIN, open_images
from berunda.data.order import Randomness
from berunda.data.subsets import label_subset
from berunda.errors import ConfigError, DataError, DivergedError
from berunda.methods import make_method
from berunda.methods.contract import NetSpec
from berunda.models.encoders import packaged_weights
from berunda.train import survey
from berunda.train.config import TrainConfig
from berunda.train.loop import train
from berunda.train.passes import AllImages, image_passes, survey_passes

ENCODER = "wide_resnet28_2"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    module = load_script("benchmarks/gpu_eurosat.py")
    module.measure_bound = functools.partial(module.measure_bound, repeats=1)  # type: ignore[attr-defined]
    return module


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_archive(tmp_path_factory.mktemp("eurosat"))


@pytest.fixture
def parts(script: ModuleType, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(piece_options, "DATA_PART_BYTES", 10_000)
    assert script.main(["--pack", str(tmp_path / "parts"), "--archive", str(archive)]) == 0
    found = sorted((tmp_path / "parts").glob("part-*"))
    assert len(found) > 1
    assert all(path.stat().st_size <= 10_000 for path in found)
    return tmp_path / "parts"


def tiny(parts: Path, folder: Path, *more: str) -> list[str]:
    """Return the arguments of a call that trains one short run on the processor."""
    given = [
        *("--parts", str(parts), "--state", str(folder / "state"), "--out", str(folder / "out")),
        *("--device", "cpu", "--encoder", ENCODER, "--steps", "4", "--labelled", "2", "--workers", "0"),
        *("--labels", "1", "--seeds", "1", "--option", "fixmatch.mu=2"),
    ]
    return [*given, *more]


def test_a_run_becomes_a_row(script: ModuleType, parts: Path, tmp_path: Path) -> None:
    assert script.main(tiny(parts, tmp_path)) == 0
    rows = RowFile(tmp_path / "out" / "eurosat_gpu.json").rows()
    assert [(r["method"], r["labels"], r["seed"], r["encoder"]) for r in rows] == [("fixmatch", 1, 0, ENCODER)]
    metrics = rows[0]["metrics"]
    assert (metrics["n_test"], metrics["n_validation"]) == (20, 10)
    assert rows[0]["variant"] == "mu=2"
    assert 0 < rows[0]["training_s"] < rows[0]["wall_s"]
    assert metrics["share_of_bare"] > 0
    assert metrics["share_of_bare"] == pytest.approx(metrics["bare_step_s"] / metrics["step_s"])
    assert metrics["share_of_bare_trained"] == pytest.approx(metrics["bare_trained_s"] / metrics["step_s"])
    assert 0 < metrics["share_of_bare_trained"] < metrics["share_of_bare"]
    assert rows[0]["images_per_s"] == pytest.approx((2 + 4 + 4 / 3) / metrics["step_s"], rel=0.3)
    assert "from scratch" in rows[0]["protocol"]
    assert not (tmp_path / "out" / "resume").exists()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"eurosat_gpu.json"}
    before = (tmp_path / "out" / "eurosat_gpu.json").read_bytes()
    assert script.main(tiny(parts, tmp_path)) == 0
    assert (tmp_path / "out" / "eurosat_gpu.json").read_bytes() == before


def test_a_run_in_pieces_ends_as_one_that_never_stopped(
    script: ModuleType, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = functools.partial(tiny, parts)
    whole, first, second = whole_and_in_pieces(script, given, tmp_path, monkeypatch)
    assert rows_of(first, "eurosat_gpu") == []
    with monkeypatch.context() as patch:
        patch.setattr(Pieces, "left_s", property(lambda _: 0.0))  # no time: what was brought is left as it was
        assert script.main(given(tmp_path / "idle", "--before", str(first / "out"))) == 0
    for path in (first / "out" / "resume").iterdir():
        assert (tmp_path / "idle" / "out" / "resume" / path.name).read_bytes() == path.read_bytes()
    figures = [rows_of(folder, "eurosat_gpu")[0]["metrics"] for folder in (whole, second)]
    for name in ("oa", "nll_before", "right", "confusion"):
        assert figures[0][name] == figures[1][name]


def test_a_run_that_diverges_is_noted_and_the_others_go_on(
    script: ModuleType, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = []

    def failing(method: Any, *given: Any, folder: Path, **named: Any) -> Any:
        tried.append(method.name)
        if method.name == "supervised":
            (folder / "left").mkdir(parents=True)
            raise DivergedError("the loss is not finite")
        return train(method, *given, folder=folder, **named)

    monkeypatch.setattr(pieces, "train", failing)
    given = ("--methods", "supervised,fixmatch")
    assert script.main(tiny(parts, tmp_path, *given)) == 1
    assert tried == ["supervised", "fixmatch"]
    assert "diverged: wide_resnet28_2-supervised-1-0; lower --learning-rate" in capsys.readouterr().err
    assert [row["method"] for row in RowFile(tmp_path / "out" / "eurosat_gpu.json").rows()] == ["fixmatch"]
    assert not any((tmp_path / "state" / "runs").glob("*supervised*"))
    again = tiny(parts, tmp_path / "next", *given, "--before", str(tmp_path / "out"))
    assert script.main(again) == 1
    assert tried == ["supervised", "fixmatch"]
    assert (tmp_path / "next" / "out" / "eurosat_gpu_diverged.json").is_file()
    monkeypatch.setattr(pieces, "train", train)
    assert script.main(tiny(parts, tmp_path / "slow", *given, "--learning-rate", "0.001")) == 0


def test_packed_weights_start_the_packaged_encoder(script: ModuleType, archive: Path, tmp_path: Path) -> None:
    arguments = ["--archive", str(archive), "--encoder", "efficientnet_lite0"]
    assert script.main(["--pack", str(tmp_path / "parts"), *arguments]) == 0
    assert {path.name for path in (tmp_path / "parts").iterdir()} == {"part-000", INDEX}
    options = script.parsed(["--parts", str(tmp_path / "parts"), "--state", str(tmp_path), *arguments[2:]])
    plan, job = script.experiment(options), Job(Arm("fixmatch"), 2, 0)
    assert plan.net.pretrained
    net: Any = plan.method(job).build(plan.spec(job))
    assert torch.equal(net.encoder.state_dict()["conv_stem.weight"], packaged_weights()["conv_stem.weight"])
    assert plan.config(job).optimizer == "adamw"


@pytest.fixture
def planned(script: ModuleType, archive: Path, tmp_path: Path) -> Callable[..., Any]:
    """Return what plans a call without starting it."""

    def plan(*more: str) -> Any:
        options = script.parsed(["--out", str(tmp_path / "out"), "--state", str(tmp_path / "state"), *more])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(script, "open_images", lambda name, **_: open_images(name, folder=archive.parent))
            return Pieces(script.experiment(options), piece_options.call_of(options, ""))

    return plan


@pytest.mark.parametrize("option", ["fixmatch.mu=7", "fixmatch.mu=2"])
def test_every_method_gets_as_many_passes(planned: Callable[..., Any], option: str) -> None:
    names = "fixmatch,supervised,pi_model,mixmatch,propagate"
    given = ("--steps", "400", "--labelled", "64", "--labels", "2", "--seeds", "1")
    plan = planned("--methods", names, *given, "--option", option).experiment
    jobs = list(plan.jobs())
    assert len(jobs) == 5
    for job in jobs:
        passes = image_passes(plan.method(job), plan.config(job), plan.all_images(job))
        assert passes == pytest.approx(plan.budget, rel=0.02), job


def test_looking_at_all_images_is_counted_before_the_first_run(planned: Callable[..., Any]) -> None:
    bench = planned("--steps", "1", "--labelled", "1", "--methods", "propagate", "--labels", "2")
    with pytest.raises(ConfigError, match="propagate-2-0: looking at all images takes"):
        bench.run()


def test_a_method_that_remembers_images_is_told_how_many(planned: Callable[..., Any]) -> None:
    plan, job = planned().experiment, Job(Arm("propagate"), 2, 0)
    spec = plan.spec(job)
    assert (spec.n_labelled, spec.n_unlabelled) == (20, 40)
    assert plan.all_images(job).n_images == 60


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--steps", "5"), "image_passes"),
        (("--learning-rate", "0.01"), "learning_rate"),
        (("--labelled", "3", "--steps", "4"), "n_labelled"),
        (("--depth", "3"), "encoder_depth"),
        (("--steps", "400", "--labelled", "2"), "warmup_steps"),
    ],
)
def test_rows_of_other_settings_are_not_mixed(planned: Callable[..., Any], more: tuple[str, ...], told: str) -> None:
    one = planned("--steps", "4", "--labelled", "2", "--labels", "1", "--seeds", "1")
    (job,) = one.missing()
    row = dict.fromkeys(REQUIRED, "") | {"suite": "eurosat_gpu", "dataset": "eurosat", "encoder": ENCODER}
    one.rows.add([row | job.key | {"setting": one.experiment.shared()}])
    assert one.run()
    with pytest.raises(ConfigError, match=rf"trained otherwise: .*{told}"):
        planned("--steps", "4", "--labelled", "2", *more).run()


def test_weights_are_part_of_the_setting(planned: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"some weights")
    found = (planned(), planned("--weights", str(tmp_path / "a.safetensors"), "--encoder", "resnet10t"))
    scratch, pretrained = (bench.experiment for bench in found)
    assert scratch.shared()["weights"] == ""
    assert len(pretrained.shared()["weights"]) == 16
    job = Job(Arm("fixmatch"), 2, 0)
    assert scratch.config(job).run_key != pretrained.config(job).run_key


def test_options_name_the_variant(planned: Callable[..., Any]) -> None:
    bench = planned("--option", "fixmatch.mu=2", "--methods", "fixmatch,supervised", "--labels", "1", "--seeds", "1")
    assert [job.arm.variant for job in bench.missing()] == ["mu=2", ""]
    assert bench.missing()[0].name("timm/net") == "timm_net-fixmatch-mu=2-1-0"


@pytest.mark.parametrize("option", ["supervised.mu=2", "fixmtach.mu=2", "mu=2"])
def test_options_that_change_nothing_are_refused(planned: Callable[..., Any], option: str) -> None:
    with pytest.raises(ConfigError, match=r"--option: found .*, expected an option of .*: fixmatch"):
        planned("--option", option)


def test_resident_images_equal_those_of_the_loader(archive: Path) -> None:
    images = open_images("eurosat", folder=archive.parent)
    index = label_subset(images, 2, "per_class", 0)
    resident = ResidentSource(images, index, torch.device("cpu"))
    usual = ImageSource(images, index, images.of(TRAIN), images.scaling())
    for draw in ("labelled", "unlabelled"):
        one, other = (getattr(source, draw)(Randomness(3), 7) for source in (resident, usual))
        torch.testing.assert_close(one.pixels, other.pixels, rtol=0, atol=1e-6)
        assert torch.equal(one.valid, other.valid)
        assert torch.equal(one.index, other.index)
        assert one.labels is None if other.labels is None else torch.equal(one.labels, other.labels)


def test_without_a_gpu_nothing_is_done(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    assert script.main([]) == 0
    assert "no GPU here" in capsys.readouterr().out


def test_few_packages_are_enough(parts: Path, tmp_path: Path) -> None:
    given = tiny(parts, tmp_path, "--steps", "1", "--labelled", "1")
    assert "all runs are done" in run_with_few_packages("gpu_eurosat.py", given)


def test_missing_data_is_an_error_of_one_line(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(tiny(tmp_path / "nowhere", tmp_path)) == 1
    assert "parts.json: not found" in capsys.readouterr().err
    assert script.main(["--pack", str(tmp_path), "--archive", str(tmp_path / "x.zip")]) == 1


@pytest.mark.parametrize(
    ("name", "channels"), [("resnet10t", (128, 256, 512)), ("vit_tiny_patch16_224", (192, 192, 192))]
)
def test_a_pretrained_net_has_the_weights_of_its_file(name: str, channels: tuple[int, ...], tmp_path: Path) -> None:
    spec = NetSpec("scene", n_bands=3, n_classes=4, encoder=name, crop_px=32)
    given = TimmNet(name, 3, 1000, 32)
    path = tmp_path / "weights.safetensors"
    save_file({**given.encoder.state_dict(), "fc.weight": torch.zeros(3)}, path)
    method = make_method("fixmatch", {"mu": 3.0})
    pretrained = with_weights(method, path, name)
    assert (pretrained.name, pretrained.mu) == ("fixmatch", 3.0)  # type: ignore[attr-defined]
    net: Any = pretrained.build(spec)
    for key, value in given.encoder.state_dict().items():
        assert torch.equal(net.encoder.state_dict()[key], value)
    pixels = torch.randn(2, 3, 32, 32)
    stages = net.encode(pixels)
    assert net.decode(stages).shape == (2, net.feature_dim)
    assert [stage.shape[:2] for stage in stages[1:]] == [(2, n) for n in channels]
    assert all(stage.ndim == 4 for stage in stages)
    net.eval()
    torch.testing.assert_close(net(pixels), net.classify(net.decode(net.encode(pixels))))


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224", "wide_resnet28_2"])
def test_images_are_described_by_stages_of_any_net(
    archive: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    described, seen = survey._described, []

    def seeing(net: Any, pixels: torch.Tensor) -> Any:
        features, logits = described(net, pixels)
        seen.append((pixels.shape[-1], features.shape[1]))
        return features, logits

    monkeypatch.setattr(survey, "_described", seeing)
    images = open_images("eurosat", folder=archive.parent)
    spec = NetSpec("scene", 3, 10, encoder=name, encoder_depth=2, crop_px=16, n_labelled=10, n_unlabelled=40)
    spec = replace(spec, pretrained=not name.startswith("wide"))
    method = make_method("propagate", {"graphs": 1, "mu": 1})
    if spec.pretrained:
        save_file(TimmNet(name, 3, 10, 16).encoder.state_dict(), tmp_path / "weights.safetensors")
        method = with_weights(method, tmp_path / "weights.safetensors", name)
    source = ResidentSource(images, label_subset(images, 1, "per_class", 0), torch.device("cpu"))
    train(method, spec, source, TrainConfig(steps=1, n_labelled=2, device="cpu"))
    side, n = {"resnet10t": (96, 896), "vit_tiny_patch16_224": (16, 576), "wide_resnet28_2": (16, 64 + 128)}[name]
    assert set(seen) == {(side, n)}
    once = 50 / 3 * max(1, side / 16) ** 2
    assert survey_passes(method, AllImages(50, 16, spec.pretrained)) == pytest.approx(once)


def test_weights_of_another_net_are_refused(tmp_path: Path) -> None:
    net = TimmNet("resnet10t", 3, 4, 32)
    path = tmp_path / "weights.safetensors"
    save_file({"conv1.weight": torch.zeros(3)}, path)
    with pytest.raises(DataError, match="missing or of another shape"):
        load_weights(net.encoder, path)
    (tmp_path / "weights.pth").write_bytes(b"\x80\x02")
    with pytest.raises(ConfigError, match="cannot be read as safetensors"):
        load_weights(net.encoder, tmp_path / "weights.pth")
    with pytest.raises(ConfigError, match="no_such_net"):
        TimmNet("no_such_net", 3, 4, 32)
