"""A program for `torchrun`: `toy_ranks.py TASK FOLDER`; also what a test needs to do the same alone.

Every rank writes what it found to FOLDER/TASK-RANK.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from toy_training import SPEC, Threshold, Toy, ToySource, digest

from berunda.data.order import Randomness
from berunda.data.source import RawImages
from berunda.errors import BerundaError
from berunda.methods import make_method
from berunda.methods._checking.trial import patch_net
from berunda.methods.contract import Batch, BufferUpdate, Loss, Method, Needs, NetSpec, Step
from berunda.models.resolution import FullResolution
from berunda.progress import Silent
from berunda.train.config import TrainConfig
from berunda.train.distributed import together
from berunda.train.loop import Trained, train

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "supervised": ("supervised", {}),
    "supervised plain": ("supervised", {"balance": False, "recipe": "strong"}),
    "fixmatch": ("fixmatch", {"threshold": 0.3, "align": "labelled", "adaptive": True, "mu": 2.0}),
    "fixmatch student": ("fixmatch", {"threshold": 0.35, "q_from": "student", "mu": 1.0}),
    "berunda": ("berunda", {}),
    "berunda l1": ("berunda", {"aux": "l1"}),
    "cotrain": ("cotrain", {}),
    "mean_teacher": ("mean_teacher", {"ramp": 0.0, "mu": 2.0}),
    "mixmatch": ("mixmatch", {"ramp": 0.0, "mu": 2.0, "q_from": "student"}),
    "berunda scene": ("berunda", {}),
    "pseudo_label scene": ("pseudo_label", {"threshold": 0.3, "ramp": 0.0, "mu": 2.0}),
    "pi_model scene": ("pi_model", {"ramp": 0.0, "mu": 2.0}),
    "vat scene": ("vat", {"mu": 2.0, "probe": 0.1, "epsilon": 0.5}),
    "mixmatch scene": ("mixmatch", {"ramp": 0.0, "mu": 1.0}),
    "flexmatch scene": ("flexmatch", {"threshold": 0.35, "mu": 2.0}),
    "freematch scene": ("freematch", {"mu": 2.0, "lambda_f": 1.0}),
    "softmatch scene": ("softmatch", {"mu": 2.0}),
    "adamatch scene": ("adamatch", {"threshold": 0.5, "ramp": 0.0, "mu": 2.0}),
    "defixmatch scene": ("defixmatch", {"threshold": 0.35, "mu": 2.0}),
    "berunda raw": ("berunda", {"weighting": "raw"}),
    "fixmatch uncertainty scene": ("fixmatch", {"threshold": 0.35, "mu": 2.0, "weighting": "uncertainty"}),
    "ssl_mae scene": ("ssl_mae", {"weighting": "normalised"}),
    "ssl_mae multilabel": ("ssl_mae", {"weighting": "uncertainty", "mask_ratio": 0.5, "normalise": True}),
    "supervised multilabel": ("supervised", {}),
    "fixmatch multilabel": ("fixmatch", {"mu": 2.0}),
    "pseudo_label multilabel": ("pseudo_label", {"ramp": 0.0, "mu": 2.0}),
    "mean_teacher multilabel": ("mean_teacher", {"ramp": 0.0, "mu": 2.0}),
}
GRADIENT = TrainConfig(
    steps=1, n_labelled=4, learning_rate=1.0, weight_decay=0.0, clip_norm=0.0, warmup_steps=0, optimizer="sgd"
)
LOOP = TrainConfig(steps=9, n_labelled=4, checkpoint_every=3, silence_s=5.0)


class PlainNet(FullResolution, nn.Module):
    """A net without batch norm and dropout."""

    feature_dim = 6

    def __init__(self, spec: NetSpec, norm: bool) -> None:
        super().__init__()
        self.body = nn.Conv2d(spec.n_bands, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8) if norm else nn.Identity()
        self.tail = nn.Conv2d(8, 6, 3, padding=1)
        self.is_pooled = spec.task != "segmentation"
        self.head = nn.Linear(6, spec.n_classes) if self.is_pooled else nn.Conv2d(6, spec.n_classes, 1)

    def encode(self, pixels: Tensor) -> list[Tensor]:
        return [pixels, torch.tanh(self.tail(torch.tanh(self.norm(self.body(pixels)))))]

    def decode(self, features: list[Tensor]) -> Tensor:
        return features[-1].mean((2, 3)) if self.is_pooled else features[-1]

    def classify(self, decoded: Tensor) -> Tensor:
        return self.head(decoded)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.classify(self.decode(self.encode(pixels)))


def in_float64(case: str, *, norm: bool = False) -> Method:
    """Return the method of `case` on a small net in float64, without batch norm unless asked for."""
    name, options = METHODS[case]
    kind = type(make_method(name, options))

    class Doubled(kind):  # type: ignore[misc, valid-type]
        def build(self, spec: NetSpec) -> nn.Module:
            return (patch_net(spec) if self.needs().encoder == "vit" else PlainNet(spec, norm)).double()

        def init(self, net: nn.Module, spec: NetSpec) -> nn.Module:
            extra = super().init(net, spec).double()
            for parent in list(extra.modules()):
                for child_name, child in list(parent.named_children()):
                    if isinstance(child, nn.BatchNorm2d) and not norm:
                        setattr(parent, child_name, nn.Identity())
            return extra

    return Doubled(**options)


@dataclass(frozen=True)
class DoubleSource(ToySource):
    """Images in float64, of which some carry far fewer labels than others."""

    def _draw(self, rng: Randomness, purpose: str, n: int) -> RawImages:
        drawn = super()._draw(rng, purpose, n)
        valid = drawn.valid.clone()
        valid[::2, 3:] = False
        return RawImages(drawn.pixels.double() * valid[:, None], valid, None, drawn.index)


@dataclass(frozen=True)
class SceneSource(DoubleSource):
    """The same images, labelled as wholes."""

    def labelled(self, rng: Randomness, n: int) -> RawImages:
        images = self._draw(rng, "labelled", n)
        return replace(images, labels=images.pixels[:, :3].mean((2, 3)).argmax(1))


@dataclass(frozen=True)
class SeveralSource(DoubleSource):
    """The same images with several labels each, some of them unknown."""

    def labelled(self, rng: Randomness, n: int) -> RawImages:
        images = self._draw(rng, "labelled", n)
        bright = images.pixels[:, :3].mean((2, 3))
        labels = (bright > bright.mean()).double()
        labels[1::4, 1] = torch.nan
        return replace(images, labels=labels)


SOURCES: dict[str, DoubleSource] = {"scene": SceneSource(), "multilabel": SeveralSource()}


def after_one_step(case: str, *, norm: bool = False) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Return weights and buffers after one step of 1.9 gradients, and its figures."""
    task: Any = case.split()[-1] if case.split()[-1] in SOURCES else "segmentation"
    source = SOURCES.get(task, DoubleSource())
    trained = train(in_float64(case, norm=norm), replace(SPEC, task=task), source, GRADIENT)
    modules = nn.ModuleDict({"net": trained.net, "extra": trained.extra, "averaged": trained.averaged})
    return modules.state_dict(), trained.log[0]


class Memory(Threshold):
    """One buffer of each reduction."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(4, 4, 12, 12))
        self.register_buffer("counted", torch.zeros((), dtype=torch.int64))


@dataclass(frozen=True)
class Remembering(Toy):
    """Keeps the images that it saw last, each rank its own, and how many it saw in the step."""

    keeps: bool = True

    def init(self, net: nn.Module, spec: NetSpec) -> nn.Module:
        return Memory()

    def loss(self, net: nn.Module, extra: nn.Module, batch: Batch, step: Step, rng: Randomness) -> Loss:
        loss = super().loss(net, extra, batch, step, rng)
        pixels = batch.labelled["weak"].pixels
        seen = extra.get_buffer("seen")
        pull = F.mse_loss(net(pixels), net(seen[: len(pixels)]))  # the memory has a say in the weights
        updates = {**loss.updates, "counted": BufferUpdate(torch.tensor(len(pixels)), "sum")}
        if self.keeps:
            updates["seen"] = BufferUpdate(torch.cat([pixels.detach(), seen])[:4], "per_rank")
        return Loss(loss.total + 0.1 * pull, loss.terms, updates)


@dataclass(frozen=True)
class DivergingOnOne(Toy):
    """Its loss is not a number at step 4 of rank 1."""

    def loss(self, net: nn.Module, extra: nn.Module, batch: Batch, step: Step, rng: Randomness) -> Loss:
        faults = {4: "nan"} if os.environ["RANK"] == "1" else {}
        return Toy(faults=faults).loss(net, extra, batch, step, rng)


class Calmer(Memory):
    """With the step size that is halved when a run goes back."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("step_share", torch.ones(()))


@dataclass(frozen=True)
class Recovering(Remembering):
    """Its loss is not a number on rank 1 from step 5 on, while its steps are larger than `heals`."""

    heals: float = 0.6

    def needs(self) -> Needs:
        return replace(super().needs(), returns=3)

    def init(self, net: nn.Module, spec: NetSpec) -> nn.Module:
        return Calmer()

    def calmed(self, extra: nn.Module) -> Mapping[str, Tensor]:
        return {"step_share": extra.get_buffer("step_share") / 2}

    def loss(self, net: nn.Module, extra: nn.Module, batch: Batch, step: Step, rng: Randomness) -> Loss:
        loss = super().loss(net, extra, batch, step, rng)
        is_ill = os.environ["RANK"] == "1" and step.index >= 5
        is_ill = is_ill and float(extra.get_buffer("step_share")) > self.heals
        return replace(loss, total=loss.total * float("nan")) if is_ill else loss


@dataclass(frozen=True)
class FailingSource(ToySource):
    """Fails once, at a step, on all ranks or on one."""

    step: int = 7
    rank: int | None = None

    def labelled(self, rng: Randomness, n: int) -> RawImages:
        if rng.counters[0] == self.step and self.rank in (None, int(os.environ.get("RANK", "0"))):
            raise ValueError("this image cannot be read")
        return super().labelled(rng, n)


def _gradients(folder: Path, rank: int) -> dict[str, Any]:
    """Save what one step of every method leads to."""
    from safetensors.torch import save_file

    for norm in (False, True):
        for case in METHODS if not norm else ("supervised",):
            tensors, figures = after_one_step(case, norm=norm)
            plain = {k: v.contiguous().clone() for k, v in tensors.items()}
            plain |= {f"figure.{k}": torch.tensor(v, dtype=torch.float64) for k, v in figures.items()}
            save_file(plain, folder / f"{case}-{norm}-{rank}.safetensors")
    return {}


def _attempt(work: Any) -> str:
    try:
        return str(work())
    except (BerundaError, ValueError) as error:
        return f"{type(error).__name__}: {error}"


def _weights(trained: Trained) -> str:
    """Return a digest without what each rank keeps for itself."""
    for module in (trained.extra, trained.averaged.extra):
        module.get_buffer("seen").zero_()
    return digest(trained)


def _together(rank: int) -> dict[str, Any]:
    """Do several trainings in one group, with more to do for the first rank, which also fails once."""

    def fails() -> None:
        with together():
            if rank == 0:
                time.sleep(1)
                raise ValueError("nothing to train with")
            train(Toy(), SPEC, ToySource(), LOOP)

    with together() as group:
        if group.rank == 0:
            time.sleep(1)
        trained = [digest(train(Toy(), SPEC, ToySource(), LOOP)) for _ in range(2)]
    return {"together": trained, "waited": _attempt(fails)}


def _resumes(folder: Path, rank: int) -> dict[str, Any]:
    """Train at once, and with an interruption; with and without buffers of each rank's own."""
    found: dict[str, Any] = {}
    for keeps in (True, False):
        method, place = Remembering(keeps=keeps), folder / f"keeps-{keeps}"
        whole = train(method, SPEC, ToySource(), LOOP)
        found[f"counted {keeps}"] = int(whole.extra.get_buffer("counted"))
        found[f"own {keeps}"] = float(whole.extra.get_buffer("seen").sum())
        once = digest(whole)
        found[f"shared {keeps}"] = _weights(whole)
        found[f"failed {keeps}"] = _attempt(lambda: train(method, SPEC, FailingSource(), LOOP, folder=place))  # noqa: B023
        found[f"bit-exact {keeps}"] = digest(train(method, SPEC, ToySource(), LOOP, folder=place)) == once
    found["diverged"] = _attempt(lambda: train(DivergingOnOne(), SPEC, ToySource(), LOOP))
    found["unlike"] = _attempt(lambda: train(Toy(), SPEC, ToySource(), replace(LOOP, run_key=f"data of {rank}")))
    found["uneven"] = _attempt(lambda: train(Toy(), SPEC, ToySource(), replace(LOOP, n_labelled=3)))
    found["alone"] = digest(train(Toy(), SPEC, ToySource(), replace(LOOP, ranks="alone")))
    found |= _together(rank)
    found["failed on one"] = _attempt(lambda: train(Toy(), SPEC, FailingSource(rank=1), LOOP))
    return found


def _returns(folder: Path, rank: int) -> dict[str, Any]:
    """Diverge on one rank, and go back: once; twice; with an interruption afterwards; again and again; not alike."""
    found: dict[str, Any] = {}
    for name, method in {"once": Recovering(), "twice": Recovering(heals=0.3)}.items():
        trained = train(method, SPEC, ToySource(), LOOP, folder=folder / name)
        found[f"{name} told"], found[f"{name} steps"] = trained.returned, [row["step"] for row in trained.log]
        found[f"{name} share"] = float(trained.extra.get_buffer("step_share"))
        found[f"{name} own"] = float(trained.extra.get_buffer("seen").sum())
        found[f"{name} all"] = digest(trained)
        found[f"{name} shared"] = _weights(trained)
    place, once = folder / "cut", Recovering()
    found["cut"] = _attempt(lambda: train(once, SPEC, FailingSource(), LOOP, folder=place))
    found["resumed"] = digest(train(once, SPEC, ToySource(), LOOP, folder=place))
    found["stays"] = _attempt(lambda: train(Recovering(heals=0.0), SPEC, ToySource(), LOOP, folder=folder / "stays"))
    found["apart"] = _attempt(lambda: train(once, SPEC, ToySource(), LOOP, folder=folder / f"apart-{rank}"))
    looks = replace(LOOP, check_every=1 + rank)
    found["looks"] = _attempt(lambda: train(once, SPEC, ToySource(), looks, folder=folder / "looks"))
    return found


class Diary(Silent):
    """Notes every step in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def advance(self, n: int = 1, **figures: float) -> None:
        """Note the step."""
        if figures:
            with self.path.open("a") as file:
                file.write("step\n")


LONG = replace(LOOP, steps=40, silence_s=3.0)


def _long(folder: Path, rank: int) -> dict[str, Any]:
    """Train slowly, telling the process and the steps."""
    (folder / f"process-{rank}").write_text(str(os.getpid()))
    source = ToySource(pause_s=0.05)
    return {"digest": digest(train(Toy(), SPEC, source, LONG, folder=folder / "run", progress=Diary(folder / "steps")))}


TASKS = {"gradients": _gradients, "resumes": _resumes, "returns": _returns, "long": _long}


def launch(task: str, folder: Path, n_ranks: int = 2) -> subprocess.Popen[str]:
    """Start `task` on several ranks."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    runner = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n_ranks}"]
    program = [*runner, __file__, task, str(folder)]
    return subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)


def main(task: str, folder: str) -> None:
    """Do the task and write down what came of it."""
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    try:
        found = TASKS[task](Path(folder), rank)
    except BerundaError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(error.exit_code)
    (Path(folder) / f"{task}-{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
