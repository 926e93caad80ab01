"""EuroSAT on one GPU: Wide-ResNet-28-2 from scratch or a pretrained encoder, at 1 to 100 labels a class, in pieces.

Usage:
  python benchmarks/gpu_eurosat.py --pack DIR [--encoder NAME --weights FILE]    data (and weights) in parts below 60 MB
  PYTHONPATH=src python benchmarks/gpu_eurosat.py --parts DIR,... --minutes 9 --before OUT1 --out OUT2

The second line needs torch, timm, numpy and pillow with what they bring along, scipy, and this checkout. It does what
is missing in `OUT2/eurosat_gpu.json`, and stops after --minutes: a run under way is left as parts below 16 MB in
`OUT2/resume`, from which the next call, with --before OUT2, goes on and ends with the same weights. Without --parts the
data set is looked for where the package looks for it. Without a GPU nothing is done, unless --device cpu asks for it.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from berunda._version import __version__
from berunda.assess.classify import Classified, classifier_figures
from berunda.bench.bound import images_per_step, measure_bound
from berunda.bench.parts import INDEX, join_parts, split_files
from berunda.bench.rows import RowFile
from berunda.bench.timm_net import with_weights
from berunda.data.image_source import ImageSource
from berunda.data.images import TEST, TRAIN, ImageSet, open_images
from berunda.data.scaling import CLIP
from berunda.data.source import RawImages
from berunda.data.subsets import label_subset, validation_subset
from berunda.errors import BerundaError, DataError
from berunda.methods import make_method
from berunda.methods.contract import Method, NetSpec
from berunda.models.device import resolve_device
from berunda.models.encoders import DEFAULT_ENCODER, packaged_weights
from berunda.train.config import TrainConfig
from berunda.train.loop import Trained, train

SUITE = "eurosat_gpu"
DATA_PART_BYTES, RESUME_PART_BYTES = 40_000_000, 15_000_000
MARGIN_S = 20.0
"""Kept of the time for the checkpoint and for leaving."""


@dataclass(frozen=True)
class Recipe:
    """How a net is trained. Source of `SCRATCH`: Sohn et al. 2020 (FixMatch), table 4."""

    optimizer: str
    learning_rate: float
    weight_decay: float
    clip_norm: float
    ema_decay: float = 0.999


SCRATCH = Recipe("sgd", 0.03, 5e-4, 0.0)
PRETRAINED = Recipe("adamw", 5e-4, 1e-2, 1.0)


class ResidentSource(ImageSource):
    """The same draws, from pixels that lie on the device: no step waits for a transfer."""

    def __init__(self, images: ImageSet, labelled: np.ndarray, device: torch.device) -> None:
        super().__init__(images, labelled, images.of(TRAIN), images.scaling())
        low, high = (torch.from_numpy(values).view(-1, 1, 1) for values in self.scaling)
        self._low, self._gain = low.float().to(device), (2.0 / (high - low)).float().to(device)
        self._pixels = torch.from_numpy(np.array(images.pixels)).to(device)

    def _gather(self, stream: np.ndarray, position: np.ndarray, labels: np.ndarray | None) -> RawImages:
        at = torch.from_numpy(stream[position]).to(self._pixels.device)
        pixels = ((self._pixels[at].float() - self._low) * self._gain - 1.0).clamp(-CLIP, CLIP)
        given = None if labels is None else torch.from_numpy(labels[position]).to(pixels.device)
        valid = torch.ones(len(at), *pixels.shape[2:], dtype=torch.bool, device=pixels.device)
        return RawImages(pixels, valid, given, torch.from_numpy(position.astype(np.int64)))


@dataclass(frozen=True)
class Job:
    """One run: a method with so many labels a class and a seed."""

    method: str
    labels: int
    seed: int

    def name(self, encoder: str) -> str:
        """Return the name of its folder."""
        return f"{encoder}-{self.method}-{self.labels}-{self.seed}".replace("/", "_")


class Bench:
    """The runs of one call.

    Args:
        options: of the command line.
        command: as it was typed.
    """

    def __init__(self, options: argparse.Namespace, command: str) -> None:
        self.options, self.command = options, command
        self.start = time.monotonic()
        self.rows = RowFile(options.out / f"{SUITE}.json")
        self.runs = options.state / "runs"
        if options.parts:
            folder = options.state / "data"
            if not folder.is_dir():
                join_parts(options.parts, folder)
            self.weights = folder / "weights" / f"{options.encoder}.safetensors"
            self.images = open_images("eurosat", folder=folder, cache=options.state / "cache")
        else:
            self.weights = options.weights or Path()
            self.images = open_images("eurosat")
        if options.before is not None:
            self._take_over(options.before)
        shutil.rmtree(options.out / "resume", ignore_errors=True)

    def _take_over(self, before: Path) -> None:
        """Bring in the rows and the run under way of an earlier call."""
        self.rows.add(RowFile(before / f"{SUITE}.json").rows())
        if (before / "resume" / INDEX).is_file() and not self.runs.is_dir():
            join_parts([before / "resume"], self.runs)

    @property
    def left_s(self) -> float:
        """Seconds until this call should come to its end."""
        return 60 * float(self.options.minutes) - MARGIN_S - (time.monotonic() - self.start)

    def jobs(self) -> Iterator[Job]:
        """Yield the runs that no row tells of yet."""
        for labels in self.options.labels:
            for seed in range(self.options.seeds):
                for method in self.options.methods:
                    key = {"method": method, "labels": labels, "seed": seed, "encoder": self.options.encoder}
                    if not self.rows.has(suite=SUITE, variant=self.options.variant, **key):
                        yield Job(method, labels, seed)

    def run(self) -> bool:
        """Do what there is time for; return whether all is done."""
        for job in self.jobs():
            if self.left_s <= 0 or not self._run(job):
                self._leave()
                return False
        return True

    def _run(self, job: Job) -> bool:
        images, folder = self.images, self.runs / job.name(self.options.encoder)
        method, spec, config = self.method(job.method), self.spec(), self.config(job)
        train_index = label_subset(images, job.labels, "per_class", job.seed)
        source = ResidentSource(images, train_index, resolve_device(config.device))
        bound = measure_bound(method, spec, config)
        with alarm(self.left_s) as fired:
            try:
                trained = train(method, spec, source, config, folder=folder)
            except SystemExit:
                if not fired.is_set():
                    raise
                return False
        parts = (validation_subset(images, len(train_index), job.seed), images.of(TEST))
        validation, test = (classified(trained, images, index, config) for index in parts)
        figures = classifier_figures(validation, test, class_names=images.classes)
        step_s = trained.seconds / config.steps
        figures |= {"step_s": step_s, "bare_step_s": bound.step_s, "share_of_bare": bound.step_s / step_s}
        self.rows.add([self.row(job, config, figures, trained)])
        shutil.rmtree(folder)
        oa, passes = figures["oa"], bound.images.passes / step_s
        said = (
            f"{100 * oa:.2f}%, {trained.seconds:.0f} s, {passes:.0f} images/s, {figures['share_of_bare']:.0%} of bare"
        )
        print(f"{job.name(self.options.encoder)}: {said}", flush=True)
        return True

    def _leave(self) -> None:
        """Put the checkpoint of the run under way into parts."""
        files = sorted(path for path in self.runs.rglob("*") if path.is_file() and path.suffix != ".lock")
        named = {path.relative_to(self.runs).as_posix(): path for path in files}
        if named:
            written = split_files(named, self.options.out / "resume", RESUME_PART_BYTES)
            print(f"time is up: {files[0].relative_to(self.runs).parts[0]} goes on from {len(written) - 1} parts")

    def method(self, name: str) -> Method:
        """Return the method with its options, and with pretrained weights where the encoder has some."""
        method = make_method(name, self.options.method_options.get(name, {}))
        return with_weights(method, self.weights) if self.is_pretrained else method

    @property
    def is_pretrained(self) -> bool:
        """Whether the encoder starts from weights in a file."""
        return self.weights.is_file()

    def spec(self) -> NetSpec:
        """Return the net."""
        images, options = self.images, self.options
        net = {"encoder": options.encoder, "encoder_depth": options.depth, "pretrained": self.is_pretrained}
        return NetSpec("scene", len(images.bands), len(images.classes), crop_px=images.size[0], **net)

    def config(self, job: Job) -> TrainConfig:
        """Return the loop's settings; the supervised net gets as many image passes a step as FixMatch takes."""
        options, recipe = self.options, asdict(PRETRAINED if self.is_pretrained else SCRATCH)
        recipe |= {"learning_rate": options.learning_rate} if options.learning_rate else {}
        n_labelled = options.labelled
        if job.method == "supervised":
            n_labelled = round(images_per_step(make_method("fixmatch"), n_labelled).passes)
        return TrainConfig(
            steps=options.steps,
            n_labelled=n_labelled,
            warmup_steps=min(200, options.steps // 10),
            seed=job.seed,
            checkpoint_every=0,
            keep=1,
            device=options.device,
            workers=options.workers,
            compile=options.compile,
            ranks="alone",
            run_key=f"{self.images.fingerprint[:16]}-{job.labels}",
            **recipe,
        )

    def row(self, job: Job, config: TrainConfig, figures: dict[str, Any], trained: Trained) -> dict[str, Any]:
        """Return the row of a finished run."""
        images = images_per_step(self.method(job.method), config.n_labelled)
        kind = "pretrained" if self.is_pretrained else "from scratch"
        return {
            "suite": SUITE,
            "dataset": "eurosat",
            "task": "scene",
            "method": job.method,
            "variant": self.options.variant,
            "encoder": self.options.encoder,
            "labels": job.labels,
            "labels_unit": "per_class",
            "seed": job.seed,
            "metrics": figures,
            "wall_s": round(trained.seconds, 2),
            "images_per_s": round(images.passes * config.steps / trained.seconds, 1),
            "image_passes": round(images.passes * config.steps),
            "protocol": f"RGB, {self.images.size[0]} px, {kind}; split of index.csv; labels drawn by seed, all "
            f"training images unlabelled; {config.steps} steps of {images.trained} images trained and "
            f"{images.forward} shown to the teacher; averaged model of the last step",
            "hardware": hardware(config.device),
            "config": config.numerics(),
            "options": self.options.method_options.get(job.method, {}),
            "command": self.command,
            "version": __version__,
        }


@contextmanager
def alarm(seconds: float) -> Iterator[threading.Event]:
    """Ask this process to stop (SIGTERM) after `seconds`, which the loop honours with a checkpoint.

    Yields an event that tells whether it was the alarm. Its signals outside of the loop do nothing.
    """
    fired, over = threading.Event(), threading.Event()

    def ring() -> None:
        delay = max(0.0, seconds)
        while not over.wait(delay):  # again and again, since the loop may not be listening yet
            fired.set()
            os.kill(os.getpid(), signal.SIGTERM)
            delay = 1.0

    def late(number: int, frame: object) -> None:
        del frame
        if not fired.is_set():
            raise SystemExit(128 + number)

    thread = threading.Thread(target=ring, daemon=True)
    before = signal.signal(signal.SIGTERM, late)
    thread.start()
    try:
        yield fired
    finally:
        over.set()
        thread.join()
        signal.signal(signal.SIGTERM, before)


@torch.no_grad()
def classified(
    trained: Trained, images: ImageSet, index: np.ndarray, config: TrainConfig, batch: int = 512
) -> Classified:
    """Return what the averaged model makes of some images."""
    model, method = trained.model, trained.method
    net: Any = model.net
    device = next(net.parameters()).device
    is_bf16 = device.type == "cuda" and config.precision != "fp32"
    logits, features = [], []
    for start in range(0, len(index), batch):
        pixels = torch.from_numpy(images.scaled(index[start : start + batch])).to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=is_bf16):
            decoded = net.decode(net.encode(pixels))
            answer = method.classify(net, model.extra, pixels, decoded)
        logits.append(answer.float().cpu().numpy())
        features.append(decoded.float().cpu().numpy())
    if not logits:
        return Classified(np.zeros((0, len(images.classes)), np.float32), np.zeros(0, np.int64))
    return Classified(np.concatenate(logits), images.labels[index], np.concatenate(features))


def hardware(device: str) -> str:
    """Return the GPU (or that there is none) and the cores."""
    name = torch.cuda.get_device_name(0) if device != "cpu" and torch.cuda.is_available() else "CPU only"
    return f"{name}, {os.cpu_count()} cores"


def pack(folder: Path, archive: Path, encoder: str, weights: Path | None) -> None:
    """Write the data set's archive with its split, and pretrained weights, in parts."""
    from safetensors.torch import save_file

    if not archive.is_file() or not (archive.parent / "index.csv").is_file():
        raise DataError(f"{archive}: not found with its index.csv beside it; name the archive with --archive")
    files = {archive.name: archive, "index.csv": archive.parent / "index.csv"}
    made = folder / f"{encoder}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    if weights is None and encoder == DEFAULT_ENCODER:
        save_file({name: tensor.contiguous() for name, tensor in packaged_weights().items()}, made)
        weights = made
    if weights is not None:
        files[f"weights/{encoder}.safetensors"] = weights
    written = split_files(files, folder, DATA_PART_BYTES)
    made.unlink(missing_ok=True)
    print("\n".join(f"{path} {path.stat().st_size / 1e6:.1f} MB" for path in written))


def parsed(arguments: list[str]) -> argparse.Namespace:
    """Return the options, lists taken apart."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    data = Path(os.environ.get("BERUNDA_DATA", ".")) / "eurosat_rgb" / "EuroSAT_RGB.zip"
    parser.add_argument("--pack", type=Path, metavar="DIR", help="write data and weights in parts, and end")
    parser.add_argument("--archive", type=Path, default=data, help="for --pack: index.csv lies beside it")
    parser.add_argument("--parts", type=_several(Path), default=[], metavar="DIR,...", help="folders with the parts")
    parser.add_argument("--state", type=Path, default=Path("gpu-state"), help="joined data and runs under way")
    parser.add_argument("--before", type=Path, metavar="DIR", help="what an earlier call left in its --out")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "results")
    parser.add_argument("--minutes", type=float, default=9.0, help="of this call")
    parser.add_argument("--encoder", default="wide_resnet28_2")
    parser.add_argument("--depth", type=int, default=2, help="stages of a net from scratch")
    parser.add_argument("--weights", type=Path, help="safetensors file of a timm encoder")
    parser.add_argument("--methods", type=_several(str), default=["fixmatch"])
    parser.add_argument("--option", action="append", default=[], metavar="METHOD.NAME=VALUE")
    parser.add_argument("--variant", default="", help="what the options are called in the rows")
    parser.add_argument("--labels", type=_several(int), default=[5, 1, 10, 20, 100])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--labelled", type=int, default=64, help="labelled images a step")
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args(arguments)
    options.method_options = {}
    for text in options.option:
        name, _, value = text.partition("=")
        method, _, key = name.partition(".")
        options.method_options.setdefault(method, {})[key] = value
    return options


def _several(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    return lambda text: [kind(part) for part in text.split(",")]


def main(arguments: list[str]) -> int:
    """Pack, or train what is missing; return the exit code."""
    options = parsed(arguments)
    try:
        if options.pack is not None:
            pack(options.pack, options.archive, options.encoder, options.weights)
            return 0
        if options.device != "cpu" and not torch.cuda.is_available():
            print("no GPU here, nothing done; --device cpu trains on the processor")
            return 0
        torch.backends.cudnn.benchmark = True
        bench = Bench(options, shlex.join(["python", "benchmarks/gpu_eurosat.py", *arguments]))
        done = bench.run()
        bench.rows.path.with_suffix(".lock").unlink(missing_ok=True)
        print("all runs are done" if done else "more is left: call again with --before")
    except BerundaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
